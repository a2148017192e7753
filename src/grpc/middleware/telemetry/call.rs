//! One call, from its headers to its end: what is counted, logged and traced of it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request};
use metrics::{Gauge, gauge};
use tonic::Code;
use uuid::Uuid;

use crate::{
    auth::Peer,
    domain::ids::Identity,
    grpc::middleware::telemetry::methods::{
        METRICS_BY_METHOD, MethodMetrics, MetricsByMethod, name, name_in_capitals,
    },
    lock::lock,
    telemetry::{
        log::CallNames,
        traces::{CallTrace, callers_trace_id},
    },
};

/// The header with the id of a call, in the request and in the response.
pub const CALL_ID_HEADER: &str = "x-request-id";
/// A longer id is not taken over, because every line of the call has it.
const CALL_ID_LENGTH_MAX: usize = 128;
/// Lines of one kind in a second, about calls that went wrong or were slow. When a database is
/// down all calls fail, and the log must not be the next thing to fail.
const LINES_A_SECOND_MAX: u32 = 10;

/// What all calls of a server share.
pub struct Observer {
    slow_threshold: Duration,
    in_flight: Gauge,
    methods: &'static MetricsByMethod,
    faults: LineLimit,
    unavailable: LineLimit,
    slow: LineLimit,
    denied: LineLimit,
}

/// A call under way. Dropped before its end, its caller has gone.
pub struct Call {
    observer: Arc<Observer>,
    method: &'static MethodMetrics,
    start: Instant,
    /// By which the log names it.
    pub names: Arc<CallNames>,
    /// Known from the answer on.
    pub identity: Option<Identity>,
    /// In which it is traced.
    pub trace: CallTrace,
    has_ended: bool,
}

impl Observer {
    /// Unary calls that take longer than `slow_threshold` are warned of.
    pub fn new(slow_threshold: Duration) -> Self {
        Self {
            slow_threshold,
            in_flight: gauge!("passbook_calls_in_flight"),
            methods: &METRICS_BY_METHOD,
            faults: LineLimit::default(),
            unavailable: LineLimit::default(),
            slow: LineLimit::default(),
            denied: LineLimit::default(),
        }
    }

    /// A call comes in.
    pub fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> Call {
        let (headers, extensions) = (request.headers(), request.extensions());
        let method = self.methods.of(request.uri().path());
        let given = headers.get(CALL_ID_HEADER).filter(|value| is_call_id(value));
        let call_id = given.cloned().unwrap_or_else(new_call_id);
        let peer = extensions.get::<Peer>().and_then(|peer| peer.address);
        let trace = CallTrace::begin(&method.name, headers, peer.map(|peer| peer.ip()));
        let trace_id = trace.trace_id().or_else(|| callers_trace_id(headers));
        let names = Arc::new(CallNames { method: &method.name, call_id, trace_id, peer });
        method.started.increment(1);
        self.in_flight.increment(1);
        let (observer, start) = (self.clone(), Instant::now());
        Call { observer, method, start, names, identity: None, trace, has_ended: false }
    }
}

impl Call {
    /// The call has ended, unless it had before.
    pub fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let elapsed = self.start.elapsed();
        self.method.handled(code).increment(1);
        self.method.seconds().record(elapsed);
        self.observer.in_flight.decrement(1);
        let call_id = self.names.call_id.to_str().unwrap_or_default();
        self.trace.end(name_in_capitals(code), is_fault_to_traces(code), call_id);
        self.log(code, elapsed);
    }

    /// One line: at error and warn what someone should look at, at info who was denied, at debug
    /// all else. Those above debug are limited.
    fn log(&self, code: Code, elapsed: Duration) {
        let _names = self.names.enter();
        let observer = &self.observer;
        let duration_ms = elapsed.as_micros() as f64 / 1000.0;
        let (identity, code_name) = (self.identity.as_ref().map(Identity::as_str), name(code));
        macro_rules! line {
            ($level:ident, $message:literal, $limit:expr) => {
                if let Some(suppressed) = $limit {
                    tracing::$level!(code = code_name, duration_ms, identity, suppressed, $message);
                }
            };
        }
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                line!(error, "call failed", observer.faults.take());
            }
            Code::Unavailable => line!(warn, "call failed", observer.unavailable.take()),
            _ if self.method.is_unary && elapsed > observer.slow_threshold => {
                line!(warn, "slow call", observer.slow.take());
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                line!(info, "call denied", observer.denied.take());
            }
            _ => tracing::debug!(code = code_name, duration_ms, identity, "call ended"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Printable, of bounded length; the rest could break a log or a header.
fn is_call_id(value: &HeaderValue) -> bool {
    let is_printable = |byte: &u8| (b' '..=b'~').contains(byte);
    (1..=CALL_ID_LENGTH_MAX).contains(&value.len()) && value.as_bytes().iter().all(is_printable)
}

fn new_call_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
    // Hexadecimal digits and hyphens are a value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// By OpenTelemetry's conventions for servers.
fn is_fault_to_traces(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Lets so many lines a second pass, and counts the others.
#[derive(Default)]
struct LineLimit(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    second: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LineLimit {
    /// None if there were enough in this second; else how many were suppressed since the last
    /// line.
    fn take(&self) -> Option<u64> {
        let mut lines = lock(&self.0);
        let is_over = |second: Instant| second.elapsed() >= Duration::from_secs(1);
        if lines.second.is_none_or(is_over) {
            lines.second = Some(Instant::now());
            lines.written = 0;
        }
        if lines.written == LINES_A_SECOND_MAX {
            lines.suppressed += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_some_pass_and_the_others_are_counted() {
        let limit = LineLimit::default();
        let passed = (0..LINES_A_SECOND_MAX + 5).filter_map(|_| limit.take()).count();
        assert_eq!(passed, LINES_A_SECOND_MAX as usize);
        lock(&limit.0).second = None;
        assert_eq!((limit.take(), limit.take()), (Some(5), Some(0)));
    }

    #[test]
    fn a_call_id_is_printable_and_not_long() {
        let is_one = |bytes: &[u8]| is_call_id(&HeaderValue::from_bytes(bytes).unwrap());
        assert!(is_one(b"checkout 7/a") && is_one(&[b'a'; 128]) && is_call_id(&new_call_id()));
        assert!(
            !is_one(b"") && !is_one(b"a\tb") && !is_one("ü".as_bytes()) && !is_one(&[b'a'; 129])
        );
    }
}
