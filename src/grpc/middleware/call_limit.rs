//! How many calls are under way, and for whom. What is too much is refused before it is read.
//!
//! Health must be told also by a server that has too much to do, or it would be killed for it, and
//! whoever looks after it must get in; so only calls of AccountService count.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex},
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

use crate::{auth, grpc::error, lock::lock, proto::account_service_server::SERVICE_NAME};

/// After how long a call beyond a number of calls is worth a new attempt.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Identities whose rates are kept; beyond, those are forgotten that have not called of late.
const IDENTITIES_KEPT: usize = 1000;

/// How many calls there may be.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Under way, of all callers together.
    pub calls_max: u32,
    /// Under way, of one identity.
    pub identity_calls_max: u32,
    /// A second, of one identity, and that many at once; None: any number.
    pub identity_rate_max: Option<NonZeroU32>,
    /// Bytes of a call's headers, as HTTP/2 counts them. This is for calls of all services.
    pub header_size_max: u32,
}

/// Refuses calls beyond the limits; inside of [`crate::grpc::AuthenticationLayer`], which says
/// whose they are.
#[derive(Clone)]
pub struct LimitLayer(Arc<Limiter>);

/// See [`LimitLayer`].
#[derive(Clone)]
pub struct Limited<S> {
    limiter: Arc<Limiter>,
    inner: S,
}

struct Limiter {
    limits: CallLimits,
    under_way: Mutex<UnderWay>,
    rates: Option<DefaultKeyedRateLimiter<Arc<str>>>,
    shed: [Counter; 3],
}

#[derive(Default)]
struct UnderWay {
    calls: u32,
    /// Of those that have any.
    of_identity: HashMap<Arc<str>, u32>,
}

/// The place of a call that is under way, given back when it ends.
struct Place {
    limiter: Arc<Limiter>,
    identity: Arc<str>,
}

/// What there is too much of, in the order of `Limiter::shed`.
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
    /// Calls beyond these are refused.
    #[must_use]
    pub fn new(limits: CallLimits) -> Self {
        let rates =
            limits.identity_rate_max.map(|rate| RateLimiter::keyed(Quota::per_second(rate)));
        let shed =
            Limit::ALL.map(|limit| counter!("passbook_calls_shed_total", "limit" => limit.name()));
        Self(Arc::new(Limiter { limits, under_way: Mutex::default(), rates, shed }))
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Limited { limiter: self.0.clone(), inner }
    }
}

impl<S, B> Service<Request<B>> for Limited<S>
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
            Ok(place) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    Ok(answer.await?.map(|body| Body::new(PlacedBody { body, _place: place })))
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

/// Without authentication all are nobody, who has no share of their own.
fn is_someone(identity: &str) -> bool {
    !identity.is_empty()
}

impl Limiter {
    fn admit(self: &Arc<Self>, identity: Arc<str>) -> Result<Place, tonic::Status> {
        // First the numbers: what is refused by them has not used up anything of the rate.
        let place = self.take_place(identity)?;
        let Some(rates) = self.rates.as_ref().filter(|_| is_someone(&place.identity)) else {
            return Ok(place);
        };
        if rates.len() > IDENTITIES_KEPT {
            rates.retain_recent();
        }
        match rates.check_key(&place.identity) {
            Ok(()) => Ok(place),
            Err(early) => {
                let delay = early.wait_time_from(DefaultClock::default().now());
                let rate = self.limits.identity_rate_max.map_or(0, NonZeroU32::get);
                Err(self.refuse(Limit::IdentityRate, rate, &place.identity, delay))
            }
        }
    }

    fn take_place(self: &Arc<Self>, identity: Arc<str>) -> Result<Place, tonic::Status> {
        let CallLimits { calls_max, identity_calls_max, .. } = self.limits;
        let mut under_way = lock(&self.under_way);
        if under_way.calls >= calls_max {
            return Err(self.refuse(Limit::Calls, calls_max, &identity, RETRY_DELAY));
        }
        let own = under_way.of_identity.entry(identity.clone()).or_default();
        if *own >= identity_calls_max && is_someone(&identity) {
            let limit = Limit::IdentityCalls;
            return Err(self.refuse(limit, identity_calls_max, &identity, RETRY_DELAY));
        }
        *own += 1;
        under_way.calls += 1;
        Ok(Place { limiter: self.clone(), identity })
    }

    fn refuse(&self, limit: Limit, max: u32, identity: &str, delay: Duration) -> tonic::Status {
        self.shed[limit as usize].increment(1);
        let message = match limit {
            Limit::Calls => format!("{max} calls are under way already"),
            Limit::IdentityCalls => {
                format!("{max} calls of identity {identity:?} are under way already")
            }
            Limit::IdentityRate => {
                format!("identity {identity:?} makes more than {max} calls a second")
            }
        };
        error::of_limit(limit.name(), max, message, delay)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = lock(&self.limiter.under_way);
        under_way.calls = under_way.calls.saturating_sub(1);
        if let Some(own) = under_way.of_identity.get_mut(&self.identity) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                under_way.of_identity.remove(&self.identity);
            }
        }
    }
}

pin_project! {
    /// An answer that is on its way, and the place of its call.
    struct PlacedBody {
        #[pin]
        body: Body,
        _place: Place,
    }
}

impl http_body::Body for PlacedBody {
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
