//! The metrics of each method.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

use metrics::{Counter, Histogram, counter, histogram};
use tonic::Code;

use crate::proto::methods::{METHODS, Method};

/// The metrics of all methods. First used when a server starts, after metrics are installed.
pub static METRICS_BY_METHOD: LazyLock<MetricsByMethod> = LazyLock::new(MetricsByMethod::of_all);

/// The number of codes. The values of [`Code`] begin at 0, without a gap.
const CODES: usize = 17;

/// The metrics of all methods, by path.
pub struct MetricsByMethod {
    by_path: HashMap<String, MethodMetrics>,
    /// One entry for all paths that are no method: callers can invent any number of paths.
    unknown: MethodMetrics,
}

/// The metrics of one method.
pub struct MethodMetrics {
    /// `passbook.v1.AccountService/Deposit`
    pub name: String,
    /// None: for all paths that are no method.
    method: Option<&'static Method>,
    labels: [(&'static str, String); 3],
    /// Counts the calls that have begun.
    pub started: Counter,
    seconds: OnceLock<Histogram>,
    handled: [OnceLock<Counter>; CODES],
}

impl MetricsByMethod {
    /// The metrics of the method with this path.
    pub fn of(&self, path: &str) -> &MethodMetrics {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }

    fn of_all() -> Self {
        let by_path =
            METHODS.iter().map(|method| (method.path(), MethodMetrics::new(Some(method))));
        Self { by_path: by_path.collect(), unknown: MethodMetrics::new(None) }
    }
}

/// The value of the label `grpc_type`, as grpc-ecosystem/go-grpc-middleware names the kinds.
fn kind(method: &Method) -> &'static str {
    match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

impl MethodMetrics {
    fn new(method: Option<&'static Method>) -> Self {
        let unknown = "unknown";
        let (name, kind, service, method_name) = match method {
            Some(method) => {
                let (service, name) = (method.service.as_str(), method.name.as_str());
                (format!("{service}/{name}"), kind(method), service, name)
            }
            None => (unknown.to_owned(), unknown, unknown, unknown),
        };
        let labels = [
            ("grpc_type", kind.to_owned()),
            ("grpc_service", service.to_owned()),
            ("grpc_method", method_name.to_owned()),
        ];
        Self {
            name,
            method,
            started: counter!("grpc_server_started_total", &labels),
            labels,
            // Created at the first call: a histogram is many series, and most methods are never called.
            seconds: OnceLock::new(),
            handled: Default::default(),
        }
    }

    /// Whether its calls have one request message and one response message.
    pub fn is_unary(&self) -> bool {
        self.method.is_some_and(Method::is_unary)
    }

    /// The durations of calls, in seconds.
    pub fn seconds(&self) -> &Histogram {
        self.seconds.get_or_init(|| histogram!("grpc_server_handling_seconds", &self.labels))
    }

    /// Counts the calls that ended with this code.
    pub fn handled(&self, code: Code) -> &Counter {
        // tonic's type has no greater code; the bound avoids a panic all the same.
        let counter = &self.handled[(code as usize).min(CODES - 1)];
        counter.get_or_init(|| {
            let [kind, service, method] = self.labels.clone();
            let labels = [kind, service, method, ("grpc_code", name(code).to_owned())];
            counter!("grpc_server_handled_total", &labels)
        })
    }
}

/// The name of a code as gRPC for Go prints it, which dashboards expect: `NotFound`.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The name of a code as gRPC's specification and OpenTelemetry write it: `NOT_FOUND`.
pub fn uppercase_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
