//! Errors of calls without a result.

use std::time::Duration;

use tonic::{Code, Status};

use crate::{
    auth::AuthError,
    budget::Limit,
    domain::authorization::PermissionDenied,
    grpc::error::{StatusBuilder, invalid::Invalid, limit::overloaded},
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// After a lock of another program: it may be held for long, and each attempt waits for it again.
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(200);
/// After the server's own retries: the transactions in conflict have ended by then.
const CONTENTION_RETRY_DELAY: Duration = Duration::from_millis(100);
/// What must be repaired or restarted takes seconds at least.
const REPAIR_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Another server takes the call, and a client has found one by then.
const OTHER_SERVER_RETRY_DELAY: Duration = Duration::from_millis(100);

impl From<Error> for StatusBuilder {
    fn from(error: Error) -> Self {
        use ErrorReason as E;
        let not_applied = Some(Outcome::NotApplied);
        match error {
            Error::Rejected(rejection) => Self::from(rejection),
            Error::Overloaded(exhausted) => {
                // A watch changes nothing.
                overloaded(exhausted, not_applied.filter(|_| exhausted.limit != Limit::Watchers))
            }
            Error::PermissionDenied(denied) => {
                let permission = match denied {
                    PermissionDenied::Account(..)
                    | PermissionDenied::Named(_)
                    | PermissionDenied::AccountIdRequired
                    | PermissionDenied::NoAccount(_) => "account",
                    PermissionDenied::Amount { .. } | PermissionDenied::UnlimitedOverdraft(_) => {
                        "amount"
                    }
                };
                permission_denied(permission, denied.to_string())
            }
            Error::LockTimeout => {
                let message =
                    "another database transaction kept an account locked until the deadline";
                Self::new(Code::Aborted, E::LockTimeout, message)
                    .with_outcome(not_applied)
                    .with_retry(LOCK_RETRY_DELAY)
            }
            Error::Contention => {
                let message = "the database aborted the change repeatedly, or the hold or transaction that \
                               it names has changed since it was looked up";
                Self::new(Code::Aborted, E::Contention, message)
                    .with_outcome(not_applied)
                    .with_retry(CONTENTION_RETRY_DELAY)
            }
            Error::DeadlineExceeded(outcome) => {
                let message = "the deadline passed before there was a result";
                Self::new(Code::DeadlineExceeded, E::DeadlineExceeded, message)
                    .with_outcome(outcome)
            }
            Error::WatcherTooSlow { limit } => {
                let limit = humantime::format_duration(limit);
                let message = format!(
                    "a message was not read for {limit}; watch again from the last sequence or token that \
                     you have"
                );
                Self::new(Code::ResourceExhausted, E::WatcherTooSlow, message)
            }
            Error::SequenceNotReached { sequence } => {
                let description = format!("is above the account's sequence, which is {sequence}");
                Self::from(Invalid::new(E::InvalidFilter, "after_sequence", description))
            }
            Error::EventTokenUnknown => {
                let message = "this ledger does not have the event of the token: it is of another ledger, \
                               or was lost by a failover or a restore";
                Self::new(Code::FailedPrecondition, E::EventTokenUnknown, message)
            }
            Error::TooManyAccounts { max } => {
                let message = format!(
                    "a sum examines at most {max} accounts: name a longer account_id_prefix"
                );
                Self::new(Code::FailedPrecondition, E::TooManyAccounts, message).with("max", max)
            }
            Error::TooManyEntries { max } => {
                let message = format!(
                    "a balance examines at most {max} entries with an effective time: ask for a later time"
                );
                Self::new(Code::FailedPrecondition, E::TooManyEntries, message).with("max", max)
            }
            Error::DatabaseUnavailable(outcome) => {
                let message = "the database cannot be reached or written";
                Self::new(Code::Unavailable, E::DatabaseUnavailable, message)
                    .with_outcome(outcome)
                    .with_retry(REPAIR_RETRY_DELAY)
            }
            Error::SchemaNotMigrated(outcome) => {
                let message = "the database does not have this server's schema; see `passbook migrate status`";
                Self::new(Code::Unavailable, E::SchemaNotMigrated, message).with_outcome(outcome)
            }
            Error::AuditUnavailable => {
                let message = "the audit log, without which nothing changes, cannot be written";
                Self::new(Code::Unavailable, E::AuditUnavailable, message)
                    .with_outcome(not_applied)
                    .with_retry(REPAIR_RETRY_DELAY)
            }
            Error::ShuttingDown => {
                Self::new(Code::Unavailable, E::ShuttingDown, "the server is shutting down")
                    .with_outcome(not_applied)
                    .with_retry(OTHER_SERVER_RETRY_DELAY)
            }
            Error::Internal(outcome) => {
                let message = "internal error; see the server's log";
                Self::new(Code::Internal, E::Internal, message).with_outcome(outcome)
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        StatusBuilder::from(error).into()
    }
}

impl From<AuthError> for StatusBuilder {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::MethodDenied { .. } | AuthError::NoMethodAllowed { .. } => {
                permission_denied("method", message)
            }
            AuthError::Unauthenticated(_) => {
                Self::new(Code::Unauthenticated, ErrorReason::Unauthenticated, message)
            }
        }
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        StatusBuilder::from(error).into()
    }
}

fn permission_denied(permission: &str, message: String) -> StatusBuilder {
    StatusBuilder::new(Code::PermissionDenied, ErrorReason::PermissionDenied, message)
        .with("permission", permission)
}
