//! The layers that every call passes before its RPC, of whatever service.
//!
//! [`stack`] composes them, in order. A layer works on headers, bodies and extensions. It knows no
//! message, no RPC and no ledger: what needs one of these belongs to the service.

pub mod authentication;
pub mod body_budget;
pub mod call_limit;
pub mod deadline;
pub mod identity_budget;
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
    auth::Authenticator,
    grpc::{
        error,
        middleware::{
            authentication::AuthenticationLayer,
            body_budget::BodyBudget,
            call_limit::{CallLimitLayer, CallLimits},
            deadline::DeadlinePolicy,
            telemetry::TelemetryLayer,
            unread_body::UnreadBodies,
        },
    },
};

/// The settings of the layers.
pub struct StackConfig {
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// The limits on calls in flight, their rate and their headers.
    pub call_limits: CallLimits,
    /// The largest message of a request, in bytes.
    pub message_size_max: usize,
    /// The deadline of calls that bring none.
    pub deadlines: DeadlinePolicy,
    /// A unary call that takes longer is logged at WARN.
    pub slow_request_threshold: Duration,
}

/// The layers of [`stack`], innermost first, as tower names their types.
type Layers<Drain, Remap, Admit> = Stack<
    MapRequestLayer<Admit>,
    Stack<
        CallLimitLayer,
        Stack<
            AuthenticationLayer,
            Stack<
                MapResponseLayer<Remap>,
                Stack<
                    CatchPanicLayer<PanicHandler>,
                    Stack<TelemetryLayer, Stack<MapRequestLayer<Drain>, Identity>>,
                >,
            >,
        >,
    >,
>;
type PanicHandler = fn(Box<dyn Any + Send + 'static>) -> Response<Body>;

/// Builds the stack. The layers in order, outermost first:
///
/// | Layer | Does | Rejects |
/// |---|---|---|
/// | `unread_body` | drains the body that is left when a call is answered early | |
/// | `telemetry` | counts, times, logs and traces the call | |
/// | panic | turns a panic into a status | with INTERNAL, outcome `unknown` |
/// | protocol errors | gives malformed messages a reason instead of INTERNAL | with INVALID_ARGUMENT |
/// | `authentication` | identifies the caller | with UNAUTHENTICATED, or PERMISSION_DENIED for the method |
/// | `call_limit` | counts calls in flight | with RESOURCE_EXHAUSTED: headers, calls, rate |
/// | `deadline` | attaches the deadline | |
/// | `body_budget` | charges incomplete messages | with RESOURCE_EXHAUSTED; DEADLINE_EXCEEDED if late |
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
        impl FnMut(Request<Body>) -> Request<Body> + Clone,
    >,
> {
    let StackConfig {
        authenticator,
        call_limits,
        message_size_max,
        deadlines,
        slow_request_threshold,
    } = config;
    let unread_bodies = UnreadBodies::default();
    let body_budget = BodyBudget::new(message_size_max);
    ServiceBuilder::new()
        .map_request(move |request| unread_bodies.drain(request))
        .layer(TelemetryLayer::new(slow_request_threshold))
        .layer(CatchPanicLayer::custom(error::panic_response as PanicHandler))
        .map_response(error::remap_protocol_errors)
        .layer(AuthenticationLayer(authenticator))
        .layer(CallLimitLayer::new(call_limits))
        .map_request(move |request| body_budget.track(deadline::attach(request, deadlines)))
}
