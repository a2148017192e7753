//! Errors that tonic would send without a reason, or not at all.

use std::any::Any;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tonic::{Code, Status, body::Body};

use crate::{
    grpc::error::{StatusBuilder, invalid::Invalid, limit::request_too_large},
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// Gives the error in the headers of a response its reason: see [`with_reason`].
pub fn name_reason(mut response: Response<Body>, message_size_max: u32) -> Response<Body> {
    let status = Status::from_header_map(response.headers());
    match status.and_then(|status| with_reason(status, message_size_max)) {
        None => response,
        Some(status) => {
            let extensions = std::mem::take(response.extensions_mut());
            let mut response = status.into_http();
            *response.extensions_mut() = extensions;
            response
        }
    }
}

/// Gives the error in the trailers of a response its reason: see [`with_reason`].
pub fn name_reason_in_trailers(trailers: HeaderMap, message_size_max: u32) -> HeaderMap {
    // Nearly all calls end so.
    if trailers.get(Status::GRPC_STATUS).is_some_and(|code| code == "0") {
        return trailers;
    }
    let status = Status::from_header_map(&trailers);
    let status = status.and_then(|status| with_reason(status, message_size_max));
    status.map_or(trailers, into_trailers)
}

/// The trailers of a response that ends with this error.
pub fn into_trailers(status: Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match status.add_header(&mut trailers) {
        Ok(()) => trailers,
        // Only for a status that no header can have. tonic's own texts and ours can be in headers.
        Err(_) => HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("13"),
        )]),
    }
}

/// The code and the reason of an error of tonic, or of its services: health and reflection. tonic reports
/// requests that cannot be decoded, or whose body ends early, as INTERNAL or UNKNOWN, and a message that
/// is too large when it is decompressed as RESOURCE_EXHAUSTED. None for all other errors: those of
/// this service always carry details.
fn with_reason(status: Status, message_size_max: u32) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let (code, message) = (status.code(), status.message());
    let error = match code {
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            let description = format!("cannot be read: {message}");
            Invalid::new(ErrorReason::InvalidMessage, "message", description).into()
        }
        Code::Unimplemented => {
            let message = if message.is_empty() { "there is no such method" } else { message };
            StatusBuilder::new(code, ErrorReason::Unimplemented, message)
        }
        Code::NotFound => StatusBuilder::new(code, ErrorReason::NameNotFound, message),
        Code::ResourceExhausted => {
            let message = format!(
                "the message has more than {message_size_max} bytes when it is decompressed: send \
                 less at a time, e.g. fewer requests in a batch"
            );
            return Some(request_too_large("message_size_max", message_size_max, message));
        }
        _ => return None,
    };
    let mut error = Status::from(error);
    // The compressions that tonic knows.
    *error.metadata_mut() = status.metadata().clone();
    Some(error)
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
