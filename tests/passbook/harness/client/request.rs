//! One request of any kind that has a `request_id`, as a value.

use std::time::Duration;

use passbook::proto::{
    BatchPostTransactionsRequest, CaptureHoldRequest, DepositRequest, Hold, Leg, PlaceHoldRequest,
    PostTransactionRequest, PostTransactionResult, ReleaseHoldRequest, ReverseTransactionRequest,
    StreamTransactionsRequest, Transaction, TransferRequest, WithdrawRequest,
    post_transaction_result::Result as Posted,
};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::harness::{
    Client, deposit, hold, money, new_request_id, open, open_funded, transfer, withdrawal, within,
};

#[derive(Clone, Debug)]
pub enum Asked {
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
    Transfer(TransferRequest),
    Post(PostTransactionRequest),
    /// The only one of a BatchPostTransactions.
    PostInBatch(PostTransactionRequest),
    /// The only one of a StreamTransactions.
    PostInStream(PostTransactionRequest),
    PlaceHold(PlaceHoldRequest),
    CaptureHold(CaptureHoldRequest),
    ReleaseHold(ReleaseHoldRequest),
    Reverse(ReverseTransactionRequest),
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    pub transaction: Option<Transaction>,
    pub hold: Option<Hold>,
    pub replayed: bool,
}

impl Asked {
    pub fn request_id(&self) -> &str {
        match self {
            Self::Deposit(request) => &request.request_id,
            Self::Withdraw(request) => &request.request_id,
            Self::Transfer(request) => &request.request_id,
            Self::Post(request) | Self::PostInBatch(request) | Self::PostInStream(request) => {
                &request.request_id
            }
            Self::PlaceHold(request) => &request.request_id,
            Self::CaptureHold(request) => &request.request_id,
            Self::ReleaseHold(request) => &request.request_id,
            Self::Reverse(request) => &request.request_id,
        }
    }

    /// Sends it once.
    pub async fn send(&self, client: &Client, deadline: Duration) -> Result<Made, Status> {
        let mut client = client.clone();
        let (transaction, hold, replayed) = match self.clone() {
            Self::Deposit(request) => {
                let answer = client.deposit(within(deadline, request)).await?.into_inner();
                (answer.transaction, None, answer.replayed)
            }
            Self::Withdraw(request) => {
                let answer = client.withdraw(within(deadline, request)).await?.into_inner();
                (answer.transaction, None, answer.replayed)
            }
            Self::Transfer(request) => {
                let answer = client.transfer(within(deadline, request)).await?.into_inner();
                (answer.transaction, None, answer.replayed)
            }
            Self::Post(request) => {
                let answer = client.post_transaction(within(deadline, request)).await?.into_inner();
                (answer.transaction, None, answer.replayed)
            }
            Self::PostInBatch(request) => {
                let batch = BatchPostTransactionsRequest { requests: vec![request] };
                let answer = client.batch_post_transactions(within(deadline, batch)).await?;
                return posted(answer.into_inner().results.pop());
            }
            Self::PostInStream(request) => {
                let message = StreamTransactionsRequest { request: Some(request) };
                let messages = tokio_stream::iter([message]);
                let answer = client.stream_transactions(within(deadline, messages)).await?;
                let response = answer.into_inner().next().await.transpose()?;
                return posted(response.and_then(|response| response.result));
            }
            Self::PlaceHold(request) => {
                let answer = client.place_hold(within(deadline, request)).await?.into_inner();
                (None, answer.hold, answer.replayed)
            }
            Self::CaptureHold(request) => {
                let answer = client.capture_hold(within(deadline, request)).await?.into_inner();
                (answer.transaction, answer.hold, answer.replayed)
            }
            Self::ReleaseHold(request) => {
                let answer = client.release_hold(within(deadline, request)).await?.into_inner();
                (None, answer.hold, answer.replayed)
            }
            Self::Reverse(request) => {
                let request = within(deadline, request);
                let answer = client.reverse_transaction(request).await?.into_inner();
                (answer.transaction, None, answer.replayed)
            }
        };
        Ok(Made { transaction, hold, replayed })
    }
}

fn posted(result: Option<PostTransactionResult>) -> Result<Made, Status> {
    let PostTransactionResult { result, replayed } = result.expect("one result a request");
    match result.expect("a transaction or an error") {
        Posted::Transaction(it) => Ok(Made { transaction: Some(it), hold: None, replayed }),
        Posted::Error(error) => {
            let details = error.encode_to_vec().into();
            Err(Status::with_details(Code::from_i32(error.code), error.message, details))
        }
    }
}

/// A request of each kind that changes the account, in US dollars, and would be applied, in
/// whatever order they come. Opens the account and another one.
pub async fn one_of_each_kind(client: &Client, account_id: &str) -> Vec<Asked> {
    let other = format!("{account_id}-other");
    open_funded(client, account_id, "100").await;
    open(client, &other).await;
    let transaction = client.clone().deposit(deposit(account_id, "5")).await.expect("it is made");
    let transaction = transaction.into_inner().transaction.expect("a transaction");
    let mut held = Vec::new();
    for _ in 0..2 {
        let placed = client.clone().place_hold(hold(account_id, "10")).await;
        let placed = placed.expect("it is placed").into_inner().hold;
        held.push(placed.expect("a hold").hold_id);
    }
    let legs = [(account_id, "-2"), (&other, "1.50"), (account_id, "0.25")];
    vec![
        Asked::Deposit(deposit(account_id, "1")),
        Asked::Withdraw(withdrawal(account_id, "1")),
        Asked::Transfer(transfer(account_id, &other, "1")),
        Asked::Post(post(&legs)),
        Asked::PostInBatch(post(&legs)),
        Asked::PostInStream(post(&legs)),
        Asked::PlaceHold(hold(account_id, "1")),
        Asked::CaptureHold(capture(&held[0], "4")),
        Asked::ReleaseHold(release(&held[1])),
        Asked::Reverse(reversal(&transaction.transaction_id)),
    ]
}

/// A request of each kind that is refused by state, each kind for a reason of its own where it
/// has one. The account must have an open hold of this id and less than 1000 US dollars.
pub fn one_of_each_kind_refused(account_id: &str, hold_id: &str) -> Vec<Asked> {
    let too_much = [(account_id, "-1000")];
    vec![
        Asked::Deposit(deposit("nobody", "1")),
        Asked::Withdraw(withdrawal(account_id, "1000")),
        Asked::Transfer(transfer(account_id, "nobody", "1")),
        Asked::Post(post(&too_much)),
        Asked::PostInBatch(post(&too_much)),
        Asked::PostInStream(post(&too_much)),
        Asked::PlaceHold(hold(account_id, "1000")),
        Asked::CaptureHold(capture(hold_id, "1000")),
        Asked::ReleaseHold(release("no-such-hold")),
        Asked::Reverse(reversal(&new_request_id())),
    ]
}

fn post(legs: &[(&str, &str)]) -> PostTransactionRequest {
    let leg = |(account_id, amount): &(&str, &str)| Leg {
        account_id: (*account_id).to_owned(),
        amount: money(amount),
        condition: None,
    };
    PostTransactionRequest {
        request_id: new_request_id(),
        legs: legs.iter().map(leg).collect(),
        ..Default::default()
    }
}

pub fn capture(hold_id: &str, amount: &str) -> CaptureHoldRequest {
    CaptureHoldRequest {
        request_id: new_request_id(),
        hold_id: hold_id.to_owned(),
        amount: money(amount),
        ..Default::default()
    }
}

pub fn release(hold_id: &str) -> ReleaseHoldRequest {
    ReleaseHoldRequest { request_id: new_request_id(), hold_id: hold_id.to_owned() }
}

pub fn reversal(transaction_id: &str) -> ReverseTransactionRequest {
    ReverseTransactionRequest {
        request_id: new_request_id(),
        transaction_id: transaction_id.to_owned(),
        ..Default::default()
    }
}
