//! Errors of calls without a result.

use std::{collections::BTreeMap, time::Duration};

use tonic::{Code, Status};

use crate::{
    auth::AuthError,
    domain::authorization::PermissionDenied,
    grpc::error::{StatusBuilder, invalid::Invalid, limit::retry_info},
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

impl From<&Error> for StatusBuilder {
    fn from(error: &Error) -> Self {
        use ErrorReason as E;
        let (code, reason, message, outcome, retry) = match error {
            Error::Rejected(rejection) => return Self::from(rejection),
            Error::PermissionDenied(denied) => {
                let permission = match denied {
                    PermissionDenied::Account(..)
                    | PermissionDenied::Named(_)
                    | PermissionDenied::AccountIdRequired
                    | PermissionDenied::NoAccount => "account",
                    PermissionDenied::Amount { .. } | PermissionDenied::UnlimitedOverdraft(_) => {
                        "amount"
                    }
                };
                return permission_denied(permission, denied.to_string());
            }
            Error::LockTimeout => (
                Code::Aborted,
                E::LockTimeout,
                "an account is locked by another transaction".to_owned(),
                Some(Outcome::NotApplied),
                Some(Duration::from_millis(200)),
            ),
            Error::Contention => (
                Code::Aborted,
                E::Contention,
                "the database aborted the transaction repeatedly".to_owned(),
                Some(Outcome::NotApplied),
                Some(Duration::from_millis(100)),
            ),
            Error::DeadlineExceeded(outcome) => {
                let message = "the deadline passed before there was a result".to_owned();
                (Code::DeadlineExceeded, E::DeadlineExceeded, message, *outcome, None)
            }
            Error::Overloaded { limit } => (
                Code::ResourceExhausted,
                E::Overloaded,
                format!("{limit} requests are waiting already"),
                Some(Outcome::NotApplied),
                Some(Duration::from_millis(100)),
            ),
            Error::TooManyWatchers { limit } => (
                Code::ResourceExhausted,
                E::Overloaded,
                format!("{limit} watchers are connected already"),
                None,
                Some(Duration::from_secs(1)),
            ),
            Error::WatcherTooSlow { limit } => {
                let limit = humantime::format_duration(*limit);
                let message = format!(
                    "a message was not read for {limit}; watch again from the last sequence that you have"
                );
                (Code::ResourceExhausted, E::WatcherTooSlow, message, None, None)
            }
            Error::SequenceNotReached { sequence } => {
                let description = format!("is above the account's sequence, which is {sequence}");
                return Self::from(Invalid::new(E::InvalidFilter, "after_sequence", description));
            }
            Error::DatabaseUnavailable(outcome) => (
                Code::Unavailable,
                E::DatabaseUnavailable,
                "the database cannot be reached or written".to_owned(),
                *outcome,
                Some(Duration::from_secs(1)),
            ),
            Error::SchemaNotMigrated(outcome) => (
                Code::Unavailable,
                E::SchemaNotMigrated,
                "the database's schema is not this server's; see `passbook migrate status`"
                    .to_owned(),
                *outcome,
                None,
            ),
            Error::ShuttingDown => (
                Code::Unavailable,
                E::ShuttingDown,
                "the server is shutting down".to_owned(),
                Some(Outcome::NotApplied),
                Some(Duration::from_millis(100)),
            ),
            Error::Internal(outcome) => {
                let message = "internal error; see the server's log".to_owned();
                (Code::Internal, E::Internal, message, *outcome, None)
            }
        };
        let outcome = outcome.map(|outcome| match outcome {
            Outcome::NotApplied => ("outcome".to_owned(), "not_applied".to_owned()),
            Outcome::Unknown => ("outcome".to_owned(), "unknown".to_owned()),
        });
        let metadata = outcome.into_iter().collect();
        Self {
            code,
            reason,
            message,
            metadata,
            details: retry.map(retry_info).into_iter().collect(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        StatusBuilder::from(&error).into_status()
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        let builder = match error {
            AuthError::MethodDenied { .. } => permission_denied("method", message),
            AuthError::Unauthenticated(_) => StatusBuilder {
                code: Code::Unauthenticated,
                reason: ErrorReason::Unauthenticated,
                message,
                metadata: BTreeMap::new(),
                details: vec![],
            },
        };
        builder.into_status()
    }
}

fn permission_denied(permission: &str, message: String) -> StatusBuilder {
    let metadata = BTreeMap::from([("permission".to_owned(), permission.to_owned())]);
    let (code, reason) = (Code::PermissionDenied, ErrorReason::PermissionDenied);
    StatusBuilder { code, reason, message, metadata, details: vec![] }
}
