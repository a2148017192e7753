//! Takes the shares of each call, and sheds the call if a budget is exhausted: before its body is
//! read, and before anything is done for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    auth::{self, Peer},
    budget::{Budgets, CONTROL_CALLS_BEYOND, Connection, Exhausted, Share},
    domain::authorization::Caller,
    grpc::{
        error,
        middleware::{
            deadline::Deadline,
            request_body::RequestBody,
            response_body::{InFlight, Recipient, ResponseBody},
        },
    },
    ledger::Outcome,
    proto::{
        account_service_server::SERVICE_NAME,
        methods::{self, Method},
    },
};

/// Bytes of one message of health, reflection or AdminService: it has names and numbers only, and
/// reflection repeats it in each response.
const CONTROL_MESSAGE_SIZE_MAX: u32 = 4 * 1024;

/// The fields of headers that honest calls have.
const COMMON_FIELDS: usize = 16;
/// The memory of each field beyond them, in bytes, beside what HTTP/2 counts for it.
const FIELD_BYTES: usize = 256;

/// The sizes that a single request may have.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimits {
    /// Bytes of the headers of one call, of any service, as HTTP/2 counts them.
    pub header_size_max: u32,
    /// Bytes of one message.
    pub message_size_max: u32,
}

/// Sheds calls beyond the limits. Stands inside of authentication, which identifies the callers, and
/// of the deadline, which bounds the time to receive a request.
#[derive(Clone)]
pub struct LimitLayer {
    budgets: Arc<Budgets>,
    sizes: SizeLimits,
}

/// The service of a [`LimitLayer`].
#[derive(Clone)]
pub struct LimitService<S> {
    layer: LimitLayer,
    inner: S,
}

impl LimitLayer {
    /// A layer that takes from these budgets.
    #[must_use]
    pub fn new(budgets: Arc<Budgets>, sizes: SizeLimits) -> Self {
        Self { budgets, sizes }
    }

    fn too_large(&self, size: usize) -> Option<Status> {
        let max = self.sizes.header_size_max;
        (size > max as usize).then(|| {
            let message = format!("the headers have {size} bytes; at most {max} are allowed");
            error::request_too_large("header_size_max", max, message)
        })
    }

    fn message_size_max(&self, path: &str) -> u32 {
        let max = self.sizes.message_size_max;
        if is_account_service(path) { max } else { max.min(CONTROL_MESSAGE_SIZE_MAX) }
    }

    /// Takes the share of one call.
    fn admit(
        &self,
        path: &str,
        method: Option<&Method>,
        caller: &Caller,
        connection: Option<&Arc<Connection>>,
    ) -> Result<InFlight, Exhausted> {
        let identity = &caller.identity;
        if let Some(connection) = connection {
            connection.establish(identity, caller.expire_time)?;
        }
        let open = connection.map(Connection::begin_call);
        let connection_id = connection.map(|it| it.id);
        let is_control_call = !is_account_service(path);
        let is_stream = !method.is_some_and(Method::is_unary);
        let budget = match (is_control_call, identity.is_anonymous()) {
            (false, _) => &self.budgets.calls,
            (true, true) if is_stream => &self.budgets.streams_of_nobody,
            (true, _) => &self.budgets.control_calls,
        };
        let mut share = budget.share(identity.clone(), connection_id);
        if is_control_call && identity.is_anonymous() && !is_stream {
            self.take_brief(&mut share)?;
            let brief = connection.map(|it| self.budgets.brief_calls.begin(it.clone()));
            return Ok(InFlight { _share: share, _open: open, _brief: brief });
        }
        // Calls in flight come first: a call that they shed takes nothing from the rate.
        share.resize(1)?;
        if !is_control_call {
            self.budgets.take_call(identity)?;
        }
        Ok(InFlight { _share: share, _open: open, _brief: None })
    }

    /// Takes the share of a control call of nobody that is no stream. If there are too many, closes a
    /// connection with such calls, and does not wait until they have ended.
    fn take_brief(&self, share: &mut Share) -> Result<(), Exhausted> {
        let max = share.identity_max();
        let is_full = share.used_by_identity() >= max;
        let others_end = is_full && self.budgets.brief_calls.make_room(max);
        share.resize_within(1, if others_end { max + CONTROL_CALLS_BEYOND } else { max })
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = LimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitService { layer: self.clone(), inner }
    }
}

impl<S> Service<Request<Body>> for LimitService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let layer = &self.layer;
        let header_size = header_size(&request);
        if let Some(status) = layer.too_large(header_size) {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let many_fields = request.headers().len().saturating_sub(COMMON_FIELDS);
        let header_bytes = header_size + many_fields * FIELD_BYTES;
        let caller = auth::caller(request.extensions());
        let peer = request.extensions().get::<Peer>();
        let connection = peer.and_then(|it| it.connection.clone());
        let path = request.uri().path();
        let method = methods::of_path(path);
        let call = match layer.admit(path, method, &caller, connection.as_ref()) {
            Ok(call) => call,
            Err(exhausted) => {
                let shed = error::overloaded(exhausted, Some(Outcome::NotApplied));
                let status = Status::from(shed);
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let identity = caller.identity;
        let connection_id = connection.as_ref().map(|it| it.id);
        let deadline = Deadline::of(request.extensions());
        let received = layer.budgets.request_bytes.share(identity.clone(), connection_id);
        let message_size_max = layer.message_size_max(path);
        let request = request.map(|body| {
            let has_one_request = method.is_none_or(Method::has_one_request);
            let receive_until = has_one_request.then(|| deadline.receive_until());
            let size_max = message_size_max as usize;
            RequestBody::wrap(body, header_bytes, size_max, receive_until, received)
        });
        let budget = layer.budgets.response_bytes.clone();
        let recipient = Recipient { budget, identity, connection };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(ResponseBody::wrap(response, method, call, recipient, message_size_max))
        })
    }
}

/// The size of the headers by RFC 9113, 10.5.1: each field's name and value, and 32 bytes a field.
fn header_size<B>(request: &Request<B>) -> usize {
    const FIELD: usize = 32;
    let uri = request.uri();
    let pseudo = [
        (":method", request.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", |it| it.as_str())),
        (":path", uri.path_and_query().map_or("", |it| it.as_str())),
    ];
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    fields.sum::<usize>()
        + pseudo.iter().map(|(name, value)| name.len() + value.len() + FIELD).sum::<usize>()
}

fn is_account_service(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    service.is_some_and(|rest| rest.starts_with('/'))
}
