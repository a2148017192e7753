//! Every error: its code, reason, metadata and details.

use std::collections::BTreeSet;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    budget::{Exhausted, Limit, Scope},
    domain::{
        ids::{AccountId, HoldId, RequestId},
        money::Currencies,
        rejection::{Rejection, TransactionName},
    },
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// One of each variant.
fn rejections() -> Vec<Rejection> {
    let account_id = || AccountId::parse("a").unwrap();
    let hold_id = || HoldId::parse("h").unwrap();
    let request_id = || RequestId::parse("r").unwrap();
    let amount = |text| Currencies::default().get("USD").unwrap().parse(text).unwrap();
    let currency_code = || "USD".to_owned();
    let text = |text: &str| text.to_owned();
    vec![
        Rejection::RequestIdReused { request_id: request_id() },
        Rejection::RequestFenced { request_id: request_id() },
        Rejection::HoldNotFound { hold_id: hold_id() },
        Rejection::HoldExists { hold_id: hold_id() },
        Rejection::HoldNotOpen { hold_id: hold_id(), state: text("captured") },
        Rejection::ExpireTimePassed { expire_time_us: 1, now_us: 2 },
        Rejection::TransactionNotDivisible { transaction_id: Uuid::from_u128(1) },
        Rejection::ReversalAmountExceeded {
            transaction_id: Uuid::from_u128(1),
            account_id: Some(account_id()),
            currency_code: currency_code(),
            reversible: Some(amount("1")),
            required: amount("2"),
        },
        Rejection::AlreadyReversed {
            transaction_id: Uuid::from_u128(1),
            reversed_by_transaction_id: Uuid::from_u128(2),
        },
        Rejection::AccountNotFound { account_id: account_id() },
        Rejection::TransactionNotFound(TransactionName::RequestId(request_id())),
        Rejection::AccountExists { account_id: account_id() },
        Rejection::AccountClosed { account_id: account_id() },
        Rejection::AccountFrozen { account_id: account_id() },
        Rejection::CurrencyMismatch {
            account_id: account_id(),
            currency_code: currency_code(),
            account_currency_code: Some(text("EUR")),
        },
        Rejection::BalanceOutOfRange {
            account_id: account_id(),
            currency_code: currency_code(),
            balance: Some(amount("1")),
            amount: Some(amount("2")),
        },
        Rejection::ConditionFailed {
            account_id: account_id(),
            condition: text("expected_version"),
            required: text("1"),
            actual: Some(text("2")),
            version: Some(2),
        },
        Rejection::InsufficientFunds {
            account_id: account_id(),
            currency_code: currency_code(),
            available: Some(amount("1")),
            required: Some(amount("2")),
            version: Some(3),
        },
        Rejection::HoldAmountExceeded {
            hold_id: hold_id(),
            account_id: Some(account_id()),
            currency_code: currency_code(),
            held: Some(amount("1")),
            required: amount("2"),
        },
        Rejection::HoldAmountTooLow {
            hold_id: hold_id(),
            account_id: Some(account_id()),
            currency_code: currency_code(),
            captured: Some(amount("2")),
            required: amount("1"),
        },
        Rejection::AccountNotEmpty {
            account_id: account_id(),
            currency_code: currency_code(),
            balance: amount("1"),
            held: amount("2"),
        },
        Rejection::EffectiveTimeOutOfRange { effective_time_us: 1, earliest_us: 2, latest_us: 3 },
        Rejection::Unbalanced { currency_code: currency_code(), sum: Some("1.00".to_owned()) },
        Rejection::VersionMismatch { account_id: account_id(), expected_version: 1, version: 2 },
    ]
}

/// Code, reason and the keys of the metadata. A new variant does not compile without them.
fn expected(rejection: &Rejection) -> (Code, ErrorReason, &'static str) {
    use {ErrorReason as E, Rejection as R};
    match rejection {
        R::RequestIdReused { .. } => (Code::InvalidArgument, E::RequestIdReused, "request_id"),
        R::RequestFenced { .. } => (Code::FailedPrecondition, E::RequestFenced, "request_id"),
        R::HoldNotFound { .. } => (Code::NotFound, E::HoldNotFound, "hold_id"),
        R::HoldExists { .. } => (Code::AlreadyExists, E::HoldExists, "hold_id"),
        R::HoldNotOpen { .. } => (Code::FailedPrecondition, E::HoldNotOpen, "hold_id state"),
        R::ExpireTimePassed { .. } => {
            (Code::FailedPrecondition, E::ExpireTimePassed, "expire_time_us now_us")
        }
        R::EffectiveTimeOutOfRange { .. } => {
            let keys = "earliest_us effective_time_us latest_us";
            (Code::OutOfRange, E::EffectiveTimeOutOfRange, keys)
        }
        R::Unbalanced { .. } => (Code::FailedPrecondition, E::Unbalanced, "currency_code sum"),
        R::TransactionNotDivisible { .. } => {
            (Code::FailedPrecondition, E::TransactionNotDivisible, "transaction_id")
        }
        R::ReversalAmountExceeded { .. } => {
            let keys = "account_id currency_code required reversible transaction_id";
            (Code::FailedPrecondition, E::ReversalAmountExceeded, keys)
        }
        R::HoldAmountTooLow { .. } => {
            let keys = "account_id captured currency_code hold_id required";
            (Code::FailedPrecondition, E::HoldAmountTooLow, keys)
        }
        R::AlreadyReversed { .. } => {
            let keys = "reversed_by_transaction_id transaction_id";
            (Code::FailedPrecondition, E::AlreadyReversed, keys)
        }
        R::AccountNotFound { .. } => (Code::NotFound, E::AccountNotFound, "account_id"),
        R::TransactionNotFound(TransactionName::RequestId(_)) => {
            (Code::NotFound, E::TransactionNotFound, "request_id")
        }
        R::TransactionNotFound(TransactionName::TransactionId(_)) => {
            (Code::NotFound, E::TransactionNotFound, "transaction_id")
        }
        R::AccountExists { .. } => (Code::AlreadyExists, E::AccountExists, "account_id"),
        R::AccountClosed { .. } => (Code::FailedPrecondition, E::AccountClosed, "account_id"),
        R::AccountFrozen { .. } => (Code::FailedPrecondition, E::AccountFrozen, "account_id"),
        R::CurrencyMismatch { .. } => {
            let keys = "account_currency_code account_id currency_code";
            (Code::FailedPrecondition, E::CurrencyMismatch, keys)
        }
        R::BalanceOutOfRange { .. } => {
            let keys = "account_id amount balance currency_code";
            (Code::OutOfRange, E::BalanceOutOfRange, keys)
        }
        R::ConditionFailed { .. } => {
            let keys = "account_id actual condition required version";
            (Code::FailedPrecondition, E::ConditionFailed, keys)
        }
        R::InsufficientFunds { .. } => {
            let keys = "account_id available currency_code required version";
            (Code::FailedPrecondition, E::InsufficientFunds, keys)
        }
        R::HoldAmountExceeded { .. } => {
            let keys = "account_id currency_code held hold_id required";
            (Code::FailedPrecondition, E::HoldAmountExceeded, keys)
        }
        R::AccountNotEmpty { .. } => {
            let keys = "account_id balance currency_code held";
            (Code::FailedPrecondition, E::AccountNotEmpty, keys)
        }
        R::VersionMismatch { .. } => {
            (Code::Aborted, E::VersionMismatch, "account_id expected_version version")
        }
    }
}

#[test]
fn every_rejection_has_its_code_reason_and_metadata() {
    for rejection in rejections() {
        let (code, reason, keys) = expected(&rejection);
        let status = Status::from(Error::Rejected(rejection.clone()));
        assert_eq!(status.code(), code, "{rejection:?}");
        assert_eq!(status.message(), rejection.to_string());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "passbook");
        let name = format!("ERROR_REASON_{}", info.reason);
        assert_eq!(ErrorReason::from_str_name(&name), Some(reason), "{rejection:?}");
        let sorted: BTreeSet<&str> = info.metadata.keys().map(String::as_str).collect();
        assert_eq!(sorted.into_iter().collect::<Vec<_>>().join(" "), keys, "{rejection:?}");
    }
}

/// The reasons by state are 20 to 49.
#[test]
fn every_reason_by_state_is_among_the_rejections() {
    let tested = rejections().iter().map(|it| expected(it).1 as i32).collect::<BTreeSet<_>>();
    let known = (20..50).filter(|number| ErrorReason::try_from(*number).is_ok());
    assert_eq!(tested, known.collect());
}

#[test]
fn a_rejection_is_the_same_after_it_was_stored() {
    for rejection in rejections() {
        let stored = serde_json::to_string(&rejection).unwrap();
        let read: Rejection = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, rejection);
        let details = |it| Status::from(Error::Rejected(it)).details().to_vec();
        assert_eq!(details(read), details(rejection), "byte by byte");
    }
}

#[test]
fn insufficient_funds_say_what_was_available_and_what_was_needed() {
    let is_meant = |it: &Rejection| matches!(it, Rejection::InsufficientFunds { .. });
    let rejection = rejections().into_iter().find(is_meant).unwrap();
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
    let exhausted = Exhausted {
        limit: Limit::Queue,
        scope: Scope::Server,
        max: 1,
        retry_delay: std::time::Duration::from_millis(100),
    };
    for (error, code, reason, outcome, retry) in [
        (E::LockTimeout, C::Aborted, "LOCK_TIMEOUT", "not_applied", true),
        (E::Contention, C::Aborted, "CONTENTION", "not_applied", true),
        (E::DeadlineExceeded(not_applied), C::DeadlineExceeded, deadline, "not_applied", false),
        (E::DeadlineExceeded(unknown), C::DeadlineExceeded, deadline, "unknown", false),
        (E::DeadlineExceeded(None), C::DeadlineExceeded, deadline, "", false),
        (E::Overloaded(exhausted), C::ResourceExhausted, "OVERLOADED", "not_applied", true),
        (E::DatabaseUnavailable(unknown), C::Unavailable, "DATABASE_UNAVAILABLE", "unknown", true),
        (
            E::SchemaNotMigrated(not_applied),
            C::Unavailable,
            "SCHEMA_NOT_MIGRATED",
            "not_applied",
            false,
        ),
        (E::AuditUnavailable, C::Unavailable, "AUDIT_UNAVAILABLE", "not_applied", true),
        (E::WatcherTooSlow { limit }, C::ResourceExhausted, "WATCHER_TOO_SLOW", "", false),
        (E::SequenceNotReached { sequence: 1 }, C::InvalidArgument, "INVALID_FILTER", "", false),
        (E::TooManyAccounts { max: 1 }, C::FailedPrecondition, "TOO_MANY_ACCOUNTS", "", false),
        (E::TooManyEntries { max: 1 }, C::FailedPrecondition, "TOO_MANY_ENTRIES", "", false),
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
