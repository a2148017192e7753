//! Errors that tonic would send without a reason, or not at all.

use std::any::Any;

use http::Response;
use tonic::{Code, Status, body::Body};

use crate::{
    grpc::error::{StatusBuilder, invalid::Invalid},
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// Remaps errors of tonic to INVALID_ARGUMENT. tonic reports requests that cannot be decoded, or
/// whose body ends early, as INTERNAL or UNKNOWN. Errors of this service always carry details, and
/// stay as they are.
pub fn remap_protocol_errors(response: Response<Body>) -> Response<Body> {
    let is_tonics = |status: &Status| {
        matches!(status.code(), Code::Internal | Code::Unknown) && status.details().is_empty()
    };
    match Status::from_header_map(response.headers()).filter(is_tonics) {
        None => response,
        Some(status) => {
            let description = format!("cannot be read: {}", status.message());
            let invalid = Invalid::new(ErrorReason::InvalidMessage, "message", description);
            Status::from(invalid).into_http()
        }
    }
}

/// The response to a call whose handler panicked. The outcome is `unknown`. The panic itself is in the
/// log already.
#[must_use]
pub fn panic_response(_panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    Status::from(Error::Internal(Some(Outcome::Unknown))).into_http()
}

/// The response to a call of AccountService or AdminService while the server waits for its database.
#[must_use]
pub fn waiting_for_database() -> Response<Body> {
    let mut builder = StatusBuilder::from(Error::DatabaseUnavailable(Some(Outcome::NotApplied)));
    builder.message = "the server is starting and waits for its database".to_owned();
    Status::from(builder).into_http()
}
