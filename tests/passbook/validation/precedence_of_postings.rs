//! Of two faults in a request the lower number of `ErrorReason` is reported. `UNBALANCED` is the only
//! exception.

use crate::harness::{malformed::*, *};

on_both_databases! {
    the_lower_numbered_reason_of_two_malformed_fields_wins,
    the_lower_numbered_rejection_by_state_wins,
    shape_is_checked_before_the_account,
}

/// In the order of `ErrorReason`.
const FLAWS: [Flaw<TransferRequest>; 8] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidAccountId, |it| it.destination_account_id = "?".to_owned()),
    (Reason::InvalidCurrencyCode, |it| {
        it.condition.get_or_insert_default().min_balance_after = money_of("nope", "1");
    }),
    (Reason::InvalidAmount, |it| break_amount(&mut it.amount, "1e2")),
    (Reason::InvalidCondition, |it| {
        it.condition.get_or_insert_default().expected_version = Some(0);
    }),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::BalanceOutOfRange, |it| break_amount(&mut it.amount, &"9".repeat(40))),
];

async fn the_lower_numbered_reason_of_two_malformed_fields_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;
    // Both are faults of the same field, which can have only one.
    let are_of_one_field = |first, second| {
        matches!(
            (first, second),
            (Reason::InvalidAmount, Reason::BalanceOutOfRange)
                | (Reason::InvalidCurrencyCode, Reason::InvalidCondition)
        )
    };

    for (request, expected) in pairs(&transfer("a", "b", "1"), &FLAWS, are_of_one_field) {
        must_fail(client.transfer(request).await, expected);
    }

    assert_eq!(database.count("requests").await, 1, "nothing malformed was kept");
}

async fn shape_is_checked_before_the_account(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;

    let request = DepositRequest { description: "\n".to_owned(), ..deposit("nobody", "1") };
    must_fail(client.deposit(request).await, Reason::InvalidDescription);
    let request = DepositRequest { amount: money("0"), ..deposit("nobody", "") };
    must_fail(client.deposit(request).await, Reason::InvalidAmount);
    assert_eq!(database.count("requests").await, 0);
}

async fn the_lower_numbered_rejection_by_state_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    prepare_accounts(&database, &client).await;
    let wrong_version = || Some(Condition { expected_version: Some(99), ..Default::default() });
    let out = |account_id: &str, currency_code: &str, value: &str, condition: Option<Condition>| {
        let amount = money_of(currency_code, value);
        WithdrawRequest { amount, condition, ..withdrawal(account_id, "") }
    };
    // The request also has every fault of a higher number.
    let withdrawals = [
        (out("nobody", "EUR", "5", wrong_version()), Reason::AccountNotFound),
        (out("closed", "EUR", "5", wrong_version()), Reason::AccountClosed),
        (out("frozen", "EUR", "5", wrong_version()), Reason::AccountFrozen),
        (out("open", "EUR", "5", wrong_version()), Reason::CurrencyMismatch),
        (out("open", "USD", "5", wrong_version()), Reason::ConditionFailed),
        (out("rock-bottom", "USD", "1", wrong_version()), Reason::ConditionFailed),
        (out("open", "USD", "5", None), Reason::InsufficientFunds),
        (out("rock-bottom", "USD", "1", None), Reason::BalanceOutOfRange),
    ];
    for (request, expected) in withdrawals {
        must_fail(client.withdraw(request).await, expected);
    }

    // With different rejections of two accounts the lower number wins, on either side.
    let move_money = |source: &str, destination: &str, condition: Option<Condition>| {
        TransferRequest { condition, ..transfer(source, destination, "5") }
    };
    let transfers = [
        (move_money("closed", "nobody", None), Reason::AccountNotFound, "nobody"),
        (move_money("frozen", "closed", None), Reason::AccountClosed, "closed"),
        (move_money("frozen", "euro", None), Reason::AccountFrozen, "frozen"),
        (move_money("open", "euro", wrong_version()), Reason::CurrencyMismatch, "euro"),
        (move_money("open", "full", wrong_version()), Reason::ConditionFailed, "open"),
        (move_money("open", "full", None), Reason::InsufficientFunds, "open"),
        (move_money("rock-bottom", "full", None), Reason::BalanceOutOfRange, "rock-bottom"),
    ];
    for (request, expected, account_id) in transfers {
        let status = must_fail(client.transfer(request).await, expected);
        assert_eq!(metadata(&status, "account_id"), account_id);
    }

    // Except that an unbalanced posting does not get as far as its accounts.
    let unbalanced = PostTransactionRequest {
        require_balanced: true,
        ..posting(&[("nobody", "5"), ("closed", "-4.99")])
    };
    must_fail(client.post_transaction(unbalanced).await, Reason::Unbalanced);

    // A reused request id comes before all rejections by state.
    let taken = deposit("open", "1");
    client.deposit(taken.clone()).await.expect("applied");
    let other = WithdrawRequest { request_id: taken.request_id, ..withdrawal("nobody", "5") };
    must_fail(client.withdraw(other).await, Reason::RequestIdReused);
}

/// Empty accounts in every state, and two at the limits of money.
async fn prepare_accounts(database: &TestDatabase, client: &Client) {
    open_all(client, &["open", "frozen", "closed", "full"]).await;
    open_unlimited(client, "rock-bottom").await;
    open_with(client, account_of("euro", "EUR")).await;
    client.deposit(deposit("full", LARGEST)).await.expect("applied");
    client.withdraw(withdrawal("rock-bottom", LARGEST)).await.expect("applied");
    let states = "UPDATE accounts SET state = account_id WHERE account_id IN ('frozen', 'closed')";
    database.execute(states).await;
}
