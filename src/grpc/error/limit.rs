//! Errors of calls that are shed, and of messages that are too large.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    grpc::error::{StatusBuilder, detail},
    proto::ErrorReason,
};

/// The error of a call that is shed. `limit` is the limit's name, `max` its value.
pub fn call_shed(limit: &str, max: u32, message: String, retry_delay: Duration) -> Status {
    let metadata = [
        ("outcome", "not_applied".to_owned()),
        ("limit", limit.to_owned()),
        ("max", max.to_string()),
    ];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    let details = vec![retry_info(retry_delay)];
    let (code, reason) = (Code::ResourceExhausted, ErrorReason::Overloaded);
    StatusBuilder { code, reason, message, metadata, details }.into_status()
}

/// The error of a request, or of its headers, beyond the setting with this name.
pub fn request_too_large(setting: &str, max: u32, message: String) -> Status {
    too_large(ErrorReason::RequestTooLarge, setting, max, message, Some("not_applied"))
}

/// The error of a query whose response would have more than `max` bytes.
pub fn response_too_large(max: u32, message: String) -> Status {
    too_large(ErrorReason::ResponseTooLarge, "response_size", max, message, None)
}

fn too_large(
    reason: ErrorReason,
    limit: &str,
    max: u32,
    message: String,
    outcome: Option<&str>,
) -> Status {
    let metadata = [("limit", Some(limit)), ("max", Some(&max.to_string())), ("outcome", outcome)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    StatusBuilder { code: Code::ResourceExhausted, reason, message, metadata, details: vec![] }
        .into_status()
}

/// The detail that says when to retry.
pub fn retry_info(delay: Duration) -> prost_types::Any {
    let retry_delay = prost_types::Duration {
        // No delay of this server is longer than a second.
        seconds: delay.as_secs() as i64,
        nanos: delay.subsec_nanos() as i32,
    };
    detail("RetryInfo", &pb::RetryInfo { retry_delay: Some(retry_delay) })
}
