//! Requests with the usual fields filled in, and calls that must succeed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use passbook::proto::*;
use prost_types::{FieldMask, Timestamp};
use tokio::task::JoinHandle;
use tonic::{Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{Client, PATIENCE, Server, eventually, ms, reason};

/// The largest amount in US dollars.
pub const LARGEST: &str = "99999999999999999999999999.99";

/// A well-formed id of a transaction that does not exist.
pub const MISSING_TRANSACTION: &str = "0197a1b2-0000-7000-8000-000000000000";

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

pub fn deposit_in(account_id: &str, currency_code: &str, amount: &str) -> DepositRequest {
    DepositRequest { amount: money_of(currency_code, amount), ..deposit(account_id, "") }
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

pub async fn open_all(client: &Client, account_ids: &[&str]) {
    for account_id in account_ids {
        open(client, account_id).await;
    }
}

/// Opens an account in US dollars with an overdraft limit.
pub async fn open_with_overdraft(client: &Client, account_id: &str, limit: &str) -> Account {
    let request =
        CreateAccountRequest { overdraft_limit: money(limit), ..account_of(account_id, "USD") };
    open_with(client, request).await
}

/// Opens an account in US dollars without an overdraft limit.
pub async fn open_unlimited(client: &Client, account_id: &str) -> Account {
    let request =
        CreateAccountRequest { unlimited_overdraft: true, ..account_of(account_id, "USD") };
    open_with(client, request).await
}

pub async fn open_with(client: &Client, request: CreateAccountRequest) -> Account {
    let answer = client.create_account(request).await.expect("the account is opened");
    answer.account.expect("an account")
}

/// Makes concurrent deposits of 1.00. All of them are applied.
pub async fn deposit_at_once(client: &Client, account_id: &str, count: usize) {
    let calls = (0..count).map(|_| client.deposit(within(PATIENCE, deposit(account_id, "1"))));
    for answer in join_all(calls).await {
        answer.expect("applied");
    }
}

/// Begins a deposit, which may have to wait.
pub fn spawn_deposit(
    client: &Client,
    account_id: &str,
    amount: &str,
) -> JoinHandle<Result<DepositResponse, Status>> {
    let (client, request) = (client.clone(), within(PATIENCE, deposit(account_id, amount)));
    tokio::spawn(async move { client.deposit(request).await })
}

/// Opens an account in US dollars with money on it.
pub async fn open_funded(client: &Client, account_id: &str, amount: &str) -> Account {
    open(client, account_id).await;
    deposited(client, account_id, amount).await;
    get(client, account_id).await
}

pub async fn get(client: &Client, account_id: &str) -> Account {
    let answer = client.get_account(account_named(account_id)).await.expect("the account is there");
    answer.account.expect("an account")
}

pub fn account_named(account_id: &str) -> GetAccountRequest {
    GetAccountRequest { account_id: account_id.to_owned() }
}

/// A read of an account that does not exist.
pub fn missing_account() -> GetAccountRequest {
    account_named("nobody")
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

/// A message to StreamTransactions with one posting.
pub fn one_posting(request: PostTransactionRequest) -> StreamTransactionsRequest {
    StreamTransactionsRequest { request: Some(request), ..Default::default() }
}

/// A message to StreamTransactions with these requests, whose results come in any order.
pub fn in_any_order(requests: Vec<StreamedRequest>) -> StreamTransactionsRequest {
    let result_order = ResultOrder::AsCompleted.into();
    StreamTransactionsRequest { requests, result_order, ..Default::default() }
}

/// Deposits US dollars.
pub async fn deposited(client: &Client, account_id: &str, amount: &str) -> Transaction {
    let answer = client.deposit(deposit(account_id, amount)).await.expect("it is deposited");
    answer.transaction.expect("a transaction")
}

/// Withdraws US dollars.
pub async fn withdrawn(client: &Client, account_id: &str, amount: &str) -> Transaction {
    let answer = client.withdraw(withdrawal(account_id, amount)).await.expect("it is withdrawn");
    answer.transaction.expect("a transaction")
}

pub async fn posted(client: &Client, request: PostTransactionRequest) -> Transaction {
    let answer = client.post_transaction(request).await.expect("the posting is applied");
    answer.transaction.expect("a transaction")
}

/// Posts `count` transactions with one leg of 1.00 each.
pub async fn post_many(client: &Client, account_id: &str, count: usize) {
    let mut left = count;
    while left > 0 {
        let now = left.min(1000);
        let requests = (0..now).map(|_| post(&[leg(account_id, "1")])).collect();
        let answer =
            client.batch_post_transactions(BatchPostTransactionsRequest { requests }).await;
        assert_eq!(answer.expect("all are made").results.len(), now);
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

/// Captures a part of the hold, to this account.
pub fn capture_to(destination: &str, hold_id: &str, amount: &str) -> CaptureHoldRequest {
    let destination_account_id = destination.to_owned();
    CaptureHoldRequest { destination_account_id, ..capture_part(hold_id, amount) }
}

/// Takes a part of the hold, and keeps the rest.
pub fn capture_and_keep(hold_id: &str, amount: &str) -> CaptureHoldRequest {
    CaptureHoldRequest { keep_open: true, ..capture_part(hold_id, amount) }
}

/// Changes the amount of a hold.
pub fn hold_update(hold_id: &str, amount: &str) -> UpdateHoldRequest {
    UpdateHoldRequest {
        request_id: new_request_id(),
        hold_id: hold_id.to_owned(),
        amount: money(amount),
        ..UpdateHoldRequest::default()
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
    let answer = client.place_hold(request).await.expect("the hold is placed");
    answer.hold.expect("a hold")
}

/// Places holds of one amount with these ids.
pub async fn place_all(client: &Client, account_id: &str, amount: &str, hold_ids: &[&str]) {
    for hold_id in hold_ids {
        place(client, hold_named(hold_id, account_id, amount)).await;
    }
}

pub async fn captured(client: &Client, request: CaptureHoldRequest) -> CaptureHoldResponse {
    client.capture_hold(request).await.expect("the hold is captured")
}

pub async fn updated(client: &Client, request: UpdateHoldRequest) -> Hold {
    let answer = client.update_hold(request).await.expect("the hold is updated");
    answer.hold.expect("a hold")
}

pub async fn released(client: &Client, request: ReleaseHoldRequest) -> Hold {
    let answer = client.release_hold(request).await.expect("the hold is released");
    answer.hold.expect("a hold")
}

pub async fn reversed(client: &Client, request: ReverseTransactionRequest) -> Transaction {
    let answer = client.reverse_transaction(request).await.expect("it is reversed");
    answer.transaction.expect("a transaction")
}

pub async fn get_hold(client: &Client, hold_id: &str) -> Hold {
    let request = GetHoldRequest { hold_id: hold_id.to_owned() };
    let answer = client.get_hold(request).await.expect("the hold is there");
    answer.hold.expect("a hold")
}

/// Freezes, unfreezes or closes an account.
pub async fn set_state(
    client: &Client,
    account_id: &str,
    state: AccountState,
    reason: &str,
    expected_version: Option<i64>,
) -> Result<Account, Status> {
    let (account_id, reason) = (account_id.to_owned(), reason.to_owned());
    let account = match state {
        AccountState::Frozen => {
            let request = FreezeAccountRequest { account_id, reason, expected_version };
            client.freeze_account(request).await?.account
        }
        AccountState::Closed => {
            let request = CloseAccountRequest { account_id, reason, expected_version };
            client.close_account(request).await?.account
        }
        AccountState::Open | AccountState::Unspecified => {
            let request = UnfreezeAccountRequest { account_id, reason, expected_version };
            client.unfreeze_account(request).await?.account
        }
    };
    Ok(account.expect("an account"))
}

pub const STATES: [AccountState; 3] =
    [AccountState::Open, AccountState::Frozen, AccountState::Closed];

pub async fn freeze(client: &Client, account_id: &str) -> Account {
    set_state(client, account_id, AccountState::Frozen, "f", None).await.expect("it is frozen")
}

pub async fn unfreeze(client: &Client, account_id: &str) -> Account {
    set_state(client, account_id, AccountState::Open, "u", None).await.expect("it is open")
}

pub async fn close(client: &Client, account_id: &str) -> Result<Account, Status> {
    set_state(client, account_id, AccountState::Closed, "c", None).await
}

/// An update of this account that sets nothing yet.
pub fn update_of(account_id: &str) -> UpdateAccountRequest {
    UpdateAccountRequest { account_id: account_id.to_owned(), ..Default::default() }
}

/// An update of the overdraft limit.
pub fn limit_of(account_id: &str, amount: &str) -> UpdateAccountRequest {
    UpdateAccountRequest { overdraft_limit: money(amount), ..update_of(account_id) }
}

pub fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
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

/// Places a hold with the shortest expiry that the server still accepts. It may have expired.
pub async fn place_briefly(client: &Client, request: PlaceHoldRequest) -> Hold {
    place_for(client, request, ms(300)).await
}

/// Places a hold that expires after this time, or a longer one if this is over on arrival.
pub async fn place_for(client: &Client, request: PlaceHoldRequest, mut time: Duration) -> Hold {
    loop {
        let request = PlaceHoldRequest {
            request_id: new_request_id(),
            expire_time: Some(from_now(time)),
            ..request.clone()
        };
        match client.place_hold(request).await {
            Ok(answer) => return answer.hold.expect("a hold"),
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

/// Waits until a service has this status.
pub async fn becomes(server: &Server, service: &str, wanted: ServingStatus) {
    let what = format!("{service:?} is {wanted:?}");
    eventually(&what, async || serving_status(server, service).await == wanted).await;
}

pub async fn serving_status(server: &Server, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(server.channel()).check(request).await;
    answer.expect("the process lives").into_inner().status()
}
