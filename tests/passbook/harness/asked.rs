//! A request of any kind as a value: it can be sent, sent again, and asked after.

use std::time::Duration;

use passbook::proto::{
    CaptureHoldRequest, DepositRequest, Hold, PlaceHoldRequest, PostTransactionRequest,
    ReleaseHoldRequest, ResolveRequestRequest, ResolveRequestResponse, ReverseTransactionRequest,
    Transaction, TransferRequest, WithdrawRequest,
};
use tonic::Status;

use super::{Client, change::is_definite, seconds, within};

/// A server that is alive reaches a verdict within a second or two.
const ATTEMPTS_MAX: usize = 5;

/// One request with a `request_id`.
#[derive(Clone, Debug)]
pub enum Asked {
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
    Transfer(TransferRequest),
    Post(PostTransactionRequest),
    PlaceHold(PlaceHoldRequest),
    CaptureHold(CaptureHoldRequest),
    ReleaseHold(ReleaseHoldRequest),
    Reverse(ReverseTransactionRequest),
}

/// What it was answered, whatever its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    pub transaction: Option<Transaction>,
    pub hold: Option<Hold>,
    pub replayed: bool,
}

/// One arm for each kind: the RPC, and the fields of its answer.
macro_rules! send {
    ($client:ident, $request:ident, $deadline:ident, $call:ident: $($field:ident),+) => {{
        let answer = $client.$call(within($deadline, $request)).await?.into_inner();
        let mut made = Made { transaction: None, hold: None, replayed: answer.replayed };
        $(made.$field = answer.$field;)+
        Ok(made)
    }};
}

impl Asked {
    pub fn request_id(&self) -> &str {
        match self {
            Self::Deposit(request) => &request.request_id,
            Self::Withdraw(request) => &request.request_id,
            Self::Transfer(request) => &request.request_id,
            Self::Post(request) => &request.request_id,
            Self::PlaceHold(request) => &request.request_id,
            Self::CaptureHold(request) => &request.request_id,
            Self::ReleaseHold(request) => &request.request_id,
            Self::Reverse(request) => &request.request_id,
        }
    }

    /// Sends it once.
    pub async fn send(&self, client: &Client, deadline: Duration) -> Result<Made, Status> {
        let mut client = client.clone();
        match self.clone() {
            Self::Deposit(it) => send!(client, it, deadline, deposit: transaction),
            Self::Withdraw(it) => send!(client, it, deadline, withdraw: transaction),
            Self::Transfer(it) => send!(client, it, deadline, transfer: transaction),
            Self::Post(it) => send!(client, it, deadline, post_transaction: transaction),
            Self::PlaceHold(it) => send!(client, it, deadline, place_hold: hold),
            Self::CaptureHold(it) => send!(client, it, deadline, capture_hold: transaction, hold),
            Self::ReleaseHold(it) => send!(client, it, deadline, release_hold: hold),
            Self::Reverse(it) => send!(client, it, deadline, reverse_transaction: transaction),
        }
    }

    /// Sends it, and again where no verdict was reached. Only a server with a defect has none after
    /// so many attempts: then its last answer stands.
    pub async fn settle(&self, client: &Client) -> Result<Made, Status> {
        let mut verdict = self.send(client, seconds(30)).await;
        for _ in 1..ATTEMPTS_MAX {
            match &verdict {
                Err(status) if !is_definite(status) => {
                    println!("{}: again after {status:?}", self.request_id());
                    verdict = self.send(client, seconds(30)).await;
                }
                _ => break,
            }
        }
        verdict
    }

    pub async fn resolve(&self, client: &Client) -> ResolveRequestResponse {
        resolve(client, self.request_id(), false).await
    }

    pub async fn fence(&self, client: &Client) -> ResolveRequestResponse {
        resolve(client, self.request_id(), true).await
    }
}

async fn resolve(client: &Client, request_id: &str, fence: bool) -> ResolveRequestResponse {
    let request = ResolveRequestRequest { request_id: request_id.to_owned(), fence };
    let answer = client.clone().resolve_request(within(seconds(30), request)).await;
    answer.expect("every request is resolved").into_inner()
}
