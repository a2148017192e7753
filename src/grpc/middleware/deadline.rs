//! The deadline of a call.
//!
//! tonic drops a call after its `grpc-timeout` and responds with CANCELLED. This server responds a
//! little earlier, with DEADLINE_EXCEEDED and the outcome of the change, so that the response
//! reaches the caller before the caller's own timer expires.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio::time::{Instant, sleep_until};

/// The longest deadline that a caller can set: a call keeps its permit of the queue until then.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// The longest `grpc-timeout` of the protocol: 99,999,999 hours.
const TIMEOUT_LONGEST: Duration = Duration::from_secs(99_999_999 * 3600);
/// How long the only message of a call may take to arrive, within the deadline. Meanwhile the call
/// takes memory, and nothing is done for it.
const RECEIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// How much earlier than the caller's deadline the response is sent: a tenth of the timeout, within
/// these bounds.
const MARGIN_MIN: Duration = Duration::from_millis(1);
/// The upper bound of the margin.
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// The deadline of calls that bring none.
#[derive(Clone, Copy, Debug)]
pub struct DeadlinePolicy {
    /// How long such a call may take.
    pub default_timeout: Duration,
}

/// The time at which the response must be sent. Attached to every request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The deadline of a unary call: the caller's, or the default.
    pub at: Instant,
    /// The caller's deadline without `TIMEOUT_MAX`: a stream may run for long. None: the caller set
    /// none.
    client_deadline: Option<Instant>,
    policy: DeadlinePolicy,
}

impl Deadline {
    /// The attached deadline. Without one, which would be a defect of the stack, the deadline is now:
    /// the call fails at once instead of waiting without a limit.
    pub fn of(extensions: &http::Extensions) -> Self {
        let policy = DeadlinePolicy { default_timeout: Duration::ZERO };
        let none = || Self { at: Instant::now(), client_deadline: None, policy };
        extensions.get().copied().unwrap_or_else(none)
    }

    /// When the only message of the call must have arrived, read now.
    pub fn receive_until(self) -> Instant {
        self.at.min(Instant::now() + RECEIVE_TIME_MAX)
    }

    /// Waits until the deadline of a whole stream has passed. Never returns if the caller set none.
    pub async fn passed_for_stream(self) {
        match self.client_deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// The deadline of one request of a stream that is read now: by its own timeout or the default,
    /// within the caller's deadline.
    pub fn for_item(&self, timeout: Option<Duration>) -> Instant {
        let timeout = timeout.unwrap_or(self.policy.default_timeout).min(TIMEOUT_MAX);
        let at = respond_at(Instant::now(), timeout);
        self.client_deadline.map_or(at, |deadline| deadline.min(at))
    }
}

/// The header with the time that a caller gives a call.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";

/// The time that the caller gives the call; None if it gives none.
///
/// # Errors
/// The header is there several times, or is malformed.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, MalformedTimeout> {
    let mut values = headers.get_all(TIMEOUT_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let timeout = value.to_str().ok().and_then(parse_timeout);
            timeout.map(Some).ok_or(MalformedTimeout)
        }
        (Some(_), Some(_)) => Err(MalformedTimeout),
    }
}

/// A `grpc-timeout` that is no time.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedTimeout;

/// Attaches the deadline to a request.
///
/// # Errors
/// The caller's timeout is malformed.
pub fn attach<B>(request: &mut Request<B>, policy: DeadlinePolicy) -> Result<(), MalformedTimeout> {
    let timeout = timeout_of(request.headers())?;
    let now = Instant::now();
    let deadline = Deadline {
        at: respond_at(now, timeout.unwrap_or(policy.default_timeout).min(TIMEOUT_MAX)),
        client_deadline: timeout.map(|timeout| respond_at(now, timeout)),
        policy,
    };
    request.extensions_mut().insert(deadline);
    Ok(())
}

/// When the response must be sent, so that it reaches the caller before this timeout has passed.
fn respond_at(now: Instant, timeout: Duration) -> Instant {
    let margin = (timeout / 10).clamp(MARGIN_MIN, MARGIN_MAX).min(timeout);
    now + timeout - margin
}

/// Parses the value of `grpc-timeout`: digits and a unit. The protocol allows eight digits; there are
/// clients that send more, or a fraction. What is longer than [`TIMEOUT_LONGEST`] counts as that.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
fn parse_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let unit_seconds = match unit {
        "H" => 3600.0,
        "M" => 60.0,
        "S" => 1.0,
        "m" => 1e-3,
        "u" => 1e-6,
        "n" => 1e-9,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * unit_seconds;
    Some(Duration::from_secs_f64(seconds.min(TIMEOUT_LONGEST.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_deadline_counts_as_the_longest_except_of_a_stream() {
        let policy = DeadlinePolicy { default_timeout: Duration::from_secs(3600) };
        let attached = |timeout: Option<&str>| {
            let mut request = Request::new(());
            if let Some(timeout) = timeout {
                request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            }
            attach(&mut request, policy).unwrap();
            Deadline::of(request.extensions())
        };
        let begin = Instant::now();
        for timeout in [None, Some("301S"), Some("99999999H")] {
            let deadline = attached(timeout);
            let end = Instant::now() + TIMEOUT_MAX;
            assert!((begin + TIMEOUT_MAX - MARGIN_MAX..end).contains(&deadline.at), "{timeout:?}");
            for timeout in [None, Some(2 * TIMEOUT_MAX), Some(Duration::MAX)] {
                let at = deadline.for_item(timeout);
                assert!(at <= Instant::now() + TIMEOUT_MAX, "{timeout:?}");
                assert!(at >= begin + TIMEOUT_MAX - MARGIN_MAX, "{timeout:?}");
            }
        }
        assert!(attached(Some("299S")).at < begin + TIMEOUT_MAX - MARGIN_MAX);
        assert!(attached(Some("2H")).client_deadline > Some(begin + 2 * TIMEOUT_MAX));
        let second = Duration::from_secs(1);
        assert!(attached(None).for_item(Some(second)) < Instant::now() + second);
        assert!(attached(Some("1S")).for_item(Some(2 * second)) < Instant::now() + second);
        assert!(attached(None).for_item(Some(Duration::ZERO)) <= Instant::now());
    }

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(parse_timeout("2H"), Some(Duration::from_secs(7200)));
        // As connect-es sends them.
        assert_eq!(parse_timeout("604800000m"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_timeout("1500.5m"), Some(Duration::from_micros(1_500_500)));
        for long in ["99999999H", "100000000H", &format!("{}S", "9".repeat(400))] {
            assert_eq!(parse_timeout(long), Some(TIMEOUT_LONGEST), "{long}");
        }
        for malformed in
            ["", "S", "5", "5s", "-5S", "+5S", "5€", ".5S", "5.S", "1.5.5S", "1e3S", "infS", "NaNS"]
        {
            assert_eq!(parse_timeout(malformed), None, "{malformed:?}");
        }
    }
}
