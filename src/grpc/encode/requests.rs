//! The outcomes of requests by their records.

use crate::{
    domain::{rejection::Rejection, unit_of_work::RequestRecord},
    grpc::{
        encode::{holds::hold, transactions::transaction},
        error::StatusBuilder,
    },
    proto::{FenceRequestResponse, GetRequestOutcomeResponse, RequestOutcome},
};

/// Encodes the outcome of a request by its record. None: the ledger has no record.
pub fn outcome(record: Option<RequestRecord>) -> GetRequestOutcomeResponse {
    let mut response = GetRequestOutcomeResponse::default();
    let outcome = match record.map(|record| record.result) {
        None => RequestOutcome::NotSeen,
        Some(Err(Rejection::RequestFenced { .. })) => {
            response.fenced = true;
            RequestOutcome::NotSeen
        }
        Some(Err(rejection)) => {
            response.error = Some(StatusBuilder::from(rejection).into_proto());
            RequestOutcome::Rejected
        }
        Some(Ok(effects)) => {
            response.transaction = effects.transaction.as_deref().map(transaction);
            response.hold = effects.hold.as_deref().map(hold);
            RequestOutcome::Applied
        }
    };
    response.set_outcome(outcome);
    response
}

/// Encodes the outcome of a request that was to be fenced: by its record, or the fence's own.
pub fn fenced(record: RequestRecord) -> FenceRequestResponse {
    let GetRequestOutcomeResponse { outcome, transaction, hold, error, fenced } =
        outcome(Some(record));
    FenceRequestResponse { outcome, transaction, hold, error, fenced }
}
