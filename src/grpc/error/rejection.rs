//! Requests that the state of the ledger rejects.

use std::collections::BTreeMap;

use tonic::Code;
use tonic_types::pb;

use crate::{
    domain::rejection::Rejection,
    grpc::{
        decode::Violation,
        error::{StatusBuilder, detail, invalid::bad_request, reason_name},
    },
    proto::ErrorReason,
};

impl From<&Rejection> for StatusBuilder {
    fn from(rejection: &Rejection) -> Self {
        use Rejection as R;
        let account = "passbook.v1.Account";
        let (code, reason, detail) = match rejection {
            R::RequestIdReused { .. } => {
                let violation = Violation {
                    reason: ErrorReason::RequestIdReused,
                    field: "request_id".to_owned(),
                    description: rejection.to_string(),
                    limit: None,
                };
                (Code::InvalidArgument, ErrorReason::RequestIdReused, bad_request(vec![violation]))
            }
            R::RequestFenced { request_id } => {
                precondition(ErrorReason::RequestFenced, request_id.as_str(), rejection)
            }
            R::HoldNotFound { hold_id } => (
                Code::NotFound,
                ErrorReason::HoldNotFound,
                resource_info("passbook.v1.Hold", hold_id.as_str(), rejection),
            ),
            R::HoldExists { hold_id } => (
                Code::AlreadyExists,
                ErrorReason::HoldExists,
                resource_info("passbook.v1.Hold", hold_id.as_str(), rejection),
            ),
            R::HoldNotOpen { hold_id, .. } => {
                precondition(ErrorReason::HoldNotOpen, hold_id.as_str(), rejection)
            }
            R::ExpireTimePassed { .. } => {
                precondition(ErrorReason::ExpireTimePassed, "expire_time", rejection)
            }
            R::AlreadyReversed { transaction_id, .. } => {
                precondition(ErrorReason::AlreadyReversed, &transaction_id.to_string(), rejection)
            }
            R::HoldAmountExceeded { hold_id, .. } => {
                precondition(ErrorReason::HoldAmountExceeded, hold_id.as_str(), rejection)
            }
            R::AccountNotEmpty { account_id, .. } => {
                precondition(ErrorReason::AccountNotEmpty, account_id.as_str(), rejection)
            }
            R::VersionMismatch { account_id, .. } => {
                let (_, reason, detail) =
                    precondition(ErrorReason::VersionMismatch, account_id.as_str(), rejection);
                (Code::Aborted, reason, detail)
            }
            R::AccountNotFound { account_id } => (
                Code::NotFound,
                ErrorReason::AccountNotFound,
                resource_info(account, account_id.as_str(), rejection),
            ),
            R::TransactionNotFound(name) => (
                Code::NotFound,
                ErrorReason::TransactionNotFound,
                resource_info("passbook.v1.Transaction", &name.to_string(), rejection),
            ),
            R::AccountExists { account_id } => (
                Code::AlreadyExists,
                ErrorReason::AccountExists,
                resource_info(account, account_id.as_str(), rejection),
            ),
            R::AccountClosed { account_id } => {
                precondition(ErrorReason::AccountClosed, account_id.as_str(), rejection)
            }
            R::AccountFrozen { account_id } => {
                precondition(ErrorReason::AccountFrozen, account_id.as_str(), rejection)
            }
            R::CurrencyMismatch { account_id, .. } => {
                precondition(ErrorReason::CurrencyMismatch, account_id.as_str(), rejection)
            }
            R::BalanceOutOfRange { account_id, .. } => {
                let (_, reason, detail) =
                    precondition(ErrorReason::BalanceOutOfRange, account_id.as_str(), rejection);
                (Code::OutOfRange, reason, detail)
            }
            R::ConditionFailed { account_id, .. } => {
                precondition(ErrorReason::ConditionFailed, account_id.as_str(), rejection)
            }
            R::InsufficientFunds { account_id, .. } => {
                precondition(ErrorReason::InsufficientFunds, account_id.as_str(), rejection)
            }
        };
        let message = rejection.to_string();
        Self { code, reason, message, metadata: metadata(rejection), details: vec![detail] }
    }
}

/// The fields of a rejection are its metadata.
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

fn precondition(
    reason: ErrorReason,
    subject: &str,
    rejection: &Rejection,
) -> (Code, ErrorReason, prost_types::Any) {
    let violation = pb::precondition_failure::Violation {
        r#type: reason_name(reason).to_owned(),
        subject: subject.to_owned(),
        description: rejection.to_string(),
    };
    let failure = pb::PreconditionFailure { violations: vec![violation] };
    (Code::FailedPrecondition, reason, detail("PreconditionFailure", &failure))
}

fn resource_info(kind: &str, name: &str, rejection: &Rejection) -> prost_types::Any {
    let info = pb::ResourceInfo {
        resource_type: kind.to_owned(),
        resource_name: name.to_owned(),
        description: rejection.to_string(),
        ..pb::ResourceInfo::default()
    };
    detail("ResourceInfo", &info)
}
