//! Malformed conditions and new accounts are invalid, with their reason and field, and change and
//! record nothing.

use crate::harness::{malformed::*, *};

on_both_databases! {
    conditions_that_contradict_themselves_are_invalid,
    malformed_new_accounts_are_invalid,
    the_longest_and_strangest_valid_values_are_accepted,
}

async fn conditions_that_contradict_themselves_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let none = Condition::default;
    let min = |amount: Option<Money>| Condition { min_balance_after: amount, ..none() };
    let expected_version = |version| Condition { expected_version: Some(version), ..none() };
    let crossed = Condition { max_balance_after: money("0.99"), ..min(money("1")) };
    let cases = [
        (expected_version(0), Reason::InvalidCondition, "condition.expected_version"),
        (expected_version(-1), Reason::InvalidCondition, "condition.expected_version"),
        (crossed, Reason::InvalidCondition, "condition.max_balance_after"),
        (
            min(money_of("EUR", "1")),
            Reason::InvalidCurrencyCode,
            "condition.min_balance_after.currency_code",
        ),
        (min(money("1e2")), Reason::InvalidAmount, "condition.min_balance_after.value"),
        (min(money("1.001")), Reason::InvalidAmount, "condition.min_balance_after.value"),
    ];

    for (condition, expected_reason, field) in cases {
        let input = format!("{condition:?}");
        let condition = Some(condition);
        let request = TransferRequest { condition: condition.clone(), ..transfer("a", "b", "1") };
        must_be_invalid(client.transfer(request).await, expected_reason, field, &input);
        let request = WithdrawRequest { condition, ..withdrawal("a", "1") };
        must_be_invalid(client.withdraw(request).await, expected_reason, field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn malformed_new_accounts_are_invalid(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let with = |overdraft_limit, unlimited_overdraft| CreateAccountRequest {
        overdraft_limit,
        unlimited_overdraft,
        ..account_of("new", "USD")
    };
    let (value, code) = ("overdraft_limit.value", "overdraft_limit.currency_code");
    let cases = [
        (with(money("-1"), false), Reason::InvalidAmount, value),
        (with(money("1e2"), false), Reason::InvalidAmount, value),
        (with(money("0.001"), false), Reason::InvalidAmount, value),
        (with(money("1"), true), Reason::InvalidAmount, value),
        (with(money_of("EUR", "1"), false), Reason::InvalidCurrencyCode, code),
        (with(money(&"9".repeat(40)), false), Reason::BalanceOutOfRange, value),
    ];

    for (request, expected, field) in cases {
        let input = format!("{request:?}");
        must_be_invalid(client.create_account(request).await, expected, field, &input);
    }

    fixture.assert_nothing_changed().await;
}

async fn the_longest_and_strangest_valid_values_are_accepted(kind: Kind) {
    let fixture = Fixture::start(kind).await;
    let client = &fixture.client;
    let account_id = format!("{}._:-", "Z9".repeat(30));
    open(client, &account_id).await;
    let request = DepositRequest {
        request_id: "'; DROP TABLE requests; -- \\ \" $1 ?1 %s ~".to_owned() + &"!".repeat(19),
        account_id: account_id.clone(),
        amount: money("000000000000000000000000000000000000000099999999999999999999999999.99"),
        description: "ä".repeat(512),
        labels: (0..32).map(|number| (format!("{number:a>63}",), "ü".repeat(128))).collect(),
        condition: Some(Condition { max_balance_after: money(LARGEST), ..Default::default() }),
        ..Default::default()
    };
    assert!(request.request_id.len() <= 64 && account_id.len() == 64);

    let answer = client.deposit(request.clone()).await.expect("it is all within the limits");

    let transaction = answer.transaction.expect("a transaction");
    assert_eq!(transaction.request_id, request.request_id);
    assert_eq!(
        (&transaction.description, &transaction.labels),
        (&request.description, &request.labels)
    );
    assert_eq!(balance(client, &account_id).await, LARGEST);
}
