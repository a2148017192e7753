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
use tonic::Status;

use crate::{
    domain::{account::Account, command::Request, unit_of_work::RequestResult},
    grpc::{encode, error},
    ledger::Error,
    proto::{self, ErrorReason},
};

/// The most frequent ones, looked up once. First used by a call, when metrics are set up.
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

/// Counts and encodes the result of a request that moves or holds money.
pub fn of_request<R: From<RequestResult>>(
    result: Result<RequestResult, Error>,
    mode: RequestMode,
) -> Result<R, Status> {
    let result = result.map_err(|failure| error::of_refused(&failure, mode))?;
    count_applied(&result, mode);
    Ok(result.into())
}

/// Counts and encodes the result of a command for an account.
pub fn of_account(account: Result<Account, Error>) -> Result<Option<proto::Account>, Status> {
    let account = account.map_err(|failure| error::of_refused(&failure, RequestMode::Execute))?;
    APPLIED.increment(1);
    Ok(Some(encode::account(account)))
}

/// Counts an applied request.
pub fn count_applied(done: &RequestResult, mode: RequestMode) {
    if mode == RequestMode::ValidateOnly {
        return;
    }
    APPLIED.increment(1);
    if done.replayed {
        REPLAYS.increment(1);
    }
}

/// Counts a request that was not applied, or whose outcome is unknown.
pub fn count_rejected(outcome: &'static str, reason: ErrorReason) {
    let name = reason.as_str_name();
    let reason = name.strip_prefix("ERROR_REASON_").unwrap_or(name).to_ascii_lowercase();
    counter!("passbook_requests_total", "outcome" => outcome, "reason" => reason).increment(1);
}
