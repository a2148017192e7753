//! Errors into statuses: code, reason, message, details, and what clients may rely on of them.
//!
//! Every error of this service is a [`StatusBuilder`] first. One file a source: `invalid` (the
//! shape of a request), `rejection` (the state of the ledger), `failure` (no result), `limit` (shed
//! or too large), `transport` (what tonic or a panic would answer). Nothing is counted or logged
//! here but a panic.

mod failure;
mod invalid;
mod limit;
mod rejection;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;

pub use crate::grpc::error::{
    limit::{call_shed, request_too_large, response_too_large},
    transport::{panic_response, remap_protocol_errors, waiting_for_database},
};
use crate::proto::ErrorReason;

/// The domain of ErrorInfo.
const DOMAIN: &str = "passbook";

/// `google.rpc.ErrorInfo` with sorted metadata: the same error is always the same bytes, which the
/// hash map of tonic-types would not give.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// An error, before it is encoded.
#[derive(Debug)]
pub struct StatusBuilder {
    code: Code,
    /// The reason of ErrorInfo.
    pub reason: ErrorReason,
    message: String,
    /// The metadata of ErrorInfo.
    metadata: BTreeMap<String, String>,
    /// Further details, in their order.
    details: Vec<prost_types::Any>,
}

impl StatusBuilder {
    /// Whether the request was applied: `not_applied`, `unknown`, or None where the error is final.
    pub fn outcome(&self) -> Option<&str> {
        self.metadata.get("outcome").map(String::as_str)
    }

    /// The error of a call.
    pub fn into_status(self) -> Status {
        let status = self.into_proto();
        let details = status.encode_to_vec().into();
        Status::with_details(Code::from_i32(status.code), status.message, details)
    }

    /// The error of one request of several, in a message.
    pub fn into_proto(self) -> pb::Status {
        let info = ErrorInfo {
            reason: reason_name(self.reason).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: self.metadata,
        };
        let mut details = vec![detail("ErrorInfo", &info)];
        details.extend(self.details);
        pb::Status { code: self.code as i32, message: self.message, details }
    }
}

/// A reason as it stands in ErrorInfo: without the prefix of the enum.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// A detail of `google.rpc`.
fn detail(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}
