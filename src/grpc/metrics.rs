//! What those who asked for changes were told, counted.
//!
//! * `applied`: it was made, now or before under the same request id.
//! * `rejected`: it is malformed, not allowed, or refused by state; to ask again changes nothing.
//! * `not_applied`: there was no verdict, and it was not made: overload, a lock, a deadline.
//! * `unknown`: nobody knows; the request id tells.
//!
//! Whoever has gone before the answer was told nothing, and is not counted; nor are dry runs,
//! which ask for no change, and what is not asked for, such as reads.

use std::sync::LazyLock;

use metrics::{Counter, counter};
use tonic::Status;

use crate::{
    domain::{account::Account, command::Request, unit_of_work::RequestResult},
    grpc::{encode, error},
    ledger::Failure,
    proto::{self, ErrorReason},
};

/// The most frequent ones, looked up once. First used by a call, when metrics are set up.
static APPLIED: LazyLock<Counter> =
    LazyLock::new(|| counter!("passbook_requests_total", "outcome" => "applied", "reason" => ""));
static REPLAYS: LazyLock<Counter> = LazyLock::new(|| counter!("passbook_replays_total"));

/// What a request was to do if it went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A change.
    Change,
    /// To know whether it would go well.
    DryRun,
}

impl Purpose {
    /// This request's.
    pub fn of(request: &Request) -> Self {
        if request.validate_only { Self::DryRun } else { Self::Change }
    }
}

/// The answer to a request that moves or holds money.
pub fn of_request<R: From<RequestResult>>(
    result: Result<RequestResult, Failure>,
    purpose: Purpose,
) -> Result<R, Status> {
    let result = result.map_err(|failure| error::of_refused(&failure, purpose))?;
    count_done(&result, purpose);
    Ok(result.into())
}

/// The answer to someone who asked for an account to be opened or changed.
pub fn of_account(account: Result<Account, Failure>) -> Result<Option<proto::Account>, Status> {
    let account = account.map_err(|failure| error::of_refused(&failure, Purpose::Change))?;
    APPLIED.increment(1);
    Ok(Some(encode::account(account)))
}

/// Something was made.
pub fn count_done(done: &RequestResult, purpose: Purpose) {
    if purpose == Purpose::DryRun {
        return;
    }
    APPLIED.increment(1);
    if done.replayed {
        REPLAYS.increment(1);
    }
}

/// Something was not made.
pub fn count_refused(outcome: &'static str, reason: ErrorReason) {
    let name = reason.as_str_name();
    let reason = name.strip_prefix("ERROR_REASON_").unwrap_or(name).to_ascii_lowercase();
    counter!("passbook_requests_total", "outcome" => outcome, "reason" => reason).increment(1);
}
