//! Short words for what tests say again and again: requests, and what an error says.

use std::time::Duration;

use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use passbook::proto::{
    Account, CreateAccountRequest, DepositRequest, GetAccountRequest, Money, PlaceHoldRequest,
    TransferRequest, WithdrawRequest, account_service_client::AccountServiceClient,
};
use tonic::{Code, Request, Status, body::Body, transport::Channel};
use tonic_types::StatusExt;

pub type Client = AccountServiceClient<Channel>;

/// One that leaves it to the server to keep the deadline. tonic's own client gives up at that
/// moment, and on a busy machine before it reads an answer that came in time: to see what a caller is
/// told at its deadline takes this one.
pub type Patient = AccountServiceClient<Http<HttpConnector, Body>>;

/// US dollars.
pub fn money(value: &str) -> Option<Money> {
    money_of("USD", value)
}

pub fn money_of(currency_code: &str, value: &str) -> Option<Money> {
    Some(Money { currency_code: currency_code.to_owned(), value: value.to_owned() })
}

/// The value of an amount in an answer.
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

/// Opens an account in US dollars that may go this far below zero.
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
    client.clone().deposit(deposit(account_id, amount)).await.expect("the deposit is made");
    get(client, account_id).await
}

pub async fn get(client: &Client, account_id: &str) -> Account {
    let request = GetAccountRequest { account_id: account_id.to_owned() };
    let answer = client.clone().get_account(request).await.expect("the account is there");
    answer.into_inner().account.expect("an account")
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

/// `ErrorInfo.reason`. Every error of the service has one, in its domain.
pub fn reason(status: &Status) -> String {
    let Some(info) = status.get_details_error_info() else {
        panic!("an error without ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "passbook", "{status:?}");
    info.reason
}

/// The same for errors that may have been made on the way: empty if there is none.
pub fn reason_if_any(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// `ErrorInfo.metadata[key]`, empty if it is not there.
pub fn metadata(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info();
    info.and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

/// Whether the error says that the change was not made: "not_applied", "unknown" or empty.
pub fn outcome(status: &Status) -> String {
    metadata(status, "outcome")
}

/// The paths of the fields that BadRequest complains of.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Asserts code and reason at once, and returns the error for more questions.
#[track_caller]
pub fn refused<Answer: std::fmt::Debug>(
    answer: Result<Answer, Status>,
    code: Code,
    expected_reason: &str,
) -> Status {
    let status = answer.expect_err("this should have been refused");
    assert_eq!((status.code(), reason(&status).as_str()), (code, expected_reason), "{status:?}");
    assert!(!status.message().is_empty(), "an error says in words what is wrong");
    status
}
