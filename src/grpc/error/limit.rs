//! Errors of calls that are shed, and of messages that are too large.

use tonic::{Code, Status};

use crate::{budget::Exhausted, grpc::error::StatusBuilder, ledger::Outcome, proto::ErrorReason};

/// The error of a call, or of a request, for which a budget has no room.
pub fn overloaded(exhausted: Exhausted, outcome: Option<Outcome>) -> StatusBuilder {
    let Exhausted { limit, scope, max, retry_delay } = exhausted;
    too_much(ErrorReason::Overloaded, limit.name(), max, exhausted.to_string())
        .with("scope", scope.name())
        .with_outcome(outcome)
        .with_retry(retry_delay)
}

/// The error of a request, or of its headers, beyond the setting with this name.
pub fn request_too_large(setting: &str, max: u32, message: String) -> Status {
    too_much(ErrorReason::RequestTooLarge, setting, max, message)
        .with_outcome(Some(Outcome::NotApplied))
        .into()
}

/// The error of a query whose response would have more than `max` bytes.
pub fn response_too_large(max: u32, message: String) -> StatusBuilder {
    too_much(ErrorReason::ResponseTooLarge, "response_size", max, message)
}

fn too_much(
    reason: ErrorReason,
    limit: &str,
    max: impl ToString,
    message: String,
) -> StatusBuilder {
    StatusBuilder::new(Code::ResourceExhausted, reason, message)
        .with("limit", limit)
        .with("max", max)
}
