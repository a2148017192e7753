use crate::harness::{checker, *};

on_both_databases! {
    a_transaction_has_an_entry_for_each_leg_in_their_order,
    a_transaction_of_several_currencies_is_applied_as_a_whole_or_not_at_all,
    several_legs_on_one_account_are_checked_by_their_sum,
    each_leg_has_a_condition_of_its_own,
    a_repeat_gets_the_same_transaction_and_another_body_an_error,
    legs_have_limits_and_their_fields_are_named,
}

async fn a_transaction_has_an_entry_for_each_leg_in_their_order(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "shop", "0.01").await;
    open_funded(&client, "customer", "100").await;
    open(&client, "tax").await;

    let request =
        post(&[leg("customer", "-100"), leg("shop", "81"), leg("tax", "19"), leg("shop", "-0.01")]);
    let answer = client.post_transaction(request.clone()).await.expect("applied");

    let made = answer.transaction.expect("a transaction");
    assert_eq!((made.kind(), answer.replayed), (TransactionKind::Posting, false));
    let said: Vec<_> = made
        .entries
        .iter()
        .map(|it| {
            (it.account_id.as_str(), it.sequence, value(&it.amount), value(&it.balance_after))
        })
        .collect();
    let expected = [
        ("customer", 2, "-100.00", "0.00"),
        ("shop", 2, "81.00", "81.01"),
        ("tax", 1, "19.00", "19.00"),
        ("shop", 3, "-0.01", "81.00"),
    ];
    assert_eq!(said, expected);
    // For the shop's version it is one change, with two entries.
    assert_eq!(get(&client, "shop").await.version, 3);
    let found = transaction_by_request_id(&request.request_id);
    let found = client.get_transaction(found).await.expect("it exists");
    assert_eq!(found.transaction, Some(made));
    checker::assert_consistent(&database).await;
}

async fn a_transaction_of_several_currencies_is_applied_as_a_whole_or_not_at_all(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "dollars", "100").await;
    open(&client, "desk-usd").await;
    for account_id in ["euros", "desk-eur"] {
        open_with(&client, account_of(account_id, "EUR")).await;
    }
    let exchange = [
        leg("dollars", "-10"),
        leg("desk-usd", "10"),
        leg_in("desk-eur", "EUR", "-9"),
        leg_in("euros", "EUR", "9"),
    ];

    let status = client.post_transaction(post(&exchange)).await;
    let status = must_fail(status, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "account_id"), "desk-eur");
    assert_eq!(balance(&client, "dollars").await, "100.00");
    assert_eq!(balance(&client, "desk-usd").await, "0.00");

    let funding = post(&[leg_in("desk-eur", "EUR", "50")]);
    client.post_transaction(funding).await.expect("money from outside");
    client.post_transaction(post(&exchange)).await.expect("now there are euros");
    assert_eq!(balance(&client, "euros").await, "9.00");
    assert_eq!(balance(&client, "dollars").await, "90.00");

    let mixed_up = post(&[leg("dollars", "-1"), leg("euros", "1")]);
    must_fail(client.post_transaction(mixed_up).await, Reason::CurrencyMismatch);
    checker::assert_consistent(&database).await;
}

async fn several_legs_on_one_account_are_checked_by_their_sum(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;

    let fee_first = post(&[leg("a", "-25"), leg("a", "20")]);
    client.post_transaction(fee_first).await.expect("it ends above zero");
    assert_eq!(balance(&client, "a").await, "5.00");

    let status = client.post_transaction(post(&[leg("a", "-4"), leg("a", "-2")])).await;
    let status = must_fail(status, Reason::InsufficientFunds);
    assert_metadata(&status, &[("available", "5.00"), ("required", "6.00")]);
    checker::assert_consistent(&database).await;
}

async fn each_leg_has_a_condition_of_its_own(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open_funded(&client, "b", "10").await;
    let mut request = post(&[leg("a", "-1"), leg("b", "1")]);
    let at_most = Condition { max_balance_after: money("10.99"), ..Default::default() };
    request.legs[1].condition = Some(at_most);

    let status = must_fail(client.post_transaction(request).await, Reason::ConditionFailed);
    assert_metadata(&status, &[("account_id", "b"), ("condition", "max_balance_after")]);
    assert_eq!(balance(&client, "a").await, "10.00");
}

async fn a_repeat_gets_the_same_transaction_and_another_body_an_error(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["a", "b"]).await;
    let request = post(&[leg("a", "3"), leg("b", "4")]);

    let first = client.post_transaction(request.clone()).await.expect("applied");
    let again = client.post_transaction(request.clone()).await.expect("a replay");
    assert!(again.replayed);
    assert_eq!(first.transaction, again.transaction);

    let mut bodies = vec![request.clone(), request.clone(), request.clone()];
    bodies[0].legs.swap(0, 1);
    bodies[1].legs[1].amount = money("4.01");
    bodies[2].legs.pop();
    assert_request_id_reused(&client, bodies.into_iter().map(Change::Post)).await;
    assert_eq!(balance(&client, "a").await, "3.00");
}

async fn legs_have_limits_and_their_fields_are_named(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let without_amount = Leg { amount: None, ..leg("a", "1") };
    let contradiction = Leg {
        condition: Some(Condition { expected_version: Some(0), ..Default::default() }),
        ..leg("a", "1")
    };
    let cases = [
        (post(&[]), Reason::InvalidLegs, "legs"),
        (post(&vec![leg("a", "1"); 101]), Reason::InvalidLegs, "legs"),
        (post(&[leg("a", "1"), leg("a", "0")]), Reason::InvalidAmount, "legs[1].amount.value"),
        (post(&[leg("a", "-0.00")]), Reason::InvalidAmount, "legs[0].amount.value"),
        (post(&[leg("a", "1e2")]), Reason::InvalidAmount, "legs[0].amount.value"),
        (post(&[without_amount]), Reason::InvalidAmount, "legs[0].amount"),
        (post(&[leg("a b", "1")]), Reason::InvalidAccountId, "legs[0].account_id"),
        (
            post(&[leg_in("a", "usd", "1")]),
            Reason::InvalidCurrencyCode,
            "legs[0].amount.currency_code",
        ),
        (post(&[contradiction]), Reason::InvalidCondition, "legs[0].condition.expected_version"),
    ];
    for (request, expected, field) in cases {
        let status = must_fail(client.post_transaction(request).await, expected);
        assert_eq!(fields(&status), [field]);
    }
    assert_eq!(database.count("requests").await, 0);

    let largest = post(&vec![leg("a", "1"); 100]);
    client.post_transaction(largest).await.expect("a hundred legs are allowed");
    assert_eq!(balance(&client, "a").await, "100.00");
    checker::assert_consistent(&database).await;
}
