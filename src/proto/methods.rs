//! The list of all methods: those of the contract, of health and of reflection.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message;
use prost_types::FileDescriptorSet;

/// The full name of AccountService.
pub const ACCOUNT_SERVICE: &str = "passbook.v1.AccountService";
/// The full name of AdminService.
pub const ADMIN_SERVICE: &str = "passbook.v1.AdminService";

/// The beginnings of the names of methods that change nothing.
const READ_PREFIXES: [&str; 6] = ["Get", "BatchGet", "List", "Sum", "Watch", "Verify"];

/// All methods, read from the descriptors that reflection serves, so that none is missing.
pub static METHODS: LazyLock<Vec<Method>> = LazyLock::new(read);
static METHODS_BY_PATH: LazyLock<HashMap<String, &'static Method>> =
    LazyLock::new(|| METHODS.iter().map(|method| (method.path(), method)).collect());

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// The full name of the service: `passbook.v1.AccountService`.
    pub service: String,
    /// The name in the service: `Deposit`.
    pub name: String,
    /// The caller may send any number of messages.
    pub client_streaming: bool,
    /// The server may send any number of messages.
    pub server_streaming: bool,
}

/// The method whose HTTP/2 requests have this path; None if there is none.
#[must_use]
pub fn of_path(path: &str) -> Option<&'static Method> {
    METHODS_BY_PATH.get(path).copied()
}

impl Method {
    /// Whether it has one request message and one response message.
    #[must_use]
    pub fn is_unary(&self) -> bool {
        self.has_one_request() && !self.server_streaming
    }

    /// Whether it has one request message.
    #[must_use]
    pub fn has_one_request(&self) -> bool {
        !self.client_streaming
    }

    /// Whether it changes nothing, which its name says.
    #[must_use]
    pub fn is_read(&self) -> bool {
        READ_PREFIXES.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// The path of the method's HTTP/2 requests: `/passbook.v1.AccountService/Deposit`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }
}

fn read() -> Vec<Method> {
    let descriptors = [
        crate::proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = Vec::new();
    // Decoding cannot fail: the builds of this crate and of tonic wrote the descriptors.
    for set in descriptors.iter().filter_map(|bytes| FileDescriptorSet::decode(*bytes).ok()) {
        for file in set.file {
            for service in &file.service {
                methods.extend(service.method.iter().map(|method| Method {
                    service: format!("{}.{}", file.package(), service.name()),
                    name: method.name().to_owned(),
                    client_streaming: method.client_streaming(),
                    server_streaming: method.server_streaming(),
                }));
            }
        }
    }
    methods
}
