use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_capture_without_an_amount_takes_the_whole_hold,
    a_capture_of_a_part_releases_the_rest,
    a_capture_can_go_to_another_account_or_to_the_same_one,
    a_repeat_answers_the_same_and_takes_nothing,
    a_request_id_that_was_used_for_another_capture_is_rejected,
    holds_of_a_frozen_account_can_be_captured,
    every_rejection_has_its_reason_and_is_recorded_alone,
    a_hold_is_captured_once,
    a_capture_needs_no_available_money,
}

async fn a_capture_without_an_amount_takes_the_whole_hold(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let placed = place(&client, hold_named("h", "alice", "7.50")).await;
    let request = CaptureHoldRequest {
        description: "Zimmer 12".to_owned(),
        labels: labels(&[("room", "12")]),
        ..capture("h")
    };

    let answer = captured(&client, request.clone()).await;

    assert!(!answer.replayed);
    let transaction = answer.transaction.expect("a transaction");
    let id = uuid::Uuid::parse_str(&transaction.transaction_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(transaction.kind(), TransactionKind::Capture);
    assert_eq!(transaction.request_id, request.request_id);
    assert_eq!(
        (&transaction.description, &transaction.labels),
        (&request.description, &request.labels)
    );
    let [entry] = &transaction.entries[..] else { panic!("{:?}", transaction.entries) };
    assert_eq!((entry.account_id.as_str(), entry.sequence), ("alice", 2));
    assert_eq!((&entry.amount, &entry.balance_after), (&money("-7.50"), &money("2.50")));
    assert_eq!(entry.transaction_id, transaction.transaction_id);
    assert_eq!(entry.create_time, transaction.create_time);
    assert_eq!(entry.hash.len(), 32);
    assert_eq!(
        (
            transaction.reverses_transaction_id.as_str(),
            transaction.reversed_by_transaction_id.as_str()
        ),
        ("", "")
    );
    let hold = answer.hold.expect("a hold");
    let expected = Hold {
        state: HoldState::Captured.into(),
        captured_amount: money("7.50"),
        transaction_id: transaction.transaction_id.clone(),
        update_time: hold.update_time,
        ..placed.clone()
    };
    assert_eq!(hold, expected, "nothing else of it changes");
    assert!(microseconds(&hold.update_time) >= microseconds(&placed.update_time));
    assert_eq!(get_hold(&client, "h").await, hold);
    assert_eq!(standing(&client, "alice").await, ["2.50", "0.00", "2.50", "4"]);
    let found = client.get_transaction(transaction_by_request_id(&request.request_id)).await;
    assert_eq!(found.expect("it exists").transaction, Some(transaction));
    checker::assert_consistent(&database).await;
}

async fn a_capture_of_a_part_releases_the_rest(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "7.50")).await;
    place(&client, hold_named("other", "alice", "2")).await;

    let answer = captured(&client, capture_part("h", "0.01")).await;

    let hold = answer.hold.expect("a hold");
    assert_eq!((&hold.amount, &hold.captured_amount), (&money("7.50"), &money("0.01")));
    assert_eq!(answer.transaction.expect("one").entries[0].amount, money("-0.01"));
    assert_eq!(standing(&client, "alice").await, ["9.99", "2.00", "7.99", "5"]);
    rejected_twice(&database, &client, capture("h"), Reason::HoldNotOpen).await;
    checker::assert_consistent(&database).await;
}

async fn a_capture_can_go_to_another_account_or_to_the_same_one(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    place(&client, hold_named("own", "alice", "3")).await;

    let request = capture_to("hotel", "h", "6.0");
    let transaction = captured(&client, request).await.transaction.expect("a transaction");

    let legs = |transaction: &Transaction| -> Vec<(String, String, String)> {
        let of = |entry: &Entry| {
            let (amount, after) = (value(&entry.amount), value(&entry.balance_after));
            (entry.account_id.clone(), amount.to_owned(), after.to_owned())
        };
        transaction.entries.iter().map(of).collect()
    };
    let expected = [("alice", "-6.00", "4.00"), ("hotel", "6.00", "6.00")];
    assert_eq!(legs(&transaction), expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
    assert_eq!(standing(&client, "alice").await, ["4.00", "3.00", "1.00", "5"]);
    assert_eq!(standing(&client, "hotel").await, ["6.00", "0.00", "6.00", "2"]);

    let request =
        CaptureHoldRequest { destination_account_id: "alice".to_owned(), ..capture("own") };
    let transaction = captured(&client, request).await.transaction.expect("a transaction");
    let expected = [("alice", "-3.00", "1.00"), ("alice", "3.00", "4.00")];
    assert_eq!(legs(&transaction), expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
    assert_eq!(standing(&client, "alice").await, ["4.00", "0.00", "4.00", "6"]);
    checker::assert_consistent(&database).await;
}

async fn a_repeat_answers_the_same_and_takes_nothing(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    let request = capture_to("hotel", "h", "5");
    let mut first = captured(&client, request.clone()).await;
    let transaction_id = first.transaction.as_ref().expect("one").transaction_id.clone();
    // Later changes do not alter the answer.
    reversed(&client, reversal(&transaction_id)).await;
    let before = get(&client, "alice").await;

    first.replayed = true;
    for server in &servers {
        assert_eq!(captured(&server.client(), request.clone()).await, first);
    }

    assert_eq!(get(&client, "alice").await, before);
    let hold = get_hold(&client, "h").await;
    assert_eq!(hold.state(), HoldState::Captured, "a hold that was captured stays captured");
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "5"]);
    checker::assert_consistent(&database).await;
}

async fn a_request_id_that_was_used_for_another_capture_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place_all(&client, "alice", "3", &["h", "other"]).await;
    let first = capture("h");
    captured(&client, first.clone()).await;
    let others = [
        CaptureHoldRequest { hold_id: "other".to_owned(), ..first.clone() },
        CaptureHoldRequest { hold_id: "missing".to_owned(), ..first.clone() },
        // An explicit and an omitted amount are different bodies, even if they are equal.
        CaptureHoldRequest { amount: money("3"), ..first.clone() },
        CaptureHoldRequest { destination_account_id: "hotel".to_owned(), ..first.clone() },
        CaptureHoldRequest { description: "d".to_owned(), ..first.clone() },
        CaptureHoldRequest { labels: labels(&[("a", "b")]), ..first.clone() },
    ];
    let other = ReleaseHoldRequest { request_id: first.request_id, ..release("other") };

    let others = others.map(Change::CaptureHold).into_iter().chain([other.into()]);
    assert_request_id_reused(&client, others).await;

    assert_eq!(standing(&client, "alice").await, ["7.00", "3.00", "4.00", "5"]);
}

async fn holds_of_a_frozen_account_can_be_captured(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    freeze(&client, "alice").await;
    freeze(&client, "hotel").await;

    captured(&client, capture_to("hotel", "h", "5")).await;

    assert_eq!(standing(&client, "alice").await, ["5.00", "0.00", "5.00", "5"]);
    assert_eq!(balance(&client, "hotel").await, "5.00");
    checker::assert_consistent(&database).await;
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "6")).await;
    open(&client, "closed").await;
    close(&client, "closed").await.expect("it is closed");
    open_with(&client, account_of("euro", "EUR")).await;
    open_funded(&client, "full", LARGEST).await;
    let to = |destination: &str| capture_to(destination, "h", "6");
    let of = |currency_code: &str, amount: &str| CaptureHoldRequest {
        amount: money_of(currency_code, amount),
        ..capture("h")
    };
    let exceeded = [
        ("hold_id", "h"),
        ("account_id", "alice"),
        ("currency_code", "USD"),
        ("held", "6.00"),
        ("required", "6.01"),
    ];
    let not_dollars =
        [("account_id", "alice"), ("currency_code", "EUR"), ("account_currency_code", "USD")];
    let not_euros =
        [("account_id", "euro"), ("currency_code", "USD"), ("account_currency_code", "EUR")];
    let too_much = [
        ("account_id", "full"),
        ("currency_code", "USD"),
        ("balance", LARGEST),
        ("amount", "6.00"),
    ];
    let cases: [RejectedCase<'_>; 7] = [
        (capture("missing").into(), Reason::HoldNotFound, &[("hold_id", "missing")]),
        (of("USD", "6.01").into(), Reason::HoldAmountExceeded, &exceeded),
        (to("later").into(), Reason::AccountNotFound, &[("account_id", "later")]),
        (to("closed").into(), Reason::AccountClosed, &[("account_id", "closed")]),
        (of("EUR", "99").into(), Reason::CurrencyMismatch, &not_dollars),
        (to("euro").into(), Reason::CurrencyMismatch, &not_euros),
        (to("full").into(), Reason::BalanceOutOfRange, &too_much),
    ];

    let rejections = all_rejected(&database, &client, &cases).await;

    // The obstacles are gone, but the rejections are final.
    open(&client, "later").await;
    place(&client, hold_named("missing", "alice", "1")).await;
    withdrawn(&client, "full", "100").await;
    assert_still_rejected(&client, &rejections).await;
    assert_eq!(standing(&client, "alice").await, ["10.00", "7.00", "3.00", "4"]);
    assert_eq!(get_hold(&client, "missing").await.state(), HoldState::Open);
    checker::assert_consistent(&database).await;
}

async fn a_hold_is_captured_once(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "1", &["captured", "released"]).await;
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;

    for state in ["captured", "released"] {
        // More than was held, to a missing account: the state of the hold comes first.
        let request = capture_to("nobody", state, "5");
        let status = rejected_twice(&database, &client, request, Reason::HoldNotOpen).await;
        assert_eq!(["hold_id", "state"].map(|it| metadata(&status, it)), [state, state]);
        assert!(status.get_details_precondition_failure().is_some());
    }
}

async fn a_capture_needs_no_available_money(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "5").await;
    place(&client, hold_named("h", "alice", "3")).await;
    client.withdraw(withdrawal("alice", "2")).await.expect("what is left");
    assert_eq!(standing(&client, "alice").await, ["-2.00", "3.00", "0.00", "3"]);

    captured(&client, capture_part("h", "2.99")).await;

    assert_eq!(standing(&client, "alice").await, ["-4.99", "0.00", "0.01", "4"]);
    checker::assert_consistent(&database).await;
}
