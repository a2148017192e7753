//! Reads what an error says: its reason, its outcome, its fields.

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

/// Asserts code and reason, and returns the error for further assertions.
#[track_caller]
pub fn refused<Answer: std::fmt::Debug>(
    answer: Result<Answer, Status>,
    code: Code,
    expected_reason: &str,
) -> Status {
    let status = answer.expect_err("this should have been refused");
    assert_eq!((status.code(), reason(&status).as_str()), (code, expected_reason), "{status:?}");
    assert!(!status.message().is_empty(), "an error has a message");
    status
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

/// Sends a request twice, and asserts that the rejection is recorded once and nothing else is.
pub async fn rejected_twice(
    database: &TestDatabase,
    client: &Client,
    request: impl Into<Change>,
    (code, expected_reason): (Code, &str),
) -> Status {
    let counts = async || {
        let count = async |table| database.count(table).await;
        [count("requests").await, count("entries").await, count("holds").await]
    };
    let (request, [requests, entries, holds]) = (request.into(), counts().await);
    let first = refused(request.send(client, PATIENCE).await, code, expected_reason);
    let again = refused(request.send(client, PATIENCE).await, code, expected_reason);
    assert_repeated(&first, &again);
    assert_eq!(counts().await, [requests + 1, entries, holds]);
    first
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
