//! The outcomes of requests: by their records, and as results of batches and streams.

use tonic_types::pb;

use crate::{
    domain::{
        rejection::Rejection,
        unit_of_work::{RequestRecord, RequestResult},
    },
    grpc::{
        encode::{holds::hold, transactions::transaction},
        error::StatusBuilder,
    },
    proto::{
        self, FenceRequestResponse, GetRequestOutcomeResponse, PostTransactionResult,
        RequestOutcome, StreamedResult, post_transaction_result,
    },
};

/// Makes responses of what an applied request has left behind, and of whether it was repeated.
macro_rules! responses {
    ($($response:ident { $($effect:ident),+ })+) => {
        $(impl From<RequestResult> for proto::$response {
            fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
                Self { $($effect: effects.$effect.as_deref().map($effect),)+ replayed }
            }
        })+
    };
}

responses! {
    DepositResponse { transaction }
    WithdrawResponse { transaction }
    TransferResponse { transaction }
    PostTransactionResponse { transaction }
    ReverseTransactionResponse { transaction }
    PlaceHoldResponse { hold }
    UpdateHoldResponse { hold }
    CaptureHoldResponse { transaction, hold }
    ReleaseHoldResponse { hold }
}

/// Encodes the result of a posting in a batch, or of a `request` in a stream.
pub fn posting_result(result: Result<RequestResult, pb::Status>) -> PostTransactionResult {
    match result {
        Ok(RequestResult { effects, replayed }) => {
            let transaction = effects.transaction.as_deref().map(transaction);
            let result = transaction.map(post_transaction_result::Result::Transaction);
            PostTransactionResult { result, replayed }
        }
        Err(error) => {
            let result = Some(post_transaction_result::Result::Error(error));
            PostTransactionResult { result, replayed: false }
        }
    }
}

/// Encodes the result of a request in a stream.
pub fn streamed_result(
    request_id: String,
    result: Result<RequestResult, pb::Status>,
) -> StreamedResult {
    let mut encoded = StreamedResult { request_id, ..StreamedResult::default() };
    match result {
        Ok(RequestResult { effects, replayed }) => {
            encoded.transaction = effects.transaction.as_deref().map(transaction);
            encoded.hold = effects.hold.as_deref().map(hold);
            encoded.replayed = replayed;
        }
        Err(error) => encoded.error = Some(error),
    }
    encoded
}

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
