//! The methods that there are, and the metrics of each.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

use metrics::{Counter, Histogram, counter, histogram};
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::proto;

/// All methods, by path. Made when a server starts, which is after metrics are set up.
pub static METHODS: LazyLock<Methods> = LazyLock::new(Methods::read);

/// Values of [`Code`], from 0 on.
const CODES: usize = 17;

/// What is known of methods.
pub struct Methods {
    by_path: HashMap<String, Method>,
    /// All others together: whoever calls can make up as many as they like.
    unknown: Method,
}

/// One method, and what is counted of it.
pub struct Method {
    /// `passbook.v1.AccountService/Deposit`
    pub name: String,
    /// One request, one answer.
    pub is_unary: bool,
    labels: [(&'static str, String); 3],
    /// Calls that came in.
    pub started: Counter,
    seconds: OnceLock<Histogram>,
    handled: [OnceLock<Counter>; CODES],
}

impl Methods {
    /// The method with this path.
    pub fn of(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }

    /// Whether there is a method with this path.
    pub fn contain(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// From the descriptors that reflection serves, so that none is forgotten.
    fn read() -> Self {
        let descriptors = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        // They are made by this crate's build or by tonic's, and can be read.
        for file in descriptors.iter().filter_map(|it| FileDescriptorSet::decode(*it).ok()) {
            for file in file.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let path = format!("/{service_name}/{}", method.name());
                        let method = Method::new(kind(method), &service_name, method.name());
                        by_path.insert(path, method);
                    }
                }
            }
        }
        Self { by_path, unknown: Method::new("unknown", "unknown", "unknown") }
    }
}

/// By the names of grpc-ecosystem/go-grpc-middleware, which dashboards expect.
fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

impl Method {
    fn new(kind: &str, service: &str, method: &str) -> Self {
        let labels = [
            ("grpc_type", kind.to_owned()),
            ("grpc_service", service.to_owned()),
            ("grpc_method", method.to_owned()),
        ];
        let name = match kind {
            "unknown" => method.to_owned(),
            _ => format!("{service}/{method}"),
        };
        Self {
            name,
            is_unary: kind == "unary",
            started: counter!("grpc_server_started_total", &labels),
            labels,
            // Most methods are never called, and a histogram is many series.
            seconds: OnceLock::new(),
            handled: Default::default(),
        }
    }

    /// How long calls took.
    pub fn seconds(&self) -> &Histogram {
        self.seconds.get_or_init(|| histogram!("grpc_server_handling_seconds", &self.labels))
    }

    /// Calls that ended with this code.
    pub fn handled(&self, code: Code) -> &Counter {
        // There is no code beyond, by tonic's type.
        let counter = &self.handled[(code as usize).min(CODES - 1)];
        counter.get_or_init(|| {
            let [kind, service, method] = self.labels.clone();
            let labels = [kind, service, method, ("grpc_code", name(code).to_owned())];
            counter!("grpc_server_handled_total", &labels)
        })
    }
}

/// As gRPC's libraries for Go print it, which is what dashboards expect.
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

/// As the specification of gRPC writes it, and OpenTelemetry after it.
pub fn name_in_capitals(code: Code) -> &'static str {
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
