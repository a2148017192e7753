//! Every error: its code, reason, metadata and details.

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    domain::{
        ids::{AccountId, RequestId},
        money::Currencies,
        rejection::{Rejection, TransactionName},
    },
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

fn rejections() -> Vec<(Rejection, Code, &'static str)> {
    let account_id = || AccountId::parse("a").unwrap();
    let amount = |text| Currencies::default().get("USD").unwrap().parse(text).unwrap();
    let currency_code = || "USD".to_owned();
    let request_id = || RequestId::parse("r").unwrap();
    vec![
        (
            Rejection::RequestIdReused { request_id: request_id() },
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
        ),
        (
            Rejection::AccountNotFound { account_id: account_id() },
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
        ),
        (
            Rejection::TransactionNotFound(TransactionName::RequestId(request_id())),
            Code::NotFound,
            "TRANSACTION_NOT_FOUND",
        ),
        (
            Rejection::AccountExists { account_id: account_id() },
            Code::AlreadyExists,
            "ACCOUNT_EXISTS",
        ),
        (
            Rejection::AccountClosed { account_id: account_id() },
            Code::FailedPrecondition,
            "ACCOUNT_CLOSED",
        ),
        (
            Rejection::AccountFrozen { account_id: account_id() },
            Code::FailedPrecondition,
            "ACCOUNT_FROZEN",
        ),
        (
            Rejection::CurrencyMismatch {
                account_id: account_id(),
                currency_code: currency_code(),
                account_currency_code: "EUR".to_owned(),
            },
            Code::FailedPrecondition,
            "CURRENCY_MISMATCH",
        ),
        (
            Rejection::BalanceOutOfRange {
                account_id: account_id(),
                currency_code: currency_code(),
                balance: Some(amount("1")),
                amount: amount("2"),
            },
            Code::OutOfRange,
            "BALANCE_OUT_OF_RANGE",
        ),
        (
            Rejection::ConditionFailed {
                account_id: account_id(),
                condition: "expected_version".to_owned(),
                required: "1".to_owned(),
                actual: Some("2".to_owned()),
                version: Some(2),
            },
            Code::FailedPrecondition,
            "CONDITION_FAILED",
        ),
        (
            Rejection::InsufficientFunds {
                account_id: account_id(),
                currency_code: currency_code(),
                available: Some(amount("1")),
                required: amount("2"),
                version: Some(3),
            },
            Code::FailedPrecondition,
            "INSUFFICIENT_FUNDS",
        ),
    ]
}

#[test]
fn every_rejection_has_its_code_reason_and_metadata() {
    for (rejection, code, reason) in rejections() {
        let status = Status::from(Error::Rejected(rejection.clone()));
        assert_eq!(status.code(), code, "{reason}");
        assert_eq!(status.message(), rejection.to_string());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "passbook"));
        assert!(ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")).is_some());
        let named = ["account_id", "request_id"].iter().any(|it| info.metadata.contains_key(*it));
        assert!(named, "{reason} names what it is about: {:?}", info.metadata);
    }
}

#[test]
fn a_rejection_is_the_same_after_it_was_stored() {
    for (rejection, ..) in rejections() {
        let stored = serde_json::to_string(&rejection).unwrap();
        let read: Rejection = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, rejection);
        let details = |it| Status::from(Error::Rejected(it)).details().to_vec();
        assert_eq!(details(read), details(rejection), "byte by byte");
    }
}

#[test]
fn insufficient_funds_say_what_was_available_and_what_was_needed() {
    let (rejection, ..) = rejections().pop().unwrap();
    let status = Status::from(Error::Rejected(rejection));
    let metadata = status.get_details_error_info().unwrap().metadata;
    for (name, value) in [
        ("account_id", "a"),
        ("available", "1.00"),
        ("required", "2.00"),
        ("currency_code", "USD"),
        ("version", "3"),
    ] {
        assert_eq!(metadata.get(name).map(String::as_str), Some(value), "{name}");
    }
    let precondition = status.get_details_precondition_failure().unwrap();
    assert_eq!(precondition.violations[0].subject, "a");
}

#[test]
fn every_error_without_a_result_has_its_outcome() {
    let unknown = Some(Outcome::Unknown);
    let not_applied = Some(Outcome::NotApplied);
    for (error, code, reason, outcome, retry) in [
        (Error::LockTimeout, Code::Aborted, "LOCK_TIMEOUT", Some("not_applied"), true),
        (Error::Contention, Code::Aborted, "CONTENTION", Some("not_applied"), true),
        (
            Error::DeadlineExceeded(not_applied),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            Some("not_applied"),
            false,
        ),
        (
            Error::DeadlineExceeded(unknown),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            Some("unknown"),
            false,
        ),
        (Error::DeadlineExceeded(None), Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None, false),
        (
            Error::Overloaded { limit: 1 },
            Code::ResourceExhausted,
            "OVERLOADED",
            Some("not_applied"),
            true,
        ),
        (
            Error::DatabaseUnavailable(unknown),
            Code::Unavailable,
            "DATABASE_UNAVAILABLE",
            Some("unknown"),
            true,
        ),
        (
            Error::SchemaNotMigrated(not_applied),
            Code::Unavailable,
            "SCHEMA_NOT_MIGRATED",
            Some("not_applied"),
            false,
        ),
        (Error::TooManyWatchers { limit: 1 }, Code::ResourceExhausted, "OVERLOADED", None, true),
        (
            Error::WatcherTooSlow { limit: std::time::Duration::from_secs(10) },
            Code::ResourceExhausted,
            "WATCHER_TOO_SLOW",
            None,
            false,
        ),
        (
            Error::SequenceNotReached { sequence: 1 },
            Code::InvalidArgument,
            "INVALID_FILTER",
            None,
            false,
        ),
        (Error::ShuttingDown, Code::Unavailable, "SHUTTING_DOWN", Some("not_applied"), true),
        (Error::Internal(unknown), Code::Internal, "INTERNAL", Some("unknown"), false),
    ] {
        let status = Status::from(error);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (code, reason));
        assert_eq!(info.metadata.get("outcome").map(String::as_str), outcome, "{reason}");
        assert_eq!(status.get_details_retry_info().is_some(), retry, "{reason}");
    }
}
