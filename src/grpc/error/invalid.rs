//! Requests of invalid shape.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    grpc::error::{StatusBuilder, detail},
    ledger::{Error, Outcome},
    proto::ErrorReason,
};

/// The most violations in one error. Details travel in a header, and headers are small.
const VIOLATIONS_MAX: usize = 16;

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The reason of the error, if this violation decides.
    pub reason: ErrorReason,
    /// The field's path in the request, such as `legs[2].amount`.
    pub field: String,
    /// What the field must be. Reads on after its path: "must not be zero".
    pub description: String,
    /// The limit that a size crossed.
    pub limit: Option<String>,
}

/// A request of invalid shape: one violation or more, the decisive one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<Violation>);

impl Violation {
    /// A violation without a limit.
    pub fn new(reason: ErrorReason, field: impl fmt::Display, description: impl ToString) -> Self {
        let description = description.to_string();
        Self { reason, field: field.to_string(), description, limit: None }
    }
}

impl Invalid {
    /// A request with a single violation.
    pub fn new(reason: ErrorReason, field: impl fmt::Display, description: impl ToString) -> Self {
        Self(vec![Violation::new(reason, field, description)])
    }
}

impl From<Invalid> for StatusBuilder {
    fn from(Invalid(violations): Invalid) -> Self {
        let Some(first) = violations.first().cloned() else {
            // A defect: a decoder finished with neither a result nor a violation.
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

/// The detail with the first violations, and the number of the others.
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
