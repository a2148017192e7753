use passbook::proto::{
    CaptureHoldRequest, GetTransactionRequest, Hold, HoldState, TransactionKind,
    get_transaction_request::Lookup,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_capture_without_an_amount_takes_the_whole_hold,
    a_capture_of_a_part_releases_the_rest,
    a_capture_can_go_to_another_account_or_to_the_same_one,
    a_repeat_answers_the_same_and_takes_nothing,
    a_request_id_that_was_used_for_another_capture_is_refused,
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
        labels: [("room".to_owned(), "12".to_owned())].into(),
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
    let lookup = Some(Lookup::RequestId(request.request_id));
    let found = client.clone().get_transaction(GetTransactionRequest { lookup }).await;
    assert_eq!(found.expect("it exists").into_inner().transaction, Some(transaction));
    checker::assert_consistent(&database).await;
}

async fn a_capture_of_a_part_releases_the_rest(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "7.50")).await;
    place(&client, hold_named("other", "alice", "2")).await;

    let request = CaptureHoldRequest { amount: money("0.01"), ..capture("h") };
    let answer = captured(&client, request).await;

    let hold = answer.hold.expect("a hold");
    assert_eq!((&hold.amount, &hold.captured_amount), (&money("7.50"), &money("0.01")));
    assert_eq!(answer.transaction.expect("one").entries[0].amount, money("-0.01"));
    assert_eq!(standing(&client, "alice").await, ["9.99", "2.00", "7.99", "5"]);
    let rejection = (Code::FailedPrecondition, "HOLD_NOT_OPEN");
    rejected_twice(&database, &client, capture("h"), rejection).await;
    checker::assert_consistent(&database).await;
}

async fn a_capture_can_go_to_another_account_or_to_the_same_one(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    place(&client, hold_named("own", "alice", "3")).await;

    let request = CaptureHoldRequest {
        amount: money("6.0"),
        destination_account_id: "hotel".to_owned(),
        ..capture("h")
    };
    let transaction = captured(&client, request).await.transaction.expect("a transaction");

    let legs = |transaction: &passbook::proto::Transaction| -> Vec<(String, String, String)> {
        let of = |entry: &passbook::proto::Entry| {
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
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    let request = CaptureHoldRequest {
        amount: money("5"),
        destination_account_id: "hotel".to_owned(),
        ..capture("h")
    };
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

async fn a_request_id_that_was_used_for_another_capture_is_refused(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    for hold_id in ["h", "other"] {
        place(&client, hold_named(hold_id, "alice", "3")).await;
    }
    let first = capture("h");
    captured(&client, first.clone()).await;
    let label = [("a".to_owned(), "b".to_owned())];
    let others = [
        CaptureHoldRequest { hold_id: "other".to_owned(), ..first.clone() },
        CaptureHoldRequest { hold_id: "missing".to_owned(), ..first.clone() },
        // An explicit and an omitted amount are different bodies, even if they are equal.
        CaptureHoldRequest { amount: money("3"), ..first.clone() },
        CaptureHoldRequest { destination_account_id: "hotel".to_owned(), ..first.clone() },
        CaptureHoldRequest { description: "d".to_owned(), ..first.clone() },
        CaptureHoldRequest { labels: label.into(), ..first.clone() },
    ];

    for other in others {
        let answer = client.capture_hold(other).await;
        let status = refused(answer, Code::InvalidArgument, "REQUEST_ID_REUSED");
        assert_eq!(metadata(&status, "request_id"), first.request_id);
    }
    let other =
        passbook::proto::ReleaseHoldRequest { request_id: first.request_id, ..release("other") };
    refused(client.release_hold(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");

    assert_eq!(standing(&client, "alice").await, ["7.00", "3.00", "4.00", "5"]);
}

async fn holds_of_a_frozen_account_can_be_captured(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "hotel").await;
    place(&client, hold_named("h", "alice", "6")).await;
    freeze(&client, "alice").await;
    freeze(&client, "hotel").await;

    let request = CaptureHoldRequest {
        amount: money("5"),
        destination_account_id: "hotel".to_owned(),
        ..capture("h")
    };
    captured(&client, request).await;

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
    let largest = "99999999999999999999999999.99";
    open_funded(&client, "full", largest).await;
    let to = |destination: &str| CaptureHoldRequest {
        destination_account_id: destination.to_owned(),
        ..capture("h")
    };
    let of = |currency_code: &str, amount: &str| CaptureHoldRequest {
        amount: money_of(currency_code, amount),
        ..capture("h")
    };
    let failed = Code::FailedPrecondition;
    let cases = [
        (capture("missing"), (Code::NotFound, "HOLD_NOT_FOUND"), vec![("hold_id", "missing")]),
        (
            of("USD", "6.01"),
            (failed, "HOLD_AMOUNT_EXCEEDED"),
            vec![
                ("hold_id", "h"),
                ("currency_code", "USD"),
                ("held", "6.00"),
                ("required", "6.01"),
            ],
        ),
        (to("later"), (Code::NotFound, "ACCOUNT_NOT_FOUND"), vec![("account_id", "later")]),
        (to("closed"), (failed, "ACCOUNT_CLOSED"), vec![("account_id", "closed")]),
        (
            of("EUR", "99"),
            (failed, "CURRENCY_MISMATCH"),
            vec![
                ("account_id", "alice"),
                ("currency_code", "EUR"),
                ("account_currency_code", "USD"),
            ],
        ),
        (
            to("euro"),
            (failed, "CURRENCY_MISMATCH"),
            vec![
                ("account_id", "euro"),
                ("currency_code", "USD"),
                ("account_currency_code", "EUR"),
            ],
        ),
        (
            to("full"),
            (Code::OutOfRange, "BALANCE_OUT_OF_RANGE"),
            vec![
                ("account_id", "full"),
                ("currency_code", "USD"),
                ("balance", largest),
                ("amount", "6.00"),
            ],
        ),
    ];

    let before = (get(&client, "alice").await, get_hold(&client, "h").await);
    let mut sent = Vec::new();
    for (request, rejection, said) in cases {
        let status = rejected_twice(&database, &client, request.clone(), rejection).await;
        for (name, text) in said {
            assert_eq!(metadata(&status, name), text, "{status:?}");
        }
        let after = (get(&client, "alice").await, get_hold(&client, "h").await);
        assert_eq!(after, before, "{status:?}");
        sent.push((request, rejection, status));
    }

    // The obstacles are gone, but the rejections are final.
    open(&client, "later").await;
    place(&client, hold_named("missing", "alice", "1")).await;
    client.clone().withdraw(withdrawal("full", "100")).await.expect("applied");
    for (request, (code, expected_reason), first) in sent {
        let again = client.clone().capture_hold(request).await;
        assert_repeated(&first, &refused(again, code, expected_reason));
    }
    assert_eq!(standing(&client, "alice").await, ["10.00", "7.00", "3.00", "4"]);
    assert_eq!(get_hold(&client, "missing").await.state(), HoldState::Open);
    checker::assert_consistent(&database).await;
}

async fn a_hold_is_captured_once(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    for hold_id in ["captured", "released"] {
        place(&client, hold_named(hold_id, "alice", "1")).await;
    }
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;
    let before = get(&client, "alice").await;

    for state in ["captured", "released"] {
        // More than was held, to a missing account: the state of the hold comes first.
        let request = CaptureHoldRequest {
            amount: money("5"),
            destination_account_id: "nobody".to_owned(),
            ..capture(state)
        };
        let rejection = (Code::FailedPrecondition, "HOLD_NOT_OPEN");
        let status = rejected_twice(&database, &client, request, rejection).await;
        assert_eq!(["hold_id", "state"].map(|it| metadata(&status, it)), [state, state]);
        assert!(status.get_details_precondition_failure().is_some());
    }

    assert_eq!(get(&client, "alice").await, before);
}

async fn a_capture_needs_no_available_money(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "5").await;
    place(&client, hold_named("h", "alice", "3")).await;
    client.clone().withdraw(withdrawal("alice", "2")).await.expect("what is left");
    assert_eq!(standing(&client, "alice").await, ["-2.00", "3.00", "0.00", "3"]);

    captured(&client, CaptureHoldRequest { amount: money("2.99"), ..capture("h") }).await;

    assert_eq!(standing(&client, "alice").await, ["-4.99", "0.00", "0.01", "4"]);
    checker::assert_consistent(&database).await;
}
