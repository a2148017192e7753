//! Errors of requests that the state of the ledger rejects.

use std::collections::BTreeMap;

use tonic::Code;
use tonic_types::pb;

use crate::{
    domain::rejection::Rejection,
    grpc::error::{
        StatusBuilder,
        invalid::{Violation, bad_request},
        reason_name,
    },
    proto::ErrorReason,
};

impl From<Rejection> for StatusBuilder {
    fn from(rejection: Rejection) -> Self {
        use Code::{
            Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange,
        };
        use ErrorReason as E;
        use Rejection as R;
        // With the field whose value the error is about.
        let (code, reason, field) = match rejection {
            R::RequestIdReused { .. } => (InvalidArgument, E::RequestIdReused, "request_id"),
            R::RequestFenced { .. } => (FailedPrecondition, E::RequestFenced, "request_id"),
            R::HoldNotFound { .. } => (NotFound, E::HoldNotFound, "hold_id"),
            R::HoldExists { .. } => (AlreadyExists, E::HoldExists, "hold_id"),
            R::HoldNotOpen { .. } => (FailedPrecondition, E::HoldNotOpen, "hold_id"),
            R::HoldAmountExceeded { .. } => (FailedPrecondition, E::HoldAmountExceeded, "hold_id"),
            R::HoldAmountTooLow { .. } => (FailedPrecondition, E::HoldAmountTooLow, "hold_id"),
            R::ExpireTimePassed { .. } => (FailedPrecondition, E::ExpireTimePassed, "expire_time"),
            R::TransactionNotFound(_) => (NotFound, E::TransactionNotFound, "transaction_id"),
            R::AlreadyReversed { .. } => (FailedPrecondition, E::AlreadyReversed, "transaction_id"),
            R::TransactionNotDivisible { .. } => {
                (FailedPrecondition, E::TransactionNotDivisible, "transaction_id")
            }
            R::ReversalAmountExceeded { .. } => {
                (FailedPrecondition, E::ReversalAmountExceeded, "transaction_id")
            }
            R::Unbalanced { .. } => (FailedPrecondition, E::Unbalanced, "currency_code"),
            R::AccountNotFound { .. } => (NotFound, E::AccountNotFound, "account_id"),
            R::AccountExists { .. } => (AlreadyExists, E::AccountExists, "account_id"),
            R::AccountClosed { .. } => (FailedPrecondition, E::AccountClosed, "account_id"),
            R::AccountFrozen { .. } => (FailedPrecondition, E::AccountFrozen, "account_id"),
            R::AccountNotEmpty { .. } => (FailedPrecondition, E::AccountNotEmpty, "account_id"),
            R::VersionMismatch { .. } => (Aborted, E::VersionMismatch, "account_id"),
            R::CurrencyMismatch { .. } => (FailedPrecondition, E::CurrencyMismatch, "account_id"),
            R::BalanceOutOfRange { .. } => (OutOfRange, E::BalanceOutOfRange, "account_id"),
            R::EffectiveTimeOutOfRange { .. } => {
                (OutOfRange, E::EffectiveTimeOutOfRange, "effective_time")
            }
            R::ConditionFailed { .. } => (FailedPrecondition, E::ConditionFailed, "account_id"),
            R::InsufficientFunds { .. } => (FailedPrecondition, E::InsufficientFunds, "account_id"),
        };
        let description = rejection.to_string();
        let metadata = metadata(&rejection);
        let subject = match &rejection {
            R::TransactionNotFound(name) => name.to_string(),
            // The metadata has no `expire_time`: the field itself is the subject.
            _ => metadata.get(field).map_or(field, String::as_str).to_owned(),
        };
        let status = Self { metadata, ..Self::new(code, reason, description.clone()) };
        match code {
            InvalidArgument => {
                let violation = Violation::new(reason, field, description);
                status.with_detail("BadRequest", &bad_request(vec![violation]))
            }
            NotFound | AlreadyExists => {
                let resource_type = match field {
                    "account_id" => "passbook.v1.Account",
                    "hold_id" => "passbook.v1.Hold",
                    _ => "passbook.v1.Transaction",
                };
                let (resource_type, owner) = (resource_type.to_owned(), String::new());
                let resource_name = subject;
                let info = pb::ResourceInfo { resource_type, resource_name, owner, description };
                status.with_detail("ResourceInfo", &info)
            }
            _ => {
                let r#type = reason_name(reason).to_owned();
                let violation =
                    pb::precondition_failure::Violation { r#type, subject, description };
                let failure = pb::PreconditionFailure { violations: vec![violation] };
                status.with_detail("PreconditionFailure", &failure)
            }
        }
    }
}

/// Converts the fields of a rejection into metadata.
fn metadata(rejection: &Rejection) -> BTreeMap<String, String> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(rejection) else {
        return BTreeMap::new();
    };
    fields
        .into_iter()
        .filter(|(name, _)| name != "reason")
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect()
}
