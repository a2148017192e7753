//! Requests with the usual fields filled in, and calls that must succeed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use passbook::proto::{
    Account, BatchPostTransactionsRequest, CaptureHoldRequest, CaptureHoldResponse,
    CloseAccountRequest, CreateAccountRequest, DepositRequest, FreezeAccountRequest,
    GetAccountRequest, GetHoldRequest, Hold, Leg, Money, PlaceHoldRequest, PostTransactionRequest,
    ReleaseHoldRequest, ReverseTransactionRequest, Transaction, TransferRequest,
    UnfreezeAccountRequest, WithdrawRequest, account_service_client::AccountServiceClient,
};
use prost_types::Timestamp;
use tonic::{Request, Status, body::Body, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{Server, eventually, ms, reason};

pub type Client = AccountServiceClient<Channel>;

/// A client that leaves the deadline to the server. tonic's own client gives up at the deadline,
/// and on a busy machine before it reads an answer that arrived in time.
pub type Patient = AccountServiceClient<Http<HttpConnector, Body>>;

/// An amount in US dollars.
pub fn money(value: &str) -> Option<Money> {
    money_of("USD", value)
}

pub fn money_of(currency_code: &str, value: &str) -> Option<Money> {
    Some(Money { currency_code: currency_code.to_owned(), value: value.to_owned() })
}

/// The value of an amount.
pub fn value(money: &Option<Money>) -> &str {
    money.as_ref().map_or("(no amount)", |money| &money.value)
}

pub fn new_request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

pub fn deposit(account_id: &str, amount: &str) -> DepositRequest {
    DepositRequest {
        request_id: new_request_id(),
        account_id: account_id.to_owned(),
        amount: money(amount),
        ..DepositRequest::default()
    }
}

pub fn withdrawal(account_id: &str, amount: &str) -> WithdrawRequest {
    WithdrawRequest {
        request_id: new_request_id(),
        account_id: account_id.to_owned(),
        amount: money(amount),
        ..WithdrawRequest::default()
    }
}

pub fn transfer(source: &str, destination: &str, amount: &str) -> TransferRequest {
    TransferRequest {
        request_id: new_request_id(),
        source_account_id: source.to_owned(),
        destination_account_id: destination.to_owned(),
        amount: money(amount),
        ..TransferRequest::default()
    }
}

pub fn hold(account_id: &str, amount: &str) -> PlaceHoldRequest {
    PlaceHoldRequest {
        request_id: new_request_id(),
        account_id: account_id.to_owned(),
        amount: money(amount),
        ..PlaceHoldRequest::default()
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn account_of(account_id: &str, currency_code: &str) -> CreateAccountRequest {
    CreateAccountRequest {
        account_id: account_id.to_owned(),
        currency_code: currency_code.to_owned(),
        ..CreateAccountRequest::default()
    }
}

/// Opens an account in US dollars.
pub async fn open(client: &Client, account_id: &str) -> Account {
    open_with(client, account_of(account_id, "USD")).await
}

/// Opens an account in US dollars with an overdraft limit.
pub async fn open_with_overdraft(client: &Client, account_id: &str, limit: &str) -> Account {
    let request =
        CreateAccountRequest { overdraft_limit: money(limit), ..account_of(account_id, "USD") };
    open_with(client, request).await
}

pub async fn open_with(client: &Client, request: CreateAccountRequest) -> Account {
    let answer = client.clone().create_account(request).await.expect("the account is opened");
    answer.into_inner().account.expect("an account")
}

/// Opens an account in US dollars with money on it.
pub async fn open_funded(client: &Client, account_id: &str, amount: &str) -> Account {
    open(client, account_id).await;
    client.clone().deposit(deposit(account_id, amount)).await.expect("the deposit is applied");
    get(client, account_id).await
}

pub async fn get(client: &Client, account_id: &str) -> Account {
    let request = GetAccountRequest { account_id: account_id.to_owned() };
    let answer = client.clone().get_account(request).await.expect("the account is there");
    answer.into_inner().account.expect("an account")
}

/// A read of an account that does not exist.
pub fn missing_account() -> GetAccountRequest {
    GetAccountRequest { account_id: "nobody".to_owned() }
}

pub async fn balance(client: &Client, account_id: &str) -> String {
    value(&get(client, account_id).await.balance).to_owned()
}

/// A request with a deadline, which travels as `grpc-timeout`.
pub fn within<Message>(deadline: Duration, message: Message) -> Request<Message> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

pub fn leg(account_id: &str, amount: &str) -> Leg {
    leg_in(account_id, "USD", amount)
}

pub fn leg_in(account_id: &str, currency_code: &str, amount: &str) -> Leg {
    let amount = money_of(currency_code, amount);
    Leg { account_id: account_id.to_owned(), amount, condition: None }
}

pub fn post(legs: &[Leg]) -> PostTransactionRequest {
    PostTransactionRequest {
        request_id: new_request_id(),
        legs: legs.to_vec(),
        ..Default::default()
    }
}

/// One leg for each account and amount, in US dollars.
pub fn posting(legs: &[(&str, &str)]) -> PostTransactionRequest {
    post(&legs.iter().map(|(account_id, amount)| leg(account_id, amount)).collect::<Vec<_>>())
}

pub async fn posted(client: &Client, request: PostTransactionRequest) -> Transaction {
    let answer = client.clone().post_transaction(request).await.expect("the posting is applied");
    answer.into_inner().transaction.expect("a transaction")
}

/// Posts `count` transactions with one leg of 1.00 each.
pub async fn post_many(client: &Client, account_id: &str, count: usize) {
    let mut left = count;
    while left > 0 {
        let now = left.min(1000);
        let requests = (0..now).map(|_| post(&[leg(account_id, "1")])).collect();
        let answer =
            client.clone().batch_post_transactions(BatchPostTransactionsRequest { requests }).await;
        assert_eq!(answer.expect("all are made").into_inner().results.len(), now);
        left -= now;
    }
}

/// A hold with this id.
pub fn hold_named(hold_id: &str, account_id: &str, amount: &str) -> PlaceHoldRequest {
    PlaceHoldRequest { hold_id: hold_id.to_owned(), ..hold(account_id, amount) }
}

/// Captures the whole hold, out of the ledger.
pub fn capture(hold_id: &str) -> CaptureHoldRequest {
    CaptureHoldRequest {
        request_id: new_request_id(),
        hold_id: hold_id.to_owned(),
        ..CaptureHoldRequest::default()
    }
}

/// Captures a part of the hold.
pub fn capture_part(hold_id: &str, amount: &str) -> CaptureHoldRequest {
    CaptureHoldRequest { amount: money(amount), ..capture(hold_id) }
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

/// Balance, held, available and version of an account.
pub async fn standing(client: &Client, account_id: &str) -> [String; 4] {
    let account = get(client, account_id).await;
    [
        value(&account.balance).to_owned(),
        value(&account.held).to_owned(),
        value(&account.available).to_owned(),
        account.version.to_string(),
    ]
}

/// The current time plus `time`. The database shares this machine's clock.
pub fn from_now(time: Duration) -> Timestamp {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970") + time;
    Timestamp { seconds: time.as_secs() as i64, nanos: time.subsec_nanos() as i32 }
}

/// Microseconds since the Unix epoch.
pub fn microseconds(time: &Option<Timestamp>) -> i64 {
    let time = time.as_ref().expect("a time");
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1000
}

pub fn timestamp(microseconds: i64) -> Timestamp {
    let nanos = microseconds.rem_euclid(1_000_000) * 1000;
    Timestamp { seconds: microseconds.div_euclid(1_000_000), nanos: nanos as i32 }
}

/// Places a hold with the shortest expiry that the server still accepts. It may have expired on
/// return.
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
            // The machine is slow: the time had passed on arrival.
            Err(status) if reason(&status) == "EXPIRE_TIME_PASSED" => time *= 2,
            Err(status) => panic!("{status:?}"),
        }
    }
}

/// Places a hold and waits until its expire time has passed. Nothing has recorded the expiry.
pub async fn place_and_expire(client: &Client, request: PlaceHoldRequest) -> Hold {
    let hold = place_briefly(client, request).await;
    let expire_time_us = microseconds(&hold.expire_time);
    eventually("its time passes", || async {
        microseconds(&Some(from_now(ms(0)))) > expire_time_us + 10_000
    })
    .await;
    hold
}

/// Reads a list to its end. Returns a Vec of pages.
macro_rules! all_pages {
    ($client:ident.$rpc:ident($request:expr).$items:ident) => {{
        let mut request = $request;
        let mut pages = Vec::new();
        loop {
            let page = $client.clone().$rpc(request.clone()).await.expect("a page").into_inner();
            pages.push(page.$items);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break pages;
            }
            assert!(pages.len() < 100, "paging does not end");
        }
    }};
}
pub(crate) use all_pages;

pub async fn serving_status(server: &Server, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(server.channel()).check(request).await;
    answer.expect("the process lives").into_inner().status()
}
