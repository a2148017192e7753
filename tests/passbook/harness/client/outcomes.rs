//! GetRequestOutcome and FenceRequest, and the responses that tests expect of both.

use passbook::proto::{
    FenceRequestRequest, FenceRequestResponse, GetRequestOutcomeRequest, GetRequestOutcomeResponse,
    RequestOutcome,
};
use prost::Message;
use tonic::Status;

use crate::harness::{Answer, Client, reason, seconds, within};

/// Calls GetRequestOutcome.
pub async fn request_outcome(client: &Client, request_id: &str) -> GetRequestOutcomeResponse {
    let request = GetRequestOutcomeRequest { request_id: request_id.to_owned() };
    let answer = client.get_request_outcome(within(seconds(10), request)).await;
    answer.expect("the outcome")
}

/// Calls FenceRequest, and repeats it after CONTENTION. Its response has the fields of the other.
pub async fn fence(client: &Client, request_id: &str) -> GetRequestOutcomeResponse {
    let request = FenceRequestRequest { request_id: request_id.to_owned() };
    for _ in 0..20 {
        match client.fence_request(within(seconds(10), request.clone())).await {
            Ok(answer) => return as_outcome(answer),
            Err(status) => assert_eq!(reason(&status), "CONTENTION", "{status:?}"),
        }
    }
    panic!("{request_id} is not fenced");
}

pub fn as_outcome(response: FenceRequestResponse) -> GetRequestOutcomeResponse {
    let FenceRequestResponse { outcome, transaction, hold, error, fenced } = response;
    GetRequestOutcomeResponse { outcome, transaction, hold, error, fenced }
}

pub fn applied(made: &Answer) -> GetRequestOutcomeResponse {
    GetRequestOutcomeResponse {
        outcome: RequestOutcome::Applied.into(),
        transaction: made.transaction.clone(),
        hold: made.hold.clone(),
        ..Default::default()
    }
}

pub fn rejected(status: &Status) -> GetRequestOutcomeResponse {
    let error = tonic_types::pb::Status::decode(status.details()).expect("the details");
    assert_eq!((error.code, error.message.as_str()), (status.code() as i32, status.message()));
    GetRequestOutcomeResponse {
        outcome: RequestOutcome::Rejected.into(),
        error: Some(error),
        ..Default::default()
    }
}

pub fn not_seen(fenced: bool) -> GetRequestOutcomeResponse {
    GetRequestOutcomeResponse {
        outcome: RequestOutcome::NotSeen.into(),
        fenced,
        ..Default::default()
    }
}

/// Asks every server, before and after a fence: a result is final.
pub async fn assert_final_everywhere(
    clients: &[Client],
    request_id: &str,
    expected: &GetRequestOutcomeResponse,
) {
    for client in clients {
        assert_eq!(&request_outcome(client, request_id).await, expected);
        assert_eq!(&fence(client, request_id).await, expected, "fenced");
        assert_eq!(&request_outcome(client, request_id).await, expected, "after the fence");
    }
}
