//! Requests that are invalid by their shape.

use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    grpc::{
        decode::{Invalid, Violation},
        error::{StatusBuilder, detail},
    },
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// Violations in one error. Details travel in a header, and headers are small.
const VIOLATIONS_MAX: usize = 16;

impl From<Invalid> for StatusBuilder {
    fn from(Invalid(violations): Invalid) -> Self {
        let Some(first) = violations.first().cloned() else {
            // `Decoder::finish` gets None only where a field is wrong.
            return Self::from(&Error::Internal(Some(Outcome::NotApplied)));
        };
        let code = match first.reason {
            ErrorReason::BalanceOutOfRange => Code::OutOfRange,
            _ => Code::InvalidArgument,
        };
        Self {
            code,
            reason: first.reason,
            message: format!("{} {}", first.field, first.description),
            metadata: [("field", Some(first.field)), ("limit", first.limit)]
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
            details: vec![bad_request(violations)],
        }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        StatusBuilder::from(invalid).into_status()
    }
}

/// BadRequest with the first violations, and the number of the others.
pub fn bad_request(violations: Vec<Violation>) -> prost_types::Any {
    let more = violations.len().saturating_sub(VIOLATIONS_MAX);
    let last = (more > 0).then(|| pb::bad_request::FieldViolation {
        description: format!("and {more} more"),
        ..pb::bad_request::FieldViolation::default()
    });
    let field_violations = violations
        .into_iter()
        .take(VIOLATIONS_MAX)
        .map(|violation| pb::bad_request::FieldViolation {
            field: violation.field,
            description: violation.description,
            ..pb::bad_request::FieldViolation::default()
        })
        .chain(last)
        .collect();
    detail("BadRequest", &pb::BadRequest { field_violations })
}
