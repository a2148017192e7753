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
    use Code as C;
    use Rejection as R;
    let account_id = AccountId::parse("a").unwrap();
    let id = || account_id.clone();
    let request_id = || RequestId::parse("r").unwrap();
    let amount = |text| Currencies::default().get("USD").unwrap().parse(text).unwrap();
    let currency_code = "USD".to_owned();
    let currency_mismatch = R::CurrencyMismatch {
        account_id: id(),
        currency_code: currency_code.clone(),
        account_currency_code: "EUR".to_owned(),
    };
    let out_of_range = R::BalanceOutOfRange {
        account_id: id(),
        currency_code: currency_code.clone(),
        balance: amount("1"),
        amount: amount("2"),
    };
    let condition_failed = R::ConditionFailed {
        account_id: id(),
        condition: "expected_version".to_owned(),
        required: "1".to_owned(),
        actual: "2".to_owned(),
        version: 2,
    };
    let insufficient_funds = R::InsufficientFunds {
        account_id: id(),
        currency_code,
        available: amount("1"),
        required: amount("2"),
        version: 3,
    };
    let transaction = TransactionName::RequestId(request_id());
    vec![
        (R::RequestIdReused { request_id: request_id() }, C::InvalidArgument, "REQUEST_ID_REUSED"),
        (R::AccountNotFound { account_id: id() }, C::NotFound, "ACCOUNT_NOT_FOUND"),
        (R::TransactionNotFound(transaction), C::NotFound, "TRANSACTION_NOT_FOUND"),
        (R::AccountExists { account_id: id() }, C::AlreadyExists, "ACCOUNT_EXISTS"),
        (R::AccountClosed { account_id: id() }, C::FailedPrecondition, "ACCOUNT_CLOSED"),
        (R::AccountFrozen { account_id: id() }, C::FailedPrecondition, "ACCOUNT_FROZEN"),
        (currency_mismatch, C::FailedPrecondition, "CURRENCY_MISMATCH"),
        (out_of_range, C::OutOfRange, "BALANCE_OUT_OF_RANGE"),
        (condition_failed, C::FailedPrecondition, "CONDITION_FAILED"),
        (insufficient_funds, C::FailedPrecondition, "INSUFFICIENT_FUNDS"),
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
    use Code as C;
    use Error as E;
    let [unknown, not_applied] = [Some(Outcome::Unknown), Some(Outcome::NotApplied)];
    let limit = std::time::Duration::from_secs(10);
    let deadline = "DEADLINE_EXCEEDED";
    for (error, code, reason, outcome, retry) in [
        (E::LockTimeout, C::Aborted, "LOCK_TIMEOUT", "not_applied", true),
        (E::Contention, C::Aborted, "CONTENTION", "not_applied", true),
        (E::DeadlineExceeded(not_applied), C::DeadlineExceeded, deadline, "not_applied", false),
        (E::DeadlineExceeded(unknown), C::DeadlineExceeded, deadline, "unknown", false),
        (E::DeadlineExceeded(None), C::DeadlineExceeded, deadline, "", false),
        (E::Overloaded { limit: 1 }, C::ResourceExhausted, "OVERLOADED", "not_applied", true),
        (E::DatabaseUnavailable(unknown), C::Unavailable, "DATABASE_UNAVAILABLE", "unknown", true),
        (
            E::SchemaNotMigrated(not_applied),
            C::Unavailable,
            "SCHEMA_NOT_MIGRATED",
            "not_applied",
            false,
        ),
        (E::TooManyWatchers { limit: 1 }, C::ResourceExhausted, "OVERLOADED", "", true),
        (E::WatcherTooSlow { limit }, C::ResourceExhausted, "WATCHER_TOO_SLOW", "", false),
        (E::SequenceNotReached { sequence: 1 }, C::InvalidArgument, "INVALID_FILTER", "", false),
        (E::ShuttingDown, C::Unavailable, "SHUTTING_DOWN", "not_applied", true),
        (E::Internal(unknown), C::Internal, "INTERNAL", "unknown", false),
    ] {
        let status = Status::from(error);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (code, reason));
        let expected = Some(outcome).filter(|it| !it.is_empty());
        assert_eq!(info.metadata.get("outcome").map(String::as_str), expected, "{reason}");
        assert_eq!(status.get_details_retry_info().is_some(), retry, "{reason}");
    }
}
