//! The methods that the server has: the contract's, and those of health and reflection.

use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

/// `AccountService`, by its full name.
pub const ACCOUNT_SERVICE: &str = "passbook.v1.AccountService";
/// `AdminService`, by its full name.
pub const ADMIN_SERVICE: &str = "passbook.v1.AdminService";

/// All methods, from the descriptors that reflection serves, so that none is forgotten.
pub static METHODS: LazyLock<Vec<Method>> = LazyLock::new(read);

/// One method.
#[derive(Debug)]
pub struct Method {
    /// `passbook.v1.AccountService`
    pub service: String,
    /// `Deposit`
    pub name: String,
    /// The caller may send any number of messages.
    pub client_streaming: bool,
    /// The server may send any number of messages.
    pub server_streaming: bool,
}

impl Method {
    /// The path of its HTTP/2 requests: `/passbook.v1.AccountService/Deposit`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }
}

fn read() -> Vec<Method> {
    let descriptors = [
        super::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = Vec::new();
    // This crate's build and tonic's made them: they can be read.
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
