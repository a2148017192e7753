//! Requests of invalid shape.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    grpc::error::StatusBuilder,
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

    /// A request with these violations, which are in the order of its fields.
    pub fn of(mut violations: Vec<Violation>) -> Self {
        // The sort is stable: fields with the same reason stay in their order.
        violations.sort_by_key(|violation| violation.reason as i32);
        Self(violations)
    }

    /// A request with the violations of both. Those of `other` come first among equal reasons.
    #[must_use]
    pub fn and(self, mut other: Self) -> Self {
        other.0.extend(self.0);
        Self::of(other.0)
    }
}

impl From<Invalid> for StatusBuilder {
    fn from(Invalid(violations): Invalid) -> Self {
        let Some(first) = violations.first() else {
            // A defect: a decoder ended with neither a result nor a violation.
            return Self::from(Error::Internal(Some(Outcome::NotApplied)));
        };
        let code = match first.reason {
            ErrorReason::BalanceOutOfRange | ErrorReason::EffectiveTimeOutOfRange => {
                Code::OutOfRange
            }
            _ => Code::InvalidArgument,
        };
        let message = format!("{} {}", first.field, first.description);
        let mut status = Self::new(code, first.reason, message).with("field", &first.field);
        if let Some(limit) = &first.limit {
            status = status.with("limit", limit);
        }
        status.with_detail("BadRequest", &bad_request(violations))
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        StatusBuilder::from(invalid).into()
    }
}

/// The first violations, and the number of the others.
pub fn bad_request(mut violations: Vec<Violation>) -> pb::BadRequest {
    let more = violations.len().saturating_sub(VIOLATIONS_MAX);
    violations.truncate(VIOLATIONS_MAX);
    let violations = violations.into_iter().map(|it| (it.field, it.description));
    let last = (more > 0).then(|| (String::new(), format!("and {more} more")));
    let encoded = violations.chain(last).map(|(field, description)| {
        let (reason, localized_message) = (String::new(), None);
        pb::bad_request::FieldViolation { field, description, reason, localized_message }
    });
    pb::BadRequest { field_violations: encoded.collect() }
}
