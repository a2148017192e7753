//! Sheds calls beyond the limits before their bodies are read.
//!
//! Only calls of AccountService count: an orchestrator would kill an overloaded server that does not
//! answer health checks, and its operator must get in.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use metrics::{Counter, counter};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{
    auth,
    domain::ids::Identity,
    grpc::{
        error,
        middleware::identity_budget::{Exhausted, IdentityBudget, Reservation},
    },
    proto::account_service_server::SERVICE_NAME,
};

/// What RetryInfo advises after a call beyond a number of calls.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Identities whose rates are kept. Beyond, the rates of those without recent calls are dropped.
const IDENTITIES_KEPT: usize = 1000;

/// The limits on calls.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls in flight, of all callers together.
    pub calls_max: u32,
    /// Calls in flight, of one identity.
    pub identity_calls_max: u32,
    /// Calls a second of one identity, with a burst of as many; None: no limit.
    pub identity_rate_max: Option<NonZeroU32>,
    /// Bytes of the headers of a call of any service, as HTTP/2 counts them.
    pub header_size_max: u32,
}

/// Sheds calls beyond the limits. Stands inside of [`crate::grpc::AuthenticationLayer`], which
/// identifies their callers.
#[derive(Clone)]
pub struct LimitLayer(Arc<Limiter>);

/// See [`LimitLayer`].
#[derive(Clone)]
pub struct CallLimitService<S> {
    limiter: Arc<Limiter>,
    inner: S,
}

struct Limiter {
    limits: CallLimits,
    in_flight: Arc<IdentityBudget>,
    rates: Option<DefaultKeyedRateLimiter<Identity>>,
    shed: [Counter; 3],
}

/// The limit that sheds a call, in the order of `Limiter::shed`.
#[derive(Clone, Copy)]
enum Limit {
    Calls,
    IdentityCalls,
    IdentityRate,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Calls, Self::IdentityCalls, Self::IdentityRate];

    /// The name in errors and metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::IdentityCalls => "identity_calls",
            Self::IdentityRate => "identity_rate",
        }
    }
}

impl LimitLayer {
    /// A layer with these limits.
    #[must_use]
    pub fn new(limits: CallLimits) -> Self {
        let rates =
            limits.identity_rate_max.map(|rate| RateLimiter::keyed(Quota::per_second(rate)));
        let shed =
            Limit::ALL.map(|limit| counter!("passbook_calls_shed_total", "limit" => limit.name()));
        let CallLimits { calls_max, identity_calls_max, .. } = limits;
        let in_flight = IdentityBudget::new(calls_max as usize, identity_calls_max as usize);
        Self(Arc::new(Limiter { limits, in_flight, rates, shed }))
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = CallLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallLimitService { limiter: self.0.clone(), inner }
    }
}

impl<S, B> Service<Request<B>> for CallLimitService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max = self.limiter.limits.header_size_max;
        let size = header_size(&request);
        if size > max as usize {
            let message = format!("the headers have {size} bytes; at most {max} are allowed");
            let status = error::request_too_large("header_size_max", max, message);
            return Box::pin(async move { Ok(status.into_http()) });
        }
        if !is_limited(request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        let identity = auth::caller(request.extensions()).identity;
        match self.limiter.admit(identity) {
            Ok(permit) => {
                let response = self.inner.call(request);
                Box::pin(async move {
                    Ok(response.await?.map(|body| Body::new(PermitBody { body, _permit: permit })))
                })
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}

/// RFC 9113, 10.5.1: of each field name and value, and 32 bytes more.
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

fn is_limited(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    service.is_some_and(|rest| rest.starts_with('/'))
}

impl Limiter {
    fn admit(&self, identity: Identity) -> Result<Reservation, tonic::Status> {
        let mut permit = self.in_flight.reservation(identity);
        // First the numbers: a call that they shed uses up nothing of the rate.
        permit.resize(1).map_err(|exhausted| {
            let limit = match exhausted {
                Exhausted::Total(_) => Limit::Calls,
                Exhausted::Identity(_) => Limit::IdentityCalls,
            };
            self.shed(limit, permit.identity(), RETRY_DELAY)
        })?;
        let Some(rates) = self.rates.as_ref().filter(|_| !permit.identity().is_anonymous()) else {
            return Ok(permit);
        };
        if rates.len() > IDENTITIES_KEPT {
            rates.retain_recent();
        }
        match rates.check_key(permit.identity()) {
            Ok(()) => Ok(permit),
            Err(early) => {
                let delay = early.wait_time_from(DefaultClock::default().now());
                Err(self.shed(Limit::IdentityRate, permit.identity(), delay))
            }
        }
    }

    fn shed(&self, limit: Limit, identity: &Identity, delay: Duration) -> tonic::Status {
        self.shed[limit as usize].increment(1);
        let CallLimits { calls_max, identity_calls_max, identity_rate_max, .. } = self.limits;
        let (max, message) = match limit {
            Limit::Calls => (calls_max, format!("{calls_max} calls are in flight already")),
            Limit::IdentityCalls => (
                identity_calls_max,
                format!(
                    "{identity_calls_max} calls of identity {identity:?} are in flight already"
                ),
            ),
            Limit::IdentityRate => {
                let max = identity_rate_max.map_or(0, NonZeroU32::get);
                (max, format!("identity {identity:?} makes more than {max} calls a second"))
            }
        };
        error::call_shed(limit.name(), max, message, delay)
    }
}

pin_project! {
    /// The body of a response, which keeps the permit of its call until it is sent.
    struct PermitBody {
        #[pin]
        body: Body,
        _permit: Reservation,
    }
}

impl http_body::Body for PermitBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
