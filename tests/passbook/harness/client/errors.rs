//! Reads what an error says: its reason, its outcome, its fields.

use std::fmt::Debug;

pub use passbook::proto::ErrorReason as Reason;
use passbook::proto::{
    PostTransactionResult, Transaction, post_transaction_result::Result as Outcome,
};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use crate::harness::{Change, Client, PATIENCE, TestDatabase};

/// `ErrorInfo.reason`. Every error of the service has one, in its domain.
pub fn reason(status: &Status) -> String {
    let Some(info) = status.get_details_error_info() else {
        panic!("an error without ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "passbook", "{status:?}");
    info.reason
}

/// The reason, or empty: errors of the transport have none.
pub fn reason_if_any(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// `ErrorInfo.metadata[key]`, empty if it is not there.
pub fn metadata(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

/// Whether the request was applied, by the error: "not_applied", "unknown" or empty.
pub fn outcome(status: &Status) -> String {
    metadata(status, "outcome")
}

/// The paths of the fields in BadRequest.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Asserts that a call failed for this reason, with the reason's code and a message. Returns the
/// error for further assertions.
#[track_caller]
pub fn must_fail<Answer: Debug>(answer: Result<Answer, Status>, expected: Reason) -> Status {
    let status = answer.expect_err("this call must fail");
    assert_reason(&status, expected);
    status
}

/// Asserts the reason of an error, with the reason's code and a message.
#[track_caller]
pub fn assert_reason(status: &Status, expected: Reason) {
    assert_eq!(reason_and_code(status), (Some(expected), code_of(expected)), "{status:?}");
    assert!(!status.message().is_empty(), "an error has a message");
}

/// The reason, if the contract has it, and the code.
pub fn reason_and_code(status: &Status) -> (Option<Reason>, Code) {
    let name = format!("ERROR_REASON_{}", reason(status));
    (Reason::from_str_name(&name), status.code())
}

/// The code of every error with this reason.
pub fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequestId
        | Reason::InvalidAccountId
        | Reason::InvalidTransactionId
        | Reason::InvalidCurrencyCode
        | Reason::InvalidAmount
        | Reason::InvalidCondition
        | Reason::InvalidDescription
        | Reason::InvalidLabels
        | Reason::InvalidFilter
        | Reason::InvalidPageSize
        | Reason::InvalidPageToken
        | Reason::InvalidLegs
        | Reason::InvalidRequests
        | Reason::InvalidUpdateMask
        | Reason::InvalidHoldId
        | Reason::InvalidExpireTime
        | Reason::InvalidReason
        | Reason::InvalidMessage
        | Reason::RequestIdReused => Code::InvalidArgument,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::HoldNotFound
        | Reason::AccountNotFound
        | Reason::TransactionNotFound
        | Reason::NameNotFound => Code::NotFound,
        Reason::HoldExists | Reason::AccountExists => Code::AlreadyExists,
        Reason::RequestFenced
        | Reason::HoldNotOpen
        | Reason::ExpireTimePassed
        | Reason::HoldAmountExceeded
        | Reason::HoldAmountTooLow
        | Reason::TransactionNotDivisible
        | Reason::ReversalAmountExceeded
        | Reason::AlreadyReversed
        | Reason::AccountClosed
        | Reason::AccountFrozen
        | Reason::CurrencyMismatch
        | Reason::ConditionFailed
        | Reason::InsufficientFunds
        | Reason::Unbalanced
        | Reason::AccountNotEmpty
        | Reason::EventTokenUnknown
        | Reason::TooManyAccounts
        | Reason::TooManyEntries => Code::FailedPrecondition,
        Reason::BalanceOutOfRange | Reason::EffectiveTimeOutOfRange => Code::OutOfRange,
        Reason::VersionMismatch | Reason::LockTimeout | Reason::Contention => Code::Aborted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::Overloaded
        | Reason::WatcherTooSlow
        | Reason::RequestTooLarge
        | Reason::ResponseTooLarge => Code::ResourceExhausted,
        Reason::DatabaseUnavailable
        | Reason::SchemaNotMigrated
        | Reason::AuditUnavailable
        | Reason::ShuttingDown => Code::Unavailable,
        Reason::Internal => Code::Internal,
        Reason::Unimplemented => Code::Unimplemented,
        Reason::Unspecified => panic!("no error has this reason"),
    }
}

/// Asserts these pairs of the error's metadata.
#[track_caller]
pub fn assert_metadata(status: &Status, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(metadata(status, key), *value, "{key}: {status:?}");
    }
}

/// Asserts that two errors are equal, byte by byte.
#[track_caller]
pub fn assert_repeated(first: &Status, again: &Status) {
    assert_eq!(first.code(), again.code());
    assert_eq!(first.message(), again.message());
    assert_eq!(first.details(), again.details());
}

pub fn assert_too_large(status: &Status, limit: &str, max: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason(status), "REQUEST_TOO_LARGE");
    assert_eq!(outcome(status), "not_applied");
    assert_eq!((metadata(status, "limit"), metadata(status, "max")), (limit.into(), max.into()));
    assert!(status.message().contains(max), "it says the limit: {}", status.message());
}

/// Sends a request twice, and asserts that the rejection is recorded once and nothing else changes.
pub async fn rejected_twice(
    database: &TestDatabase,
    client: &Client,
    request: impl Into<Change>,
    expected: Reason,
) -> Status {
    let state = async || {
        let (entries, accounts) = (database.count("entries").await, database.accounts().await);
        (entries, accounts, database.holds().await)
    };
    let (request, requests) = (request.into(), database.count("requests").await);
    let before = state().await;
    let first = must_fail(request.send(client, PATIENCE).await, expected);
    let again = must_fail(request.send(client, PATIENCE).await, expected);
    assert_repeated(&first, &again);
    assert_eq!(state().await, before, "{first:?}");
    assert_eq!(database.count("requests").await, requests + 1, "{first:?}");
    first
}

/// A request, the reason of its rejection, and pairs of the metadata.
pub type RejectedCase<'a> = (Change, Reason, &'a [(&'a str, &'a str)]);

/// Sends requests that must be rejected so, as [`rejected_twice`] does. Returns them with their errors.
pub async fn all_rejected(
    database: &TestDatabase,
    client: &Client,
    cases: &[RejectedCase<'_>],
) -> Vec<(Change, Status)> {
    let mut rejections = Vec::new();
    for (request, expected, metadata) in cases {
        let status = rejected_twice(database, client, request.clone(), *expected).await;
        assert_metadata(&status, metadata);
        rejections.push((request.clone(), status));
    }
    rejections
}

/// Asserts that repeats of these requests get the same errors.
pub async fn assert_still_rejected(client: &Client, rejections: &[(Change, Status)]) {
    for (request, first) in rejections {
        let again = request.send(client, PATIENCE).await.expect_err("a rejection is final");
        assert_repeated(first, &again);
    }
}

/// Sends other requests under the `request_id` of one that was applied.
pub async fn assert_request_id_reused(client: &Client, others: impl IntoIterator<Item = Change>) {
    for other in others {
        let status = must_fail(other.send(client, PATIENCE).await, Reason::RequestIdReused);
        assert_eq!(metadata(&status, "request_id"), other.request_id(), "{other:?}");
        assert_eq!(fields(&status), ["request_id"], "{other:?}");
    }
}

pub fn made(result: &PostTransactionResult) -> &Transaction {
    match &result.result {
        Some(Outcome::Transaction(transaction)) => transaction,
        other => panic!("not made: {other:?}"),
    }
}

/// The error of one result, as the unary call would have returned it.
pub fn error(result: &PostTransactionResult) -> Status {
    match &result.result {
        Some(Outcome::Error(error)) => status_of(error),
        other => panic!("no error: {other:?}"),
    }
}

pub fn status_of(error: &pb::Status) -> Status {
    let details = error.encode_to_vec().into();
    Status::with_details(Code::from_i32(error.code), error.message.clone(), details)
}
