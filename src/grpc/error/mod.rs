//! Failures into statuses: one exhaustive match a kind, and everything about errors in it.

use std::{any::Any, collections::BTreeMap, time::Duration};

use http::Response;
use prost::Message;
use tonic::{Code, Status, body::Body};
use tonic_types::pb;

mod exhausted;
#[cfg(test)]
mod tests;

pub use exhausted::{of_limit, request_too_large, response_too_large};

use crate::{
    auth::AuthError,
    domain::{authorization::PermissionDenied, rejection::Rejection},
    grpc::{
        decode::{Invalid, Violation},
        metrics,
        metrics::RequestMode,
    },
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

const DOMAIN: &str = "passbook";
/// Violations that one error names: its details travel in a header, and those are small.
const VIOLATIONS_MAX: usize = 16;

/// `google.rpc.ErrorInfo`, with its metadata in order: a refusal that is repeated is repeated
/// byte by byte, which tonic-types' own, with a hash map in it, would not be.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// What a status says, before it is put on the wire.
struct Parts {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: BTreeMap<String, String>,
    details: Vec<prost_types::Any>,
}

impl From<Error> for Status {
    fn from(failure: Error) -> Self {
        of_failure(&failure).into_status()
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        of_invalid(invalid).into_status()
    }
}

fn of_invalid(Invalid(violations): Invalid) -> Parts {
    let Some(first) = violations.first().cloned() else {
        // `Decoder::finish` is given None only where something is wrong.
        return of_failure(&Error::Internal(Some(Outcome::NotApplied)));
    };
    let code = match first.reason {
        ErrorReason::BalanceOutOfRange => Code::OutOfRange,
        _ => Code::InvalidArgument,
    };
    Parts {
        code,
        reason: first.reason,
        message: format!("{} {}", first.field, first.description),
        metadata: [("field", Some(first.field)), ("limit", first.limit)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
        details: vec![bad_request(violations)],
    }
}

fn of_rejection(rejection: &Rejection) -> Parts {
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
    Parts { code, reason, message, metadata: metadata(rejection), details: vec![detail] }
}

fn of_failure(failure: &Error) -> Parts {
    use ErrorReason as E;
    let (code, reason, message, outcome, retry) = match failure {
        Error::Rejected(rejection) => return of_rejection(rejection),
        Error::PermissionDenied(denied) => {
            let permission = match denied {
                PermissionDenied::Account(_)
                | PermissionDenied::Named(_)
                | PermissionDenied::AccountIdRequired => "account",
                PermissionDenied::Amount { .. } => "amount",
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
            "the database broke off the transaction repeatedly".to_owned(),
            Some(Outcome::NotApplied),
            Some(Duration::from_millis(100)),
        ),
        Error::DeadlineExceeded(outcome) => {
            let message = "the deadline passed before a verdict was reached".to_owned();
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
            format!("{limit} watch already"),
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
            return of_invalid(Invalid::new(E::InvalidFilter, "after_sequence", description));
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
            "the database's schema is not this server's; see `passbook migrate status`".to_owned(),
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
    Parts { code, reason, message, metadata, details: retry.map(retry_info).into_iter().collect() }
}

fn permission_denied(permission: &str, message: String) -> Parts {
    let metadata = BTreeMap::from([("permission".to_owned(), permission.to_owned())]);
    let (code, reason) = (Code::PermissionDenied, ErrorReason::PermissionDenied);
    Parts { code, reason, message, metadata, details: vec![] }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        let (message, metadata) = (error.to_string(), BTreeMap::new());
        let (code, reason) = (Code::Unauthenticated, ErrorReason::Unauthenticated);
        let parts = match error {
            AuthError::MethodDenied { .. } => permission_denied("method", message),
            AuthError::Unauthenticated(_) => {
                Parts { code, reason, message, metadata, details: vec![] }
            }
        };
        parts.into_status()
    }
}

/// What tonic itself says of a request that is no message, or that was broken off, is that the
/// server is at fault. It is not: what this service says always has details.
pub fn blame_request(response: Response<Body>) -> Response<Body> {
    let said = Status::from_header_map(response.headers());
    let is_tonics = |status: &Status| {
        matches!(status.code(), Code::Internal | Code::Unknown) && status.details().is_empty()
    };
    match said.filter(is_tonics) {
        None => response,
        Some(status) => {
            let description = format!("cannot be read: {}", status.message());
            let invalid = Invalid::new(ErrorReason::InvalidMessage, "message", description);
            of_invalid(invalid).into_status().into_http()
        }
    }
}

impl Parts {
    fn counted(self, mode: RequestMode) -> Self {
        if mode == RequestMode::Execute {
            let outcome = match self.metadata.get("outcome").map(String::as_str) {
                Some("not_applied") => "not_applied",
                Some(_) => "unknown",
                None => "rejected",
            };
            metrics::count_rejected(outcome, self.reason);
        }
        self
    }

    fn into_status(self) -> Status {
        let status = self.into_message();
        let details = status.encode_to_vec().into();
        Status::with_details(Code::from_i32(status.code), status.message, details)
    }

    fn into_message(self) -> pb::Status {
        let info = ErrorInfo {
            reason: name(self.reason).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: self.metadata,
        };
        let mut details = vec![any("ErrorInfo", &info)];
        details.extend(self.details);
        pb::Status { code: self.code as i32, message: self.message, details }
    }
}

/// As it is on the wire.
fn name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The failure of a request for a change, which is counted.
pub fn of_refused(failure: &Error, mode: RequestMode) -> Status {
    of_failure(failure).counted(mode).into_status()
}

/// The malformedness of a request for a change, which is counted.
pub fn of_malformed(invalid: Invalid) -> Status {
    of_invalid(invalid).counted(RequestMode::Execute).into_status()
}

/// What a status would say, in a message.
pub fn message_of_rejection(rejection: &Rejection) -> pb::Status {
    of_rejection(rejection).into_message()
}

/// The failure of one request of several, which is counted.
pub fn message_of_refused(failure: &Error, mode: RequestMode) -> pb::Status {
    of_failure(failure).counted(mode).into_message()
}

/// The malformedness of one request of several, which is counted.
pub fn message_of_malformed(invalid: Invalid) -> pb::Status {
    of_invalid(invalid).counted(RequestMode::Execute).into_message()
}

/// The answer to a call whose handler panicked: what it had asked for may have been done.
#[must_use]
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = text, "handler panicked");
    Status::from(Error::Internal(Some(Outcome::Unknown))).into_http()
}

/// The answer to a call that needs the database, which the server still waits for.
#[must_use]
pub fn waiting_for_database() -> Response<Body> {
    let failure = of_failure(&Error::DatabaseUnavailable(Some(Outcome::NotApplied)));
    let message = "the server is starting and waits for its database".to_owned();
    Parts { message, ..failure }.into_status().into_http()
}

/// The fields of a rejection, which are its metadata.
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
        r#type: name(reason).to_owned(),
        subject: subject.to_owned(),
        description: rejection.to_string(),
    };
    let detail = pb::PreconditionFailure { violations: vec![violation] };
    (Code::FailedPrecondition, reason, any("PreconditionFailure", &detail))
}

fn bad_request(violations: Vec<Violation>) -> prost_types::Any {
    let more = violations.len().saturating_sub(VIOLATIONS_MAX);
    let last = (more > 0).then(|| pb::bad_request::FieldViolation {
        description: format!("and {more} more"),
        ..pb::bad_request::FieldViolation::default()
    });
    let field_violations = violations
        .into_iter()
        .take(VIOLATIONS_MAX)
        .map(|violation| pb::bad_request::FieldViolation {
            field: violation.field,
            description: violation.description,
            ..pb::bad_request::FieldViolation::default()
        })
        .chain(last)
        .collect();
    any("BadRequest", &pb::BadRequest { field_violations })
}

fn resource_info(kind: &str, name: &str, rejection: &Rejection) -> prost_types::Any {
    let info = pb::ResourceInfo {
        resource_type: kind.to_owned(),
        resource_name: name.to_owned(),
        description: rejection.to_string(),
        ..pb::ResourceInfo::default()
    };
    any("ResourceInfo", &info)
}

fn retry_info(delay: Duration) -> prost_types::Any {
    let retry_delay = prost_types::Duration {
        // A second at most.
        seconds: delay.as_secs() as i64,
        nanos: delay.subsec_nanos() as i32,
    };
    any("RetryInfo", &pb::RetryInfo { retry_delay: Some(retry_delay) })
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}
