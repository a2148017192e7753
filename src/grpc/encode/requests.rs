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
pub fn outcome(record: Option<RequestRecord>) -> proto::GetRequestOutcomeResponse {
    use proto::RequestOutcome as Outcome;
    let of = |outcome: Outcome| proto::GetRequestOutcomeResponse {
        outcome: outcome.into(),
        ..proto::GetRequestOutcomeResponse::default()
    };
    match record.map(|record| record.result) {
        None => of(Outcome::NotSeen),
        Some(Err(Rejection::RequestFenced { .. })) => {
            proto::GetRequestOutcomeResponse { fenced: true, ..of(Outcome::NotSeen) }
        }
        Some(Err(rejection)) => {
            let error = Some(StatusBuilder::from(&rejection).into_proto());
            proto::GetRequestOutcomeResponse { error, ..of(Outcome::Rejected) }
        }
        Some(Ok(effects)) => proto::GetRequestOutcomeResponse {
            transaction: effects.transaction.map(|it| transaction(&it)),
            hold: effects.hold.map(|it| hold(&it)),
            ..of(Outcome::Applied)
        },
    }
}

/// Encodes the outcome of a request that was to be fenced: by its record, or the fence's own.
pub fn fenced(record: RequestRecord) -> proto::FenceRequestResponse {
    let proto::GetRequestOutcomeResponse { outcome, transaction, hold, error, fenced } =
        outcome(Some(record));
    proto::FenceRequestResponse { outcome, transaction, hold, error, fenced }
}
