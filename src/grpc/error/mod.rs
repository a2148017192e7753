//! Maps errors to statuses: code, reason, message and details. docs/reference/errors.md has the list
//! on which clients rely.
//!
//! Every error of this service is a [`StatusBuilder`] first. One file for each source: [`invalid`]
//! (the shape of a request), `rejection` (the state of the ledger), `no_result` (errors of the
//! ledger and of authentication), `limit` (shed calls, too large messages), `transport` (errors of
//! tonic, panics). Errors are counted by the service, not here.

pub mod invalid;
mod limit;
mod no_result;
mod rejection;
#[cfg(test)]
mod tests;
mod transport;

use std::{collections::BTreeMap, time::Duration};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;

pub use crate::grpc::error::{
    limit::{overloaded, request_too_large, response_too_large},
    transport::{
        into_trailers, name_reason, name_reason_in_trailers, panic_response, waiting_for_database,
    },
};
use crate::{ledger::Outcome, proto::ErrorReason};

/// The value of `domain` in ErrorInfo.
const DOMAIN: &str = "passbook";

/// `google.rpc.ErrorInfo` with sorted metadata, so that equal errors have equal bytes. tonic-types
/// uses a hash map.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// An error before it is encoded as a status.
#[derive(Debug)]
pub struct StatusBuilder {
    code: Code,
    /// The reason of ErrorInfo.
    pub reason: ErrorReason,
    message: String,
    /// The metadata of ErrorInfo.
    metadata: BTreeMap<String, String>,
    /// The details after ErrorInfo.
    details: Vec<prost_types::Any>,
}

impl StatusBuilder {
    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        let (metadata, details) = (BTreeMap::new(), Vec::new());
        Self { code, reason, message: message.into(), metadata, details }
    }

    /// Adds a value to the metadata.
    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds the outcome of a change. That of a read says nothing: see the contract.
    fn with_outcome(self, outcome: Option<Outcome>) -> Self {
        match outcome {
            None => self,
            Some(outcome) => self.with("outcome", outcome.name()),
        }
    }

    /// Adds a detail of the package `google.rpc`.
    fn with_detail(mut self, name: &str, message: &impl Message) -> Self {
        self.details.push(packed(name, message));
        self
    }

    /// Adds the delay after which a retry makes sense.
    fn with_retry(self, delay: Duration) -> Self {
        let retry_delay = prost_types::Duration {
            // A batch that exceeds the rate of calls has the longest: at most a second for each request.
            seconds: delay.as_secs() as i64,
            nanos: delay.subsec_nanos() as i32,
        };
        self.with_detail("RetryInfo", &pb::RetryInfo { retry_delay: Some(retry_delay) })
    }

    /// The outcome of the request: `not_applied`, `unknown`, or None for a final error.
    pub fn outcome(&self) -> Option<&str> {
        self.metadata.get("outcome").map(String::as_str)
    }

    /// Encodes the error of one request among several, for a field of a message.
    pub fn into_proto(self) -> pb::Status {
        let info = ErrorInfo {
            reason: reason_name(self.reason).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: self.metadata,
        };
        let mut details = vec![packed("ErrorInfo", &info)];
        details.extend(self.details);
        pb::Status { code: self.code as i32, message: self.message, details }
    }
}

/// The error of a call.
impl From<StatusBuilder> for Status {
    fn from(builder: StatusBuilder) -> Self {
        let status = builder.into_proto();
        let details = status.encode_to_vec().into();
        Self::with_details(Code::from_i32(status.code), status.message, details)
    }
}

/// The name of a reason in ErrorInfo: without the prefix of the enum's values.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

fn packed(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}
