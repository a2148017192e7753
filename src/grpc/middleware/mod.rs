//! The layers that every call passes before its RPC, of whatever service.
//!
//! [`stack`] composes them, in order. A layer works on headers, bodies and extensions. It knows no
//! message, no RPC and no ledger: what needs one of these belongs to the service.

pub mod authentication;
pub mod compression;
pub mod deadline;
mod front_door;
pub mod limits;
pub mod request_body;
mod response_body;
pub mod telemetry;
pub mod unread_body;

use std::{any::Any, sync::Arc, time::Duration};

use http::{Request, Response};
use tonic::body::Body;
use tower::{
    ServiceBuilder,
    layer::util::{Identity, Stack},
    util::{MapRequestLayer, MapResponseLayer},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    audit::AuditLog,
    auth::Authenticator,
    budget::Budgets,
    grpc::{
        error,
        middleware::{
            authentication::AuthenticationLayer,
            deadline::DeadlinePolicy,
            front_door::FrontDoorLayer,
            limits::{LimitLayer, SizeLimits},
            telemetry::TelemetryLayer,
            unread_body::UnreadBodies,
        },
    },
};

/// The settings of the layers.
pub struct StackConfig {
    /// Records denials and changes, if there is an audit log.
    pub audit: Option<Arc<AuditLog>>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// What calls take shares of.
    pub budgets: Arc<Budgets>,
    /// The limits on the sizes of requests.
    pub sizes: SizeLimits,
    /// The deadline of calls that bring none.
    pub deadlines: DeadlinePolicy,
    /// A unary call that takes longer is logged at WARN.
    pub slow_request_threshold: Duration,
}

/// The layers of [`stack`], innermost first, as tower names their types.
type Layers<Drain, Name> = Stack<
    LimitLayer,
    Stack<
        AuthenticationLayer,
        Stack<
            MapRequestLayer<RequestMap>,
            Stack<
                MapResponseLayer<Name>,
                Stack<
                    FrontDoorLayer,
                    Stack<
                        CatchPanicLayer<PanicHandler>,
                        Stack<TelemetryLayer, Stack<MapRequestLayer<Drain>, Identity>>,
                    >,
                >,
            >,
        >,
    >,
>;
type RequestMap = fn(Request<Body>) -> Request<Body>;
type PanicHandler = fn(Box<dyn Any + Send + 'static>) -> Response<Body>;

/// Builds the stack. The layers in order, outermost first:
///
/// | Layer | Does | Rejects |
/// |---|---|---|
/// | `unread_body` | drains the body that is left when a call is answered early | |
/// | `telemetry` | counts, times, logs and traces the call, and records its denial | |
/// | panic | turns a panic into a status | with INTERNAL, outcome `unknown` |
/// | `front_door` | lets only gRPC calls pass; attaches the `deadline` | 405 or 415 of HTTP, or INVALID_MESSAGE |
/// | reasons | gives errors of tonic a reason, such as INVALID_MESSAGE instead of INTERNAL | |
/// | compression | lets only responses to compressed requests be compressed | |
/// | `authentication` | identifies the caller | with UNAUTHENTICATED, or PERMISSION_DENIED for the method |
/// | `limits` | takes shares for the call and its bytes | with RESOURCE_EXHAUSTED; DEADLINE_EXCEEDED |
///
/// Telemetry stands outside of everything that can reject, so that every rejection is counted and
/// logged. Limits stand inside of authentication because they count by identity.
///
/// Build it after metrics are installed: the layers look up their counters here.
#[expect(clippy::type_complexity, reason = "tower names every layer in the type of the stack")]
pub fn stack(
    config: StackConfig,
) -> ServiceBuilder<
    Layers<
        impl FnMut(Request<Body>) -> Request<Body> + Clone,
        impl FnMut(Response<Body>) -> Response<Body> + Clone,
    >,
> {
    let StackConfig { audit, authenticator, budgets, sizes, deadlines, slow_request_threshold } =
        config;
    let unread_bodies = UnreadBodies::default();
    ServiceBuilder::new()
        .map_request(move |request| unread_bodies.drain(request))
        .layer(TelemetryLayer::new(slow_request_threshold, authenticator.clone(), audit))
        .layer(CatchPanicLayer::custom(error::panic_response as PanicHandler))
        .layer(FrontDoorLayer(deadlines))
        .map_response(move |response| error::name_reason(response, sizes.message_size_max))
        .map_request(compression::only_in_return as RequestMap)
        .layer(AuthenticationLayer(authenticator))
        .layer(LimitLayer::new(budgets, sizes))
}
