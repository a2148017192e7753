//! Counts the outcomes of requests, as their callers were answered.
//!
//! * `applied`: the change was made, now or before under the same request id.
//! * `rejected`: the request is invalid, denied or rejected by state; repeating it changes nothing.
//! * `not_applied`: there is no result, and the change was not made: overload, a lock, a deadline.
//! * `unknown`: nobody knows; the request's record tells.
//!
//! Not counted: reads, requests with `validate_only`, and calls whose caller has gone before the
//! answer.

use std::sync::LazyLock;

use metrics::{Counter, counter};

use crate::{
    domain::command::Request,
    grpc::error::{StatusBuilder, reason_name},
};

/// The most frequent counters, looked up once: at the first call, when metrics are set up.
static APPLIED: LazyLock<Counter> =
    LazyLock::new(|| counter!("passbook_requests_total", "outcome" => "applied", "reason" => ""));
static REPLAYS: LazyLock<Counter> = LazyLock::new(|| counter!("passbook_replays_total"));

/// Whether a request is executed or only validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMode {
    /// Executed.
    Execute,
    /// Only validated: its outcome is not counted.
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

/// Counts a request that was rejected, was not applied, or whose outcome is unknown.
pub fn count_error(error: &StatusBuilder, mode: RequestMode) {
    if mode == RequestMode::ValidateOnly {
        return;
    }
    let outcome = match error.outcome() {
        Some("not_applied") => "not_applied",
        Some(_) => "unknown",
        None => "rejected",
    };
    let reason = reason_name(error.reason).to_ascii_lowercase();
    counter!("passbook_requests_total", "outcome" => outcome, "reason" => reason).increment(1);
}
