//! Short words for holds, reversals and changes of accounts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use passbook::proto::{
    Account, CaptureHoldRequest, CaptureHoldResponse, CloseAccountRequest, FreezeAccountRequest,
    GetHoldRequest, Hold, PlaceHoldRequest, ReleaseHoldRequest, ReverseTransactionRequest,
    Transaction, UnfreezeAccountRequest,
};
use prost_types::Timestamp;
use tonic::Status;

use crate::harness::{Client, eventually, get, hold, new_request_id, reason, value};

/// A hold with a name of the caller's own.
pub fn hold_named(hold_id: &str, account_id: &str, amount: &str) -> PlaceHoldRequest {
    PlaceHoldRequest { hold_id: hold_id.to_owned(), ..hold(account_id, amount) }
}

/// All of it, out of the ledger.
pub fn capture(hold_id: &str) -> CaptureHoldRequest {
    CaptureHoldRequest {
        request_id: new_request_id(),
        hold_id: hold_id.to_owned(),
        ..CaptureHoldRequest::default()
    }
}

pub fn release(hold_id: &str) -> ReleaseHoldRequest {
    ReleaseHoldRequest { request_id: new_request_id(), hold_id: hold_id.to_owned() }
}

pub fn reversal(transaction_id: &str) -> ReverseTransactionRequest {
    ReverseTransactionRequest {
        request_id: new_request_id(),
        transaction_id: transaction_id.to_owned(),
        ..ReverseTransactionRequest::default()
    }
}

pub async fn place(client: &Client, request: PlaceHoldRequest) -> Hold {
    let answer = client.clone().place_hold(request).await.expect("the hold is placed");
    answer.into_inner().hold.expect("a hold")
}

pub async fn captured(client: &Client, request: CaptureHoldRequest) -> CaptureHoldResponse {
    client.clone().capture_hold(request).await.expect("the hold is captured").into_inner()
}

pub async fn released(client: &Client, request: ReleaseHoldRequest) -> Hold {
    let answer = client.clone().release_hold(request).await.expect("the hold is released");
    answer.into_inner().hold.expect("a hold")
}

pub async fn reversed(client: &Client, request: ReverseTransactionRequest) -> Transaction {
    let answer = client.clone().reverse_transaction(request).await.expect("it is reversed");
    answer.into_inner().transaction.expect("a transaction")
}

pub async fn get_hold(client: &Client, hold_id: &str) -> Hold {
    let request = GetHoldRequest { hold_id: hold_id.to_owned() };
    let answer = client.clone().get_hold(request).await.expect("the hold is there");
    answer.into_inner().hold.expect("a hold")
}

pub async fn freeze(client: &Client, account_id: &str) -> Account {
    let request = FreezeAccountRequest {
        account_id: account_id.to_owned(),
        reason: "f".into(),
        ..Default::default()
    };
    let answer = client.clone().freeze_account(request).await.expect("it is frozen");
    answer.into_inner().account.expect("an account")
}

pub async fn unfreeze(client: &Client, account_id: &str) -> Account {
    let request = UnfreezeAccountRequest {
        account_id: account_id.to_owned(),
        reason: "u".into(),
        ..Default::default()
    };
    let answer = client.clone().unfreeze_account(request).await.expect("it is open");
    answer.into_inner().account.expect("an account")
}

pub async fn close(client: &Client, account_id: &str) -> Result<Account, Status> {
    let request = CloseAccountRequest {
        account_id: account_id.to_owned(),
        reason: "c".into(),
        ..Default::default()
    };
    let answer = client.clone().close_account(request).await?;
    Ok(answer.into_inner().account.expect("an account"))
}

/// Where an account stands: balance, held, available, version.
pub async fn standing(client: &Client, account_id: &str) -> [String; 4] {
    let account = get(client, account_id).await;
    [
        value(&account.balance).to_owned(),
        value(&account.held).to_owned(),
        value(&account.available).to_owned(),
        account.version.to_string(),
    ]
}

/// This machine's clock, which is the database's in tests, with so much added.
pub fn from_now(time: Duration) -> Timestamp {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970") + time;
    Timestamp { seconds: time.as_secs() as i64, nanos: time.subsec_nanos() as i32 }
}

/// To compare and to reckon with.
pub fn microseconds(time: &Option<Timestamp>) -> i64 {
    let time = time.as_ref().expect("a time");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1000
}

/// Places a hold that expires as soon as can be, and is open when this returns, or was.
pub async fn place_briefly(client: &Client, request: PlaceHoldRequest) -> Hold {
    let mut time = Duration::from_millis(300);
    loop {
        let request = PlaceHoldRequest {
            request_id: new_request_id(),
            expire_time: Some(from_now(time)),
            ..request.clone()
        };
        match client.clone().place_hold(request).await {
            Ok(answer) => return answer.into_inner().hold.expect("a hold"),
            // The machine is slow today.
            Err(status) if reason(&status) == "EXPIRE_TIME_PASSED" => time *= 2,
            Err(status) => panic!("{status:?}"),
        }
    }
}

/// Places a hold and waits until it has expired, by the clock: nobody has come across it since.
pub async fn place_and_expire(client: &Client, request: PlaceHoldRequest) -> Hold {
    let hold = place_briefly(client, request).await;
    let expire_time_us = microseconds(&hold.expire_time);
    eventually("its time passes", || async {
        microseconds(&Some(from_now(crate::harness::ms(0)))) > expire_time_us + 10_000
    })
    .await;
    hold
}

/// Asserts that the second of two refusals is the first again, byte by byte.
#[track_caller]
pub fn assert_repeated(first: &Status, again: &Status) {
    assert_eq!(first.code(), again.code());
    assert_eq!(first.message(), again.message());
    assert_eq!(first.details(), again.details());
}
