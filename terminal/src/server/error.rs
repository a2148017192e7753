//! The error of a call: what it means, how it is printed, and the exit code.

use std::{collections::BTreeMap, time::Duration};

use console::Style;
use passbook_command::{CliError, client::text_of_status, output, table::Fields};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

use crate::{
    output::Format,
    server::{CallKind, advice},
};

/// Exit codes beside 0 (success), 1 (another error) and 2 (wrong usage).
mod exit_code {
    /// Another error, such as a response that is too large.
    pub const OTHER: u8 = 1;
    /// The request is invalid, like a command line that is.
    pub const INVALID: u8 = 2;
    /// The state does not allow the request.
    pub const REJECTED: u8 = 3;
    /// The request names something that does not exist.
    pub const NOT_FOUND: u8 = 4;
    /// The credential or the policy does not allow the request.
    pub const DENIED: u8 = 5;
    /// There is no result, and nothing was applied.
    pub const NOT_APPLIED: u8 = 6;
    /// There is no result, and the change may have been applied.
    pub const UNKNOWN: u8 = 7;
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The state did not allow it.
    Rejected,
    /// It was not applied.
    NotApplied,
    /// It was applied or not.
    Unknown,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
        }
    }
}

/// The error of a call.
#[derive(Debug)]
pub struct CallError {
    code: Code,
    /// The `reason` of ErrorInfo. Empty if no server answered.
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
    retry_delay: Duration,
}

impl CallError {
    /// The error that a server, or tonic in its place, returned.
    pub fn of(status: &Status) -> Self {
        let error = Self::with(status.code(), status.message(), &status.get_error_details());
        if !error.reason.is_empty() {
            return error;
        }
        let message = format!("the server did not answer: {}", text_of_status(status));
        Self { message, ..error }
    }

    /// The error of one request, in the response to a call.
    pub fn of_result(status: &tonic_types::pb::Status) -> Self {
        let details = status.get_error_details();
        Self::with(Code::from_i32(status.code), &status.message, &details)
    }

    fn with(code: Code, message: &str, details: &ErrorDetails) -> Self {
        let info = details.error_info();
        Self {
            code,
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: message.to_owned(),
            metadata: info.into_iter().flat_map(|info| info.metadata.clone()).collect(),
            retry_delay: details.retry_info().and_then(|it| it.retry_delay).unwrap_or_default(),
        }
    }

    /// The error of a call whose time is up: the server's own, or there was no response.
    pub fn at_deadline(status: &Status, timeout: Duration) -> Self {
        let error = Self::of(status);
        if error.reason.is_empty() { Self::without_response(timeout) } else { error }
    }

    /// No response came within this time.
    pub fn without_response(timeout: Duration) -> Self {
        let message = format!("no response within {}", humantime::format_duration(timeout));
        Self::of_client(Code::DeadlineExceeded, message)
    }

    /// There is no connection, so nothing was sent.
    pub fn unreachable(target: &str, cause: &str) -> Self {
        let mut error =
            Self::of_client(Code::Unavailable, format!("{target} cannot be reached: {cause}"));
        error.metadata.insert("outcome".to_owned(), Outcome::NotApplied.name().to_owned());
        error
    }

    const fn of_client(code: Code, message: String) -> Self {
        Self {
            code,
            reason: String::new(),
            message,
            metadata: BTreeMap::new(),
            retry_delay: Duration::ZERO,
        }
    }

    pub const fn retry_delay(&self) -> Duration {
        self.retry_delay
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Whether a repeat has no other result, or there is no time for it.
    pub fn is_final(&self) -> bool {
        self.is_result()
            || self.is_denied()
            || self.is_deadline()
            || self.code == Code::Unimplemented
            || matches!(self.reason(), "REQUEST_TOO_LARGE" | "RESPONSE_TOO_LARGE")
            // A limit of tonic, such as the size of a message.
            || (self.code == Code::ResourceExhausted && self.reason.is_empty())
    }

    /// Whether the error is the result of the request.
    fn is_result(&self) -> bool {
        matches!(
            self.code,
            Code::InvalidArgument
                | Code::OutOfRange
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
        ) || self.reason == "VERSION_MISMATCH"
    }

    /// Whether a field of the request is malformed, or the id was used with another body.
    pub fn is_invalid(&self) -> bool {
        self.code == Code::InvalidArgument
            || (self.code == Code::OutOfRange && self.metadata.contains_key("field"))
    }

    pub fn is_deadline(&self) -> bool {
        self.code == Code::DeadlineExceeded
    }

    fn is_denied(&self) -> bool {
        matches!(self.code, Code::Unauthenticated | Code::PermissionDenied)
    }

    /// What became of the change whose last attempt ended with this error. `in_doubt`: an earlier
    /// attempt may have been applied. None: nothing was to be changed.
    pub fn outcome(&self, kind: CallKind<'_>, in_doubt: bool) -> Option<Outcome> {
        if matches!(kind, CallKind::Read) {
            return None;
        }
        // A server with other settings, which does not know a currency, has not looked for a result.
        let may_have_result = in_doubt && self.reason != "REQUEST_ID_REUSED";
        Some(if self.is_invalid() {
            if may_have_result { Outcome::Unknown } else { Outcome::NotApplied }
        } else if self.is_result() {
            Outcome::Rejected
        } else if in_doubt {
            Outcome::Unknown
        } else if self.is_denied()
            || self.code == Code::Unimplemented
            || self.metadata("outcome") == Some("not_applied")
        {
            Outcome::NotApplied
        } else {
            Outcome::Unknown
        })
    }
}

/// An error, and what it means for the call.
pub struct Report<'a> {
    pub error: &'a CallError,
    pub kind: CallKind<'a>,
    pub outcome: Option<Outcome>,
}

impl Report<'_> {
    /// Prints the error to standard error, with what to do next.
    pub fn fail(&self, format: Format) -> CliError {
        match format {
            Format::Table => self.print_for_people(),
            Format::Json => self.print_json(),
        }
        CliError::Reported(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        let error = self.error;
        match error.code {
            _ if error.is_invalid() => exit_code::INVALID,
            Code::NotFound => exit_code::NOT_FOUND,
            _ if error.is_result() => exit_code::REJECTED,
            _ if self.outcome == Some(Outcome::Unknown) => exit_code::UNKNOWN,
            _ if error.is_denied() => exit_code::DENIED,
            Code::Unimplemented => exit_code::OTHER,
            _ if matches!(error.reason(), "REQUEST_TOO_LARGE" | "RESPONSE_TOO_LARGE") => {
                exit_code::OTHER
            }
            _ => exit_code::NOT_APPLIED,
        }
    }

    fn next(&self) -> Vec<String> {
        advice::next(self.error, self.kind, self.outcome)
    }

    fn outcome(&self) -> &'static str {
        self.outcome.map_or("", Outcome::name)
    }

    fn request_id(&self) -> &str {
        match self.kind {
            CallKind::Change(request_id) => request_id,
            CallKind::Read | CallKind::Opening(_) | CallKind::Update(_) => "",
        }
    }

    /// The id of the account to open, if the command has created it.
    fn account_id(&self) -> &str {
        match self.kind {
            CallKind::Opening(account_id) => account_id.unwrap_or_default(),
            CallKind::Read | CallKind::Change(_) | CallKind::Update(_) => "",
        }
    }

    fn print_for_people(&self) {
        let red = Style::new().red().bold().for_stderr();
        let message = output::printable(&self.error.message);
        output::error_line(format_args!("{}: {message}", red.apply_to("error")));
        let fields = Fields::for_stderr()
            .with("reason", &self.error.reason)
            .with("outcome", self.outcome())
            .with("request_id", self.request_id())
            .with("account_id", self.account_id());
        let fields = self.next().iter().fold(fields, |fields, step| fields.with("next", step));
        let text = fields.text();
        if !text.is_empty() {
            output::error_line(text.trim_end());
        }
    }

    fn print_json(&self) {
        output::error_line(serde_json::json!({
            "error": {
                "code": format!("{:?}", self.error.code),
                "reason": self.error.reason,
                "message": self.error.message,
                "metadata": self.error.metadata,
                "outcome": self.outcome(),
                "requestId": self.request_id(),
                "accountId": self.account_id(),
                "next": self.next(),
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stored_result_is_certain_after_doubt() {
        let outcome = |code, reason: &str, in_doubt| {
            let error = CallError::of_client(code, String::new());
            let error = CallError { reason: reason.to_owned(), ..error };
            error.outcome(CallKind::Change("r-1"), in_doubt)
        };
        for (code, reason, first, after_doubt) in [
            (Code::InvalidArgument, "INVALID_CURRENCY_CODE", Outcome::NotApplied, Outcome::Unknown),
            (Code::InvalidArgument, "REQUEST_ID_REUSED", Outcome::NotApplied, Outcome::NotApplied),
            (Code::FailedPrecondition, "INSUFFICIENT_FUNDS", Outcome::Rejected, Outcome::Rejected),
            (Code::PermissionDenied, "PERMISSION_DENIED", Outcome::NotApplied, Outcome::Unknown),
        ] {
            assert_eq!(outcome(code, reason, false), Some(first), "{reason}");
            assert_eq!(outcome(code, reason, true), Some(after_doubt), "{reason}");
        }
    }
}
