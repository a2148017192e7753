//! Errors of calls that are shed, and of messages that are too large.

use std::time::Duration;

use tonic::{Code, Status};

use crate::{grpc::error::StatusBuilder, ledger::Outcome, proto::ErrorReason};

/// The error of a call that is shed. `limit` is the limit's name, `max` its value.
pub fn call_shed(limit: &str, max: u32, message: String, retry_delay: Duration) -> Status {
    too_much(ErrorReason::Overloaded, limit, max, message)
        .with_outcome(Some(Outcome::NotApplied))
        .with_retry(retry_delay)
        .into_status()
}

/// The error of a request, or of its headers, beyond the setting with this name.
pub fn request_too_large(setting: &str, max: u32, message: String) -> Status {
    too_much(ErrorReason::RequestTooLarge, setting, max, message)
        .with_outcome(Some(Outcome::NotApplied))
        .into_status()
}

/// The error of a query whose response would have more than `max` bytes.
pub fn response_too_large(max: u32, message: String) -> Status {
    too_much(ErrorReason::ResponseTooLarge, "response_size", max, message).into_status()
}

fn too_much(reason: ErrorReason, limit: &str, max: u32, message: String) -> StatusBuilder {
    StatusBuilder::new(Code::ResourceExhausted, reason, message)
        .with("limit", limit)
        .with("max", max)
}
