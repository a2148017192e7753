//! Counts requests by the outcome that their callers got.
//!
//! * `applied`: the change was applied, now or earlier under the same `request_id`.
//! * `rejected`: the request is invalid, denied, or rejected by state. A repeat changes nothing.
//! * `not_applied`: the request has no result, and was not applied: overload, a lock, a deadline.
//! * `unknown`: nobody confirmed the commit. The request's record says whether it was applied.
//!
//! Not counted: queries, fences, requests with `validate_only` that are well-formed, and calls that their
//! callers canceled. A change whose response finds no room is counted as applied: its caller gets an
//! unknown outcome, which counts as a shed call.

use std::sync::LazyLock;

use metrics::{Counter, counter};

use crate::{
    domain::command::Request,
    grpc::error::{StatusBuilder, reason_name},
};

/// The most frequent counters, looked up once: at the first call, after metrics are installed.
static APPLIED: LazyLock<Counter> =
    LazyLock::new(|| counter!("passbook_requests_total", "outcome" => "applied", "reason" => ""));
static REPLAYS: LazyLock<Counter> = LazyLock::new(|| counter!("passbook_replays_total"));

/// Whether a request is executed, or only validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMode {
    /// The request is executed.
    Execute,
    /// The request is only validated, and not counted.
    ValidateOnly,
}

impl RequestMode {
    /// The mode of this request.
    pub fn of(request: &Request) -> Self {
        if request.validate_only { Self::ValidateOnly } else { Self::Execute }
    }
}

/// Counts an applied request.
pub fn count_applied(replayed: bool, mode: RequestMode) {
    if mode == RequestMode::ValidateOnly {
        return;
    }
    APPLIED.increment(1);
    if replayed {
        REPLAYS.increment(1);
    }
}

/// Counts the error of a request that was rejected, was not applied, or whose outcome is unknown.
pub fn counted(error: impl Into<StatusBuilder>, mode: RequestMode) -> StatusBuilder {
    let error = error.into();
    if mode == RequestMode::Execute {
        let outcome = match error.outcome() {
            Some("not_applied") => "not_applied",
            Some(_) => "unknown",
            None => "rejected",
        };
        let reason = reason_name(error.reason).to_ascii_lowercase();
        counter!("passbook_requests_total", "outcome" => outcome, "reason" => reason).increment(1);
    }
    error
}
