//! Of two faults in a request on holds, reversals or accounts the lower number of `ErrorReason` is
//! always reported.

use passbook::proto::{
    CaptureHoldRequest, ErrorReason, FreezeAccountRequest, PlaceHoldRequest, ReleaseHoldRequest,
    ReverseTransactionRequest, UpdateAccountRequest,
};
use prost_types::{FieldMask, Timestamp};
use tonic::Status;

use crate::harness::*;

use ErrorReason as E;

on_both_databases! {
    the_lower_numbered_reason_of_two_malformed_fields_wins,
    the_first_declared_of_two_equally_wrong_fields_is_named,
    the_lower_numbered_rejection_of_a_hold_wins,
    the_lower_numbered_rejection_of_a_capture_wins,
    the_lower_numbered_rejection_of_a_reversal_wins,
    the_lower_numbered_rejection_of_an_update_wins,
    a_reused_request_id_comes_before_rejections_by_state,
    shape_is_checked_before_any_lookup,
}

#[track_caller]
fn assert_reason<T: std::fmt::Debug>(answer: Result<T, Status>, expected: E) -> Status {
    let status = answer.expect_err("a fault is found");
    let name = format!("ERROR_REASON_{}", reason(&status));
    assert_eq!(E::from_str_name(&name), Some(expected), "{status:?}");
    status
}

/// A fault of shape, with its reason.
type Flaw<Request> = (E, fn(&mut Request));

fn break_amount(amount: &mut Option<passbook::proto::Money>, value: &str) {
    if let Some(amount) = amount {
        amount.value = value.to_owned();
    }
}

// Each in the order of `ErrorReason`.
const OF_A_HOLD: [Flaw<PlaceHoldRequest>; 8] = [
    (E::InvalidRequestId, |it| it.request_id.clear()),
    (E::InvalidAccountId, |it| it.account_id.clear()),
    (E::InvalidAmount, |it| break_amount(&mut it.amount, "-1")),
    (E::InvalidDescription, |it| it.description = "\n".to_owned()),
    (E::InvalidLabels, |it| drop(it.labels.insert(String::new(), String::new()))),
    (E::InvalidHoldId, |it| it.hold_id = "?".to_owned()),
    (E::InvalidExpireTime, |it| it.expire_time = Some(Timestamp { seconds: 0, nanos: -1 })),
    (E::BalanceOutOfRange, |it| break_amount(&mut it.amount, &"9".repeat(40))),
];
const OF_A_CAPTURE: [Flaw<CaptureHoldRequest>; 7] = [
    (E::InvalidRequestId, |it| it.request_id.clear()),
    (E::InvalidAccountId, |it| it.destination_account_id = "?".to_owned()),
    (E::InvalidCurrencyCode, |it| it.amount = money_of("nope", "1")),
    (E::InvalidDescription, |it| it.description = "\n".to_owned()),
    (E::InvalidLabels, |it| drop(it.labels.insert(String::new(), String::new()))),
    (E::InvalidHoldId, |it| it.hold_id.clear()),
    (E::BalanceOutOfRange, |it| it.amount = money(&"9".repeat(40))),
];
const OF_A_RELEASE: [Flaw<ReleaseHoldRequest>; 2] = [
    (E::InvalidRequestId, |it| it.request_id.clear()),
    (E::InvalidHoldId, |it| it.hold_id.clear()),
];
const OF_A_REVERSAL: [Flaw<ReverseTransactionRequest>; 4] = [
    (E::InvalidRequestId, |it| it.request_id.clear()),
    (E::InvalidTransactionId, |it| it.transaction_id.clear()),
    (E::InvalidDescription, |it| it.description = "\n".to_owned()),
    (E::InvalidLabels, |it| drop(it.labels.insert(String::new(), String::new()))),
];
const OF_AN_UPDATE: [Flaw<UpdateAccountRequest>; 7] = [
    (E::InvalidAccountId, |it| it.account_id.clear()),
    (E::InvalidCurrencyCode, |it| it.overdraft_limit = money_of("nope", "1")),
    (E::InvalidAmount, |it| it.overdraft_limit = money("-1")),
    (E::InvalidCondition, |it| it.expected_version = Some(0)),
    (E::InvalidLabels, |it| drop(it.labels.insert(String::new(), String::new()))),
    (E::InvalidUpdateMask, |it| {
        it.update_mask = Some(FieldMask { paths: vec!["overdraft_limit".into(), "x".into()] });
    }),
    (E::BalanceOutOfRange, |it| it.overdraft_limit = money(&"9".repeat(40))),
];
const OF_A_STATE: [Flaw<FreezeAccountRequest>; 2] = [
    (E::InvalidAccountId, |it| it.account_id.clear()),
    (E::InvalidReason, |it| it.reason = "\n".to_owned()),
];

/// Whether both faults are of the amount, which can have only one.
fn are_one_field(first: E, second: E) -> bool {
    let is_amount =
        |it| matches!(it, E::InvalidCurrencyCode | E::InvalidAmount | E::BalanceOutOfRange);
    first != second && is_amount(first) && is_amount(second)
}

/// Every pair of faults, with the reason that must be reported.
fn pairs<Request: Clone>(good: &Request, flaws: &[Flaw<Request>]) -> Vec<(Request, E)> {
    let mut pairs = Vec::new();
    for (first, (first_reason, first_flaw)) in flaws.iter().enumerate() {
        for (second_reason, second_flaw) in &flaws[first..] {
            if are_one_field(*first_reason, *second_reason) {
                continue;
            }
            let mut request = good.clone();
            second_flaw(&mut request);
            first_flaw(&mut request);
            pairs.push((request, *first_reason));
        }
    }
    pairs
}

async fn the_lower_numbered_reason_of_two_malformed_fields_wins(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    place(&client, hold_named("h", "a", "1")).await;

    for (request, expected) in pairs(&hold("a", "1"), &OF_A_HOLD) {
        assert_reason(client.place_hold(request).await, expected);
    }
    for (request, expected) in pairs(&capture("h"), &OF_A_CAPTURE) {
        assert_reason(client.capture_hold(request).await, expected);
    }
    for (request, expected) in pairs(&release("h"), &OF_A_RELEASE) {
        assert_reason(client.release_hold(request).await, expected);
    }
    for (request, expected) in pairs(&reversal(&new_request_id()), &OF_A_REVERSAL) {
        assert_reason(client.reverse_transaction(request).await, expected);
    }
    let update = UpdateAccountRequest {
        account_id: "a".to_owned(),
        overdraft_limit: money("1"),
        ..Default::default()
    };
    for (request, expected) in pairs(&update, &OF_AN_UPDATE) {
        assert_reason(client.update_account(request).await, expected);
    }
    let good = FreezeAccountRequest {
        account_id: "a".to_owned(),
        reason: String::new(),
        ..Default::default()
    };
    for (request, expected) in pairs(&good, &OF_A_STATE) {
        assert_reason(client.freeze_account(request).await, expected);
    }

    assert_eq!(database.count("requests").await, 2, "nothing malformed was kept");
    assert_eq!(get(&client, "a").await.version, 3);
}

async fn the_first_declared_of_two_equally_wrong_fields_is_named(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    let time = Some(Timestamp { seconds: 0, nanos: -1 });

    let request = passbook::proto::ListTransactionsRequest {
        kind: -1,
        start_time: time,
        end_time: time,
        page_size: -1,
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let status = assert_reason(client.list_transactions(request.clone()).await, E::InvalidFilter);
    assert_eq!(
        fields(&status),
        ["kind", "start_time", "end_time", "page_size", "page_token"],
        "all that is wrong is said, the decisive one first"
    );
    let request = passbook::proto::ListTransactionsRequest { kind: 0, ..request };
    let status = assert_reason(client.list_transactions(request).await, E::InvalidFilter);
    assert_eq!(metadata(&status, "field"), "start_time");
}

async fn the_lower_numbered_rejection_of_a_hold_wins(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = prepare(&server).await;
    let passed = Some(Timestamp { seconds: 0, nanos: 0 });
    let largest = "99999999999999999999999999.99";
    let with = |hold_id: &str, account_id: &str, (code, amount): (&str, &str), expire_time| {
        let amount = money_of(code, amount);
        PlaceHoldRequest { amount, expire_time, ..hold_named(hold_id, account_id, "") }
    };
    // The request also has every fault of a higher number.
    let cases = [
        (with("taken", "nobody", ("EUR", "5"), passed), E::HoldExists),
        (with("", "nobody", ("EUR", "5"), passed), E::ExpireTimePassed),
        (with("", "closed", ("EUR", "5"), passed), E::ExpireTimePassed),
        (with("", "nobody", ("EUR", "5"), None), E::AccountNotFound),
        (with("", "closed", ("EUR", largest), None), E::AccountClosed),
        (with("", "frozen", ("EUR", largest), None), E::AccountFrozen),
        (with("", "open", ("EUR", "5"), None), E::CurrencyMismatch),
        (with("", "full", ("USD", largest), None), E::BalanceOutOfRange),
        (with("", "open", ("USD", "5"), None), E::InsufficientFunds),
    ];

    for (request, expected) in cases {
        assert_reason(client.clone().place_hold(request).await, expected);
    }
}

/// Empty accounts in every state, and "full", which has nearly the largest amount available besides
/// the hold "taken" of 5.00.
async fn prepare(server: &Server) -> Client {
    let client = server.client();
    for account_id in ["open", "frozen", "closed"] {
        open(&client, account_id).await;
    }
    freeze(&client, "frozen").await;
    close(&client, "closed").await.expect("it is empty");
    open_with(&client, account_of("euro", "EUR")).await;
    open_funded(&client, "full", "99999999999999999999999999.99").await;
    place(&client, hold_named("taken", "full", "5")).await;
    client
}

async fn the_lower_numbered_rejection_of_a_capture_wins(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = prepare(&server).await;
    open_funded(&client, "payer", "10").await;
    for hold_id in ["h", "released"] {
        place(&client, hold_named(hold_id, "payer", "2")).await;
    }
    released(&client, release("released")).await;
    let with = |hold_id: &str, (code, amount): (&str, &str), destination: &str| {
        let destination_account_id = destination.to_owned();
        let amount = money_of(code, amount);
        CaptureHoldRequest { amount, destination_account_id, ..capture(hold_id) }
    };
    let cases = [
        (with("missing", ("EUR", "5"), "nobody"), E::HoldNotFound),
        (with("released", ("USD", "5"), "nobody"), E::HoldNotOpen),
        (with("h", ("USD", "5"), "nobody"), E::HoldAmountExceeded),
        (with("h", ("USD", "2.01"), "closed"), E::HoldAmountExceeded),
        (with("h", ("EUR", "5"), "nobody"), E::AccountNotFound),
        (with("h", ("EUR", "5"), "closed"), E::AccountClosed),
        (with("h", ("EUR", "5"), "full"), E::CurrencyMismatch),
        (with("h", ("USD", "1"), "euro"), E::CurrencyMismatch),
        (with("h", ("USD", "1"), "full"), E::BalanceOutOfRange),
    ];

    for (request, expected) in cases {
        assert_reason(client.capture_hold(request).await, expected);
    }
    // With equal reasons the paying account is named.
    let status = assert_reason(
        client.capture_hold(with("h", ("JPY", "1"), "euro")).await,
        E::CurrencyMismatch,
    );
    assert_eq!(metadata(&status, "account_id"), "payer");
}

async fn the_lower_numbered_rejection_of_a_reversal_wins(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    for account_id in ["p", "q", "r", "deep", "other"] {
        let request = passbook::proto::CreateAccountRequest {
            unlimited_overdraft: account_id == "deep",
            ..account_of(account_id, "USD")
        };
        open_with(&client, request).await;
    }
    let post = |account_ids: &[&str]| {
        let leg = |account_id: &&str| passbook::proto::Leg {
            account_id: (*account_id).to_owned(),
            amount: money("5"),
            condition: None,
        };
        passbook::proto::PostTransactionRequest {
            request_id: new_request_id(),
            legs: account_ids.iter().map(leg).collect(),
            ..Default::default()
        }
    };
    // The later an account stands in the transaction, the lower the number of its rejection.
    let mut ids = Vec::new();
    for account_ids in
        [&["q", "deep", "p"][..], &["q", "deep", "r"], &["q", "deep"], &["q"], &["r", "p"]]
    {
        let answer = client.post_transaction(post(account_ids)).await.expect("applied");
        ids.push(answer.into_inner().transaction.expect("a transaction").transaction_id);
    }
    let reversal_of_the_last = reversed(&client, reversal(&ids[4])).await;
    // "q" is emptied, "deep" is at the lower limit of money, "r" is frozen and emptied, "p" is
    // closed.
    for (account_id, amount) in [
        ("q", "20"),
        ("deep", "15"),
        ("deep", "99999999999999999999999999.99"),
        ("p", "5"),
        ("r", "5"),
    ] {
        client.withdraw(withdrawal(account_id, amount)).await.expect("applied");
    }
    freeze(&client, "r").await;
    close(&client, "p").await.expect("it is empty");

    let expected = [
        (E::AccountClosed, "p"),
        (E::AccountFrozen, "r"),
        (E::BalanceOutOfRange, "deep"),
        (E::InsufficientFunds, "q"),
    ];
    for (id, (expected, account_id)) in ids.iter().zip(expected) {
        let answer = client.reverse_transaction(reversal(id)).await;
        let status = assert_reason(answer, expected);
        assert_eq!(metadata(&status, "account_id"), account_id);
    }
    let answer = client.reverse_transaction(reversal(&ids[4])).await;
    let status = assert_reason(answer, E::AlreadyReversed);
    let by = &reversal_of_the_last.transaction_id;
    assert_eq!(metadata(&status, "reversed_by_transaction_id"), *by);
}

async fn the_lower_numbered_rejection_of_an_update_wins(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = prepare(&server).await;
    open_with_overdraft(&client, "used", "5").await;
    client.withdraw(withdrawal("used", "5")).await.expect("applied");
    let with = |account_id: &str, currency_code: &str| UpdateAccountRequest {
        account_id: account_id.to_owned(),
        overdraft_limit: money_of(currency_code, "1"),
        expected_version: Some(99),
        ..Default::default()
    };
    let cases = [
        (with("nobody", "EUR"), E::AccountNotFound),
        (with("closed", "EUR"), E::AccountClosed),
        (with("used", "EUR"), E::CurrencyMismatch),
        (with("used", "USD"), E::InsufficientFunds),
        (with("open", "USD"), E::VersionMismatch),
    ];

    for (request, expected) in cases {
        assert_reason(client.update_account(request).await, expected);
    }
}

async fn a_reused_request_id_comes_before_rejections_by_state(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let mut client = prepare(&server).await;
    let taken = deposit("open", "1");
    client.deposit(taken.clone()).await.expect("applied");
    let request_id = || taken.request_id.clone();

    let expected = E::RequestIdReused;
    let request =
        PlaceHoldRequest { request_id: request_id(), ..hold_named("taken", "nobody", "1") };
    assert_reason(client.place_hold(request).await, expected);
    let request = CaptureHoldRequest { request_id: request_id(), ..capture("missing") };
    assert_reason(client.capture_hold(request).await, expected);
    let request = ReleaseHoldRequest { request_id: request_id(), ..release("missing") };
    assert_reason(client.release_hold(request).await, expected);
    let request =
        ReverseTransactionRequest { request_id: request_id(), ..reversal(&new_request_id()) };
    assert_reason(client.reverse_transaction(request).await, expected);

    // A fence as well, whatever the body is.
    let fence = passbook::proto::FenceRequestRequest { request_id: "no".to_owned() };
    client.fence_request(fence).await.expect("it is fenced");
    let request_id = || "no".to_owned();
    let request =
        PlaceHoldRequest { request_id: request_id(), ..hold_named("taken", "nobody", "1") };
    let status = assert_reason(client.place_hold(request).await, E::RequestFenced);
    assert_eq!(metadata(&status, "request_id"), "no");
    let request = CaptureHoldRequest { request_id: request_id(), ..capture("missing") };
    assert_reason(client.capture_hold(request).await, E::RequestFenced);
    let request = ReleaseHoldRequest { request_id: request_id(), ..release("taken") };
    assert_reason(client.release_hold(request).await, E::RequestFenced);
    let request =
        ReverseTransactionRequest { request_id: request_id(), ..reversal(&new_request_id()) };
    assert_reason(client.reverse_transaction(request).await, E::RequestFenced);
}

async fn shape_is_checked_before_any_lookup(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    let text = || "\n".to_owned();

    let request = PlaceHoldRequest { description: text(), ..hold("nobody", "1") };
    assert_reason(client.place_hold(request).await, E::InvalidDescription);
    let request = CaptureHoldRequest { description: text(), ..capture("missing") };
    assert_reason(client.capture_hold(request).await, E::InvalidDescription);
    let request = ReverseTransactionRequest { description: text(), ..reversal(&new_request_id()) };
    assert_reason(client.reverse_transaction(request).await, E::InvalidDescription);
    let request = FreezeAccountRequest {
        account_id: "nobody".to_owned(),
        reason: text(),
        ..Default::default()
    };
    assert_reason(client.freeze_account(request).await, E::InvalidReason);
    assert_eq!(database.count("requests").await, 0);
}
