//! Calls that are shed, and messages that are too large.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    grpc::error::{StatusBuilder, detail},
    proto::ErrorReason,
};

/// A call beyond one of the limits on calls.
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

/// A request, or its headers, beyond this setting.
pub fn request_too_large(setting: &str, max: u32, message: String) -> Status {
    too_large(ErrorReason::RequestTooLarge, setting, max, message, Some("not_applied"))
}

/// A read whose response would have more than `max` bytes.
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

/// Advises when to try again.
pub fn retry_info(delay: Duration) -> prost_types::Any {
    let retry_delay = prost_types::Duration {
        // A second at most.
        seconds: delay.as_secs() as i64,
        nanos: delay.subsec_nanos() as i32,
    };
    detail("RetryInfo", &pb::RetryInfo { retry_delay: Some(retry_delay) })
}
