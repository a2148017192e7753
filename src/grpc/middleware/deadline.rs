//! When a call must be answered.
//!
//! tonic itself drops a call when its `grpc-timeout` has passed and answers CANCELLED. We
//! answer a little earlier, with DEADLINE_EXCEEDED and what became of the change; and early
//! enough that the answer reaches a caller whose own clock runs out at the same moment.

use std::time::Duration;

use http::Request;
use tokio::time::Instant;

/// The longest that a call may take, whatever its caller says: a call holds a place in the
/// queue for as long.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How much earlier than the caller's deadline the answer is sent: a tenth of the time, in
/// these bounds.
const MARGIN_MIN: Duration = Duration::from_millis(1);
/// See [`MARGIN_MIN`].
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// What applies to calls without a deadline of their own.
#[derive(Clone, Copy, Debug)]
pub struct DeadlinePolicy {
    /// How long they may take.
    pub default_timeout: Duration,
}

/// When the answer must be on its way; stamped on every request as it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// Of a call with one answer: the caller's, or the default.
    pub at: Instant,
    /// The caller's, however far off: a stream may run for long.
    client_deadline: Option<Instant>,
    policy: DeadlinePolicy,
}

impl Deadline {
    /// What was stamped. Without the layer that does it there would be nothing: then the call
    /// is answered at once, not never.
    pub fn of(extensions: &http::Extensions) -> Self {
        let policy = DeadlinePolicy { default_timeout: Duration::ZERO };
        let none = || Self { at: Instant::now(), client_deadline: None, policy };
        extensions.get().copied().unwrap_or_else(none)
    }

    /// Of a stream as a whole: the caller's own, if there is one.
    pub fn for_stream(&self) -> Option<Instant> {
        self.client_deadline
    }

    /// Of one request of a stream that is read now: the default, within the caller's.
    pub fn for_item(&self) -> Instant {
        let default = Instant::now() + self.policy.default_timeout.min(TIMEOUT_MAX);
        self.client_deadline.map_or(default, |callers| callers.min(default))
    }
}

/// Stamps a request with its deadline.
pub fn attach<B>(mut request: Request<B>, policy: DeadlinePolicy) -> Request<B> {
    let header = request.headers().get("grpc-timeout");
    let callers = header.and_then(|value| parse_timeout(value.to_str().ok()?));
    let now = Instant::now();
    let at = |timeout: Duration| {
        let margin = (timeout / 10).clamp(MARGIN_MIN, MARGIN_MAX).min(timeout);
        now + timeout - margin
    };
    let deadline = Deadline {
        at: at(callers.unwrap_or(policy.default_timeout).min(TIMEOUT_MAX)),
        client_deadline: callers.map(at),
        policy,
    };
    request.extensions_mut().insert(deadline);
    request
}

/// At most eight digits and a unit:
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 60 * 60)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_eight_digits_and_a_unit() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(parse_timeout("2H"), Some(Duration::from_secs(7200)));
        for malformed in ["", "S", "123456789S", "5s", "-5S", "5.5S", "+5S", "5€"] {
            assert_eq!(parse_timeout(malformed), None, "{malformed:?}");
        }
    }
}
