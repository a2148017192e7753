//! The record of one call, from its headers to its status: metrics, log line, trace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use metrics::{Gauge, gauge};
use tonic::Code;
use uuid::Uuid;

use crate::{
    audit::{self, AuditLog, Credential, Origin},
    auth::{Authenticator, Peer},
    domain::ids::Identity,
    grpc::middleware::telemetry::methods::{
        METRICS_BY_METHOD, MethodMetrics, MetricsByMethod, name, uppercase_name,
    },
    lock::lock,
    telemetry::{
        log::CallFields,
        traces::{CallTrace, callers_trace_id},
    },
};

/// The header with the id of a call, in the request and in the response.
pub const CALL_ID_HEADER: &str = "x-request-id";
/// A longer id is not taken over, because every line of the call has it.
const CALL_ID_LENGTH_MAX: usize = 128;
/// Log lines of one kind a second, for calls that failed or were slow. When a database is down, all
/// calls fail, and the log must not fail as well. For denied calls, the lines of one caller and code.
const LINES_A_SECOND_MAX: u32 = 10;
/// Callers and codes with a limit of their own on the lines of denied calls. The identities of a
/// policy are fewer, as a rule.
const LIMITED_CALLERS_MAX: usize = 1000;

/// Records the calls of a server.
pub struct CallRecorder {
    slow_threshold: Duration,
    authenticator: Arc<Authenticator>,
    in_flight: Gauge,
    methods: &'static MetricsByMethod,
    faults: LogRateLimit,
    unavailable: LogRateLimit,
    slow: LogRateLimit,
    denied: DeniedLogRateLimit,
    audit: Option<Arc<AuditLog>>,
}

/// A call in flight. Dropping it before its end records that the caller canceled it.
pub struct Call {
    recorder: Arc<CallRecorder>,
    method: &'static MethodMetrics,
    start: Instant,
    /// The fields of its log lines.
    pub fields: Arc<CallFields>,
    /// The caller's identity; set with the response.
    pub identity: Option<Identity>,
    /// Whether the policy allows the identity anything; set with the response.
    pub has_rights: bool,
    /// Its trace.
    pub trace: CallTrace,
    audit: Option<Arc<audit::Call>>,
    has_ended: bool,
}

impl CallRecorder {
    /// A recorder that logs unary calls longer than `slow_threshold` at WARN, and records denials in
    /// the audit log.
    pub fn new(
        slow_threshold: Duration,
        authenticator: Arc<Authenticator>,
        audit: Option<Arc<AuditLog>>,
    ) -> Self {
        Self {
            slow_threshold,
            authenticator,
            in_flight: gauge!("passbook_calls_in_flight"),
            methods: &METRICS_BY_METHOD,
            faults: LogRateLimit::default(),
            unavailable: LogRateLimit::default(),
            slow: LogRateLimit::default(),
            denied: DeniedLogRateLimit::default(),
            audit,
        }
    }

    /// Starts the record of a call. The call in the audit log is attached to the request.
    pub fn begin<B>(self: &Arc<Self>, request: &mut Request<B>) -> Call {
        let (headers, extensions) = (request.headers(), request.extensions());
        let method = self.methods.of(request.uri().path());
        let given = headers.get(CALL_ID_HEADER).filter(|value| is_call_id(value));
        let call_id = given.cloned().unwrap_or_else(new_call_id);
        let peer = extensions.get::<Peer>();
        let audit = self.audit.as_ref().map(|log| {
            let certificate = peer.and_then(|it| it.certificate.as_ref());
            let origin = Origin {
                method: &method.name,
                is_unary: method.is_unary(),
                peer: peer.and_then(|it| it.address),
                credential: Credential::of(headers, certificate.map(|it| it.sha256)),
            };
            Arc::new(audit::Call::new(log.clone(), origin))
        });
        let is_identified = || self.authenticator.identifies(peer, headers.get(AUTHORIZATION));
        let peer = peer.and_then(|peer| peer.address);
        let address = peer.map(|peer| peer.ip());
        let trace = CallTrace::begin(&method.name, headers, is_identified, address);
        let trace_id = trace.trace_id().or_else(|| callers_trace_id(headers));
        let fields = Arc::new(CallFields { method: &method.name, call_id, trace_id, peer });
        if let Some(audit) = audit.clone() {
            request.extensions_mut().insert(audit);
        }
        method.started.increment(1);
        self.in_flight.increment(1);
        let (recorder, start) = (self.clone(), Instant::now());
        Call {
            recorder,
            method,
            start,
            fields,
            identity: None,
            has_rights: true,
            trace,
            audit,
            has_ended: false,
        }
    }
}

impl Call {
    /// Ends the record with the code of the call. Later calls of `end` do nothing.
    pub fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let elapsed = self.start.elapsed();
        self.method.handled(code).increment(1);
        self.method.seconds().record(elapsed);
        self.recorder.in_flight.decrement(1);
        let call_id = self.fields.call_id.to_str().unwrap_or_default();
        self.trace.end(uppercase_name(code), is_fault_to_traces(code), call_id);
        self.log(code, elapsed);
        if let (Some(audit), Some(reason)) = (&self.audit, denial(code)) {
            let anonymous = Identity::anonymous();
            let identity = self.identity.as_ref().unwrap_or(&anonymous);
            audit.end_denied(identity, self.has_rights, reason);
        }
    }

    /// Writes the line of the call. docs/logging.md has the levels. Lines above DEBUG have a rate
    /// limit.
    fn log(&self, code: Code, elapsed: Duration) {
        let _fields = self.fields.enter();
        let recorder = &self.recorder;
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
                line!(error, "call failed", recorder.faults.take());
            }
            Code::Unavailable => line!(warn, "call failed", recorder.unavailable.take()),
            _ if self.method.is_unary() && elapsed > recorder.slow_threshold => {
                line!(warn, "slow call", recorder.slow.take());
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                let limited = self.identity.as_ref().filter(|_| self.has_rights);
                line!(info, "call denied", recorder.denied.take(limited, code));
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

/// The reason of a denial in the audit log; None if the call was not denied.
fn denial(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some("unauthenticated"),
        Code::PermissionDenied => Some("permission_denied"),
        _ => None,
    }
}

/// Whether a caller's id is printable and short: another one could break a log or a header.
fn is_call_id(value: &HeaderValue) -> bool {
    let is_printable = |byte: &u8| (b' '..=b'~').contains(byte);
    (1..=CALL_ID_LENGTH_MAX).contains(&value.len()) && value.as_bytes().iter().all(is_printable)
}

fn new_call_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
    // Hexadecimal digits and hyphens are always a valid value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Whether a code sets the status of a server's span to error, by OpenTelemetry's conventions.
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

/// Passes `LINES_A_SECOND_MAX` lines a second, and counts the suppressed ones.
#[derive(Default)]
struct LogRateLimit(Mutex<LogWindow>);

impl LogRateLimit {
    /// Takes a permit, as [`LogWindow::take`] does.
    fn take(&self) -> Option<u64> {
        lock(&self.0).take()
    }
}

/// The same for each caller and code, so that the noise of one caller hides no other. All callers
/// without an identity, or without any right, share one limit: there can be any number of them.
#[derive(Default)]
struct DeniedLogRateLimit(Mutex<HashMap<CallerAndCode, LogWindow>>);

type CallerAndCode = (Option<Identity>, Code);

impl DeniedLogRateLimit {
    /// Takes a permit, as [`LogWindow::take`] does.
    fn take(&self, identity: Option<&Identity>, code: Code) -> Option<u64> {
        let mut windows = lock(&self.0);
        let key = (identity.cloned(), code);
        if windows.len() >= LIMITED_CALLERS_MAX && !windows.contains_key(&key) {
            windows.retain(|_, window| !window.is_over());
        }
        let has_room = windows.len() < LIMITED_CALLERS_MAX || windows.contains_key(&key);
        windows.entry(if has_room { key } else { (None, code) }).or_default().take()
    }
}

#[derive(Default)]
struct LogWindow {
    /// The start of the current second.
    start: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LogWindow {
    /// Takes a permit for one line. Returns how many lines were suppressed since the last one, or
    /// None if this line must be suppressed.
    fn take(&mut self) -> Option<u64> {
        if self.is_over() {
            self.start = Some(Instant::now());
            self.written = 0;
        }
        if self.written == LINES_A_SECOND_MAX {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    fn is_over(&self) -> bool {
        self.start.is_none_or(|start| start.elapsed() >= Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_beyond_the_rate_are_suppressed_and_counted() {
        let limit = LogRateLimit::default();
        let passed = (0..LINES_A_SECOND_MAX + 5).filter_map(|_| limit.take()).count();
        assert_eq!(passed, LINES_A_SECOND_MAX as usize);
        lock(&limit.0).start = None;
        assert_eq!((limit.take(), limit.take()), (Some(5), Some(0)));
    }

    #[test]
    fn the_noise_of_one_caller_suppresses_no_line_of_another() {
        let limit = DeniedLogRateLimit::default();
        let (code, a) = (Code::PermissionDenied, Identity::from_stored("a"));
        let noise = (0..1000).filter(|_| limit.take(None, code).is_some()).count();
        assert_eq!(noise, LINES_A_SECOND_MAX as usize);
        assert_eq!(limit.take(Some(&a), code), Some(0));
        for number in 0..LIMITED_CALLERS_MAX * 2 {
            limit.take(Some(&Identity::from_stored(&number.to_string())), code);
        }
        assert!(lock(&limit.0).len() <= LIMITED_CALLERS_MAX + 1);
        let late = Identity::from_stored("late");
        limit.take(Some(&late), code);
        let has_window = || lock(&limit.0).contains_key(&(Some(late.clone()), code));
        assert!(!has_window(), "there is no room");
        lock(&limit.0).values_mut().for_each(|window| window.start = None);
        limit.take(Some(&late), code);
        assert!(has_window(), "windows that are over make room");
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
