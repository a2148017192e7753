//! What is too much or too large.

use std::time::Duration;

use tonic::{Code, Status};

use crate::{
    grpc::error::{Parts, retry_info},
    proto::ErrorReason,
};

/// The answer to a call beyond one of the limits on calls.
pub fn of_limit(limit: &str, max: u32, message: String, retry_delay: Duration) -> Status {
    let metadata = [
        ("outcome", "not_applied".to_owned()),
        ("limit", limit.to_owned()),
        ("max", max.to_string()),
    ];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    let details = vec![retry_info(retry_delay)];
    let (code, reason) = (Code::ResourceExhausted, ErrorReason::Overloaded);
    Parts { code, reason, message, metadata, details }.into_status()
}

/// The answer to a call of which there is more than this setting allows.
pub fn request_too_large(setting: &str, max: u32, message: String) -> Status {
    too_large(ErrorReason::RequestTooLarge, setting, max, message, Some("not_applied"))
}

/// The answer to a read whose answer would have more than `max` bytes.
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
    Parts { code: Code::ResourceExhausted, reason, message, metadata, details: vec![] }
        .into_status()
}
