//! The results of requests, and the outcomes by their records.

use crate::{
    domain::{
        rejection::Rejection,
        unit_of_work::{RequestRecord, RequestResult},
    },
    grpc::{
        encode::{holds::hold, transactions::transaction},
        error::StatusBuilder,
    },
    proto,
};

impl From<RequestResult> for proto::DepositResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::WithdrawResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::TransferResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::PostTransactionResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::ReverseTransactionResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::PlaceHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { hold: effects.hold.map(|it| hold(&it)), replayed }
    }
}

impl From<RequestResult> for proto::ReleaseHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { hold: effects.hold.map(|it| hold(&it)), replayed }
    }
}

impl From<RequestResult> for proto::CaptureHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self {
            transaction: effects.transaction.map(|it| transaction(&it)),
            hold: effects.hold.map(|it| hold(&it)),
            replayed,
        }
    }
}

/// Encodes the outcome of a request by its record. None: the ledger has no record.
pub fn outcome(record: Option<RequestRecord>) -> proto::ResolveRequestResponse {
    use proto::RequestOutcome as Outcome;
    let of = |outcome: Outcome| proto::ResolveRequestResponse {
        outcome: outcome.into(),
        ..proto::ResolveRequestResponse::default()
    };
    match record.map(|record| record.result) {
        None => of(Outcome::NotSeen),
        Some(Err(Rejection::RequestFenced { .. })) => {
            proto::ResolveRequestResponse { fenced: true, ..of(Outcome::NotSeen) }
        }
        Some(Err(rejection)) => {
            let error = Some(StatusBuilder::from(&rejection).into_proto());
            proto::ResolveRequestResponse { error, ..of(Outcome::Rejected) }
        }
        Some(Ok(effects)) => proto::ResolveRequestResponse {
            transaction: effects.transaction.map(|it| transaction(&it)),
            hold: effects.hold.map(|it| hold(&it)),
            ..of(Outcome::Applied)
        },
    }
}
