//! Of two faults in a request the lower number of `ErrorReason` is reported. `UNBALANCED` is the only
//! exception.

use prost_types::Timestamp;

use crate::harness::{malformed::*, *};

on_both_databases! {
    the_lower_numbered_reason_of_two_malformed_fields_wins,
    the_lower_numbered_reason_of_a_malformed_posting_wins,
    the_legs_above_the_limit_are_not_read,
    the_lower_numbered_of_two_faults_of_an_amount_wins,
    the_lower_numbered_rejection_by_state_wins,
    shape_is_checked_before_the_account,
}

// Each in the order of `ErrorReason`.
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
const OF_A_POSTING: [Flaw<PostTransactionRequest>; 10] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidAccountId, |it| it.legs[0].account_id.clear()),
    (Reason::InvalidCurrencyCode, |it| {
        it.legs[0].condition.get_or_insert_default().max_balance_after = money_of("nope", "1");
    }),
    (Reason::InvalidAmount, |it| break_amount(&mut it.legs[0].amount, "0")),
    (Reason::InvalidCondition, |it| {
        it.legs[0].condition.get_or_insert_default().expected_version = Some(0);
    }),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::InvalidLegs, |it| it.legs.resize(101, leg("a", "1"))),
    (Reason::BalanceOutOfRange, |it| break_amount(&mut it.legs[0].amount, &"9".repeat(40))),
    (Reason::EffectiveTimeOutOfRange, |it| it.effective_time = Some(INVALID_TIME)),
];
const OF_A_POSTING_WITHOUT_LEGS: [Flaw<PostTransactionRequest>; 5] = [
    (Reason::InvalidRequestId, |it| it.request_id.clear()),
    (Reason::InvalidDescription, |it| it.description = "\n".to_owned()),
    (Reason::InvalidLabels, |it| it.labels = labels(&[("", "")])),
    (Reason::InvalidLegs, |it| it.legs.clear()),
    (Reason::EffectiveTimeOutOfRange, |it| it.effective_time = Some(INVALID_TIME)),
];
const INVALID_TIME: Timestamp = Timestamp { seconds: 0, nanos: -1 };

/// Whether both are faults of the amount's value, which can have only one of them.
fn are_of_one_field(first: Reason, second: Reason) -> bool {
    (first, second) == (Reason::InvalidAmount, Reason::BalanceOutOfRange)
}

async fn the_lower_numbered_reason_of_two_malformed_fields_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;

    for (request, expected) in pairs(&transfer("a", "b", "1"), &FLAWS, are_of_one_field) {
        must_fail(client.transfer(request).await, expected);
    }

    assert_eq!(database.count("requests").await, 1, "nothing malformed was kept");
}

async fn the_lower_numbered_reason_of_a_malformed_posting_wins(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "a").await;

    let good = posting(&[("a", "1"), ("a", "-1")]);
    let mut cases = pairs(&good, &OF_A_POSTING, are_of_one_field);
    cases.extend(pairs(&good, &OF_A_POSTING_WITHOUT_LEGS, are_of_one_field));
    for (request, expected) in cases {
        must_fail(client.post_transaction(request).await, expected);
    }

    assert_eq!(database.count("requests").await, 0, "nothing malformed was kept");
}

async fn the_legs_above_the_limit_are_not_read(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let mut request = post(&vec![leg("a", "1"); 101]);

    request.legs[100].account_id.clear();
    let status = must_fail(client.post_transaction(request.clone()).await, Reason::InvalidLegs);
    assert_eq!(fields(&status), ["legs"]);

    request.legs[99].account_id.clear();
    let status = must_fail(client.post_transaction(request).await, Reason::InvalidAccountId);
    assert_eq!(fields(&status), ["legs[99].account_id", "legs"]);
}

async fn the_lower_numbered_of_two_faults_of_an_amount_wins(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;

    // The condition has another currency than the amount, whose value is malformed.
    let min_balance_after = money_of("EUR", "1");
    let condition = Some(Condition { min_balance_after, ..Default::default() });
    let request = DepositRequest { condition, ..deposit("a", "1e2") };
    let status = must_fail(client.deposit(request).await, Reason::InvalidCurrencyCode);
    assert_eq!(fields(&status), ["condition.min_balance_after.currency_code", "amount.value"]);
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
