//! Of two faults in a request the lower number of `ErrorReason` is always reported.

use passbook::proto::{Condition, DepositRequest, ErrorReason, TransferRequest, WithdrawRequest};
use tonic::Status;

use crate::harness::*;

on_both_databases! {
    the_lower_numbered_reason_of_two_malformed_fields_wins,
    the_lower_numbered_rejection_by_state_wins,
    shape_is_checked_before_the_account,
}

#[track_caller]
fn assert_reason<T: std::fmt::Debug>(answer: Result<T, Status>, expected: ErrorReason) -> Status {
    let status = answer.expect_err("a fault is found");
    let name = format!("ERROR_REASON_{}", reason(&status));
    assert_eq!(ErrorReason::from_str_name(&name), Some(expected), "{status:?}");
    status
}

/// A fault of shape, with its reason.
type Flaw = (ErrorReason, fn(&mut TransferRequest));

/// In the order of `ErrorReason`.
const FLAWS: [Flaw; 8] = [
    (ErrorReason::InvalidRequestId, |request| request.request_id.clear()),
    (ErrorReason::InvalidAccountId, |request| request.destination_account_id = "?".to_owned()),
    (ErrorReason::InvalidCurrencyCode, |request| {
        request.condition.get_or_insert_default().min_balance_after = money_of("nope", "1");
    }),
    (ErrorReason::InvalidAmount, |request| {
        if let Some(amount) = &mut request.amount {
            amount.value = "1e2".to_owned();
        }
    }),
    (ErrorReason::InvalidCondition, |request| {
        request.condition.get_or_insert_default().expected_version = Some(0);
    }),
    (ErrorReason::InvalidDescription, |request| request.description = "\n".to_owned()),
    (ErrorReason::InvalidLabels, |request| {
        request.labels.insert(String::new(), String::new());
    }),
    (ErrorReason::BalanceOutOfRange, |request| {
        if let Some(amount) = &mut request.amount {
            amount.value = "9".repeat(40);
        }
    }),
];

async fn the_lower_numbered_reason_of_two_malformed_fields_wins(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    open_funded(&server.client(), "a", "10").await;
    open(&server.client(), "b").await;

    for (first, (first_reason, first_flaw)) in FLAWS.iter().enumerate() {
        for (second_reason, second_flaw) in &FLAWS[first..] {
            // Both faults are of the same field, which can have only one.
            let pair = (*first_reason, *second_reason);
            if matches!(
                pair,
                (ErrorReason::InvalidAmount, ErrorReason::BalanceOutOfRange)
                    | (ErrorReason::InvalidCurrencyCode, ErrorReason::InvalidCondition)
            ) {
                continue;
            }
            let mut request = transfer("a", "b", "1");
            second_flaw(&mut request);
            first_flaw(&mut request);
            assert_reason(server.client().transfer(request).await, *first_reason);
        }
    }

    assert_eq!(database.count("requests").await, 1, "nothing malformed was kept");
}

async fn shape_is_checked_before_the_account(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;

    let request = DepositRequest { description: "\n".to_owned(), ..deposit("nobody", "1") };
    assert_reason(client.deposit(request).await, ErrorReason::InvalidDescription);
    let request = DepositRequest { amount: money("0"), ..deposit("nobody", "") };
    assert_reason(client.deposit(request).await, ErrorReason::InvalidAmount);
    assert_eq!(database.count("requests").await, 0);
}

async fn the_lower_numbered_rejection_by_state_wins(kind: Kind) {
    let (database, _server, mut client) = start_server(kind).await;
    prepare_accounts(&database, &client).await;
    use ErrorReason as E;
    let wrong_version = || Some(Condition { expected_version: Some(99), ..Default::default() });
    let out = |account_id: &str, currency_code: &str, value: &str, condition: Option<Condition>| {
        let amount = money_of(currency_code, value);
        WithdrawRequest { amount, condition, ..withdrawal(account_id, "") }
    };
    // The request also has every fault of a higher number.
    let withdrawals = [
        (out("nobody", "EUR", "5", wrong_version()), E::AccountNotFound),
        (out("closed", "EUR", "5", wrong_version()), E::AccountClosed),
        (out("frozen", "EUR", "5", wrong_version()), E::AccountFrozen),
        (out("open", "EUR", "5", wrong_version()), E::CurrencyMismatch),
        (out("rock-bottom", "USD", "1", wrong_version()), E::BalanceOutOfRange),
        (out("open", "USD", "5", wrong_version()), E::ConditionFailed),
        (out("open", "USD", "5", None), E::InsufficientFunds),
    ];
    for (request, expected) in withdrawals {
        assert_reason(client.withdraw(request).await, expected);
    }

    // With different rejections of two accounts the lower number wins, on either side.
    let move_money = |source: &str, destination: &str, condition: Option<Condition>| {
        TransferRequest { condition, ..transfer(source, destination, "5") }
    };
    let transfers = [
        (move_money("closed", "nobody", None), E::AccountNotFound, "nobody"),
        (move_money("frozen", "closed", None), E::AccountClosed, "closed"),
        (move_money("frozen", "euro", None), E::AccountFrozen, "frozen"),
        (move_money("open", "euro", wrong_version()), E::CurrencyMismatch, "euro"),
        (move_money("open", "full", wrong_version()), E::BalanceOutOfRange, "full"),
        (move_money("open", "frozen", wrong_version()), E::ConditionFailed, "open"),
        (move_money("open", "frozen", None), E::InsufficientFunds, "open"),
    ];
    for (request, expected, account_id) in transfers {
        let status = assert_reason(client.transfer(request).await, expected);
        assert_eq!(metadata(&status, "account_id"), account_id);
    }

    // A reused request id comes before all rejections by state.
    let taken = deposit("open", "1");
    client.deposit(taken.clone()).await.expect("applied");
    let other = WithdrawRequest { request_id: taken.request_id, ..withdrawal("nobody", "5") };
    assert_reason(client.withdraw(other).await, E::RequestIdReused);
}

/// Empty accounts in every state, and two at the limits of money.
async fn prepare_accounts(database: &TestDatabase, client: &Client) {
    for account_id in ["open", "frozen", "closed", "full", "rock-bottom"] {
        let request = passbook::proto::CreateAccountRequest {
            unlimited_overdraft: account_id == "rock-bottom",
            ..account_of(account_id, "USD")
        };
        open_with(client, request).await;
    }
    open_with(client, account_of("euro", "EUR")).await;
    let largest = "99999999999999999999999999.99";
    client.clone().deposit(deposit("full", largest)).await.expect("applied");
    client.clone().withdraw(withdrawal("rock-bottom", largest)).await.expect("applied");
    let states = "UPDATE accounts SET state = account_id WHERE account_id IN ('frozen', 'closed')";
    database.execute(states).await;
}
