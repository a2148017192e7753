use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_hold_grows_and_shrinks,
    a_hold_expires_later_earlier_or_not_at_all,
    each_request_shows_the_hold_as_it_left_it,
    every_rejection_has_its_reason_and_is_recorded_alone,
    the_fields_to_update_are_those_of_the_mask,
    a_hold_is_captured_in_parts,
    more_than_a_hold_is_captured_where_funds_allow_it,
    an_open_hold_has_its_placement_and_less_than_all_captured,
}

async fn a_hold_grows_and_shrinks(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let other = servers[1].client();
    open_funded(&client, "alice", "10").await;
    let placed = place(&client, hold_named("h", "alice", "4")).await;
    let request = hold_update("h", "10");

    let grown = client.update_hold(request.clone()).await.expect("it grows");

    let hold = grown.hold.clone().expect("a hold");
    assert!(microseconds(&hold.update_time) >= microseconds(&placed.create_time));
    let expected = Hold { amount: money("10.00"), update_time: hold.update_time, ..placed };
    assert_eq!(hold, expected);
    assert_eq!(get_hold(&other, "h").await, hold);
    assert_eq!(standing(&client, "alice").await, ["10.00", "10.00", "0.00", "4"]);
    let again = other.update_hold(request).await.expect("the same");
    assert_eq!((again.hold, again.replayed), (grown.hold, true));
    let shrunk = updated(&other, hold_update("h", "1.5")).await;
    assert_eq!(shrunk.amount, money("1.50"));
    assert_eq!(standing(&client, "alice").await, ["10.00", "1.50", "8.50", "5"]);
    let released = released(&client, release("h")).await;
    assert_eq!((released.state(), released.amount), (HoldState::Released, money("1.50")));
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn a_hold_expires_later_earlier_or_not_at_all(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let in_an_hour = PlaceHoldRequest {
        expire_time: Some(from_now(seconds(3600))),
        ..hold_named("h", "alice", "4")
    };
    place(&client, in_an_hour).await;
    let expiring = |expire_time| UpdateHoldRequest {
        expire_time,
        amount: None,
        update_mask: mask(&["expire_time"]),
        ..hold_update("h", "")
    };
    let later = timestamp(microseconds(&Some(from_now(seconds(7200)))));

    assert_eq!(updated(&client, expiring(Some(later))).await.expire_time, Some(later));
    assert_eq!(updated(&client, expiring(None)).await.expire_time, None);
    let mut time = ms(300);
    loop {
        let request = expiring(Some(from_now(time)));
        match client.update_hold(request).await {
            Ok(_) => break,
            // The machine is slow: the time had passed on arrival.
            Err(status) if reason(&status) == "EXPIRE_TIME_PASSED" => time *= 2,
            Err(status) => panic!("{status:?}"),
        }
    }
    let is_expired = async || get_hold(&client, "h").await.state() == HoldState::Expired;
    eventually("it expires", is_expired).await;
    must_fail(client.update_hold(expiring(Some(later))).await, Reason::HoldNotOpen);
    withdrawn(&client, "alice", "10").await;
    checker::assert_consistent(&database).await;
}

async fn each_request_shows_the_hold_as_it_left_it(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "alice", "20").await;
    let place = hold_named("h", "alice", "5");
    let changes = [
        Change::PlaceHold(place),
        Change::UpdateHold(hold_update("h", "9")),
        Change::CaptureHold(capture_and_keep("h", "2")),
        Change::UpdateHold(hold_update("h", "8")),
        Change::CaptureHold(capture_and_keep("h", "3")),
        Change::CaptureHold(capture_part("h", "1")),
    ];
    let mut answers = Vec::new();
    for change in &changes {
        answers.push(change.send(&client, PATIENCE).await.expect("applied"));
    }

    for (change, first) in changes.iter().zip(&answers) {
        for (server, change) in [(0, change.clone()), (1, change.clone().in_stream())] {
            let again = change.send(&servers[server].client(), PATIENCE).await.expect("the same");
            assert_eq!(again, Answer { replayed: true, ..first.clone() });
        }
        let request_id = change.request_id().to_owned();
        let request = GetRequestOutcomeRequest { request_id };
        let outcome = client.get_request_outcome(request).await.expect("an outcome");
        assert_eq!(outcome.hold, first.hold);
    }
    let standings: Vec<_> = answers.iter().map(|it| it.hold.as_ref().expect("a hold")).collect();
    let seen: Vec<_> = standings
        .iter()
        .map(|it| (value(&it.amount), it.captured_amount.clone(), it.state()))
        .collect();
    let open = HoldState::Open;
    assert_eq!(
        seen,
        [
            ("5.00", None, open),
            ("9.00", None, open),
            ("9.00", money("2.00"), open),
            ("8.00", money("2.00"), open),
            ("8.00", money("5.00"), open),
            ("8.00", money("6.00"), HoldState::Captured),
        ]
    );
    assert_eq!(standing(&client, "alice").await, ["14.00", "0.00", "14.00", "8"]);
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "2", &["h", "ended"]).await;
    released(&client, release("ended")).await;
    captured(&client, capture_and_keep("h", "1")).await;
    let past = UpdateHoldRequest { expire_time: Some(from_now(ms(0))), ..hold_update("h", "3") };
    let euros = UpdateHoldRequest { amount: money_of("EUR", "3"), ..hold_update("h", "") };
    for (request, reason, expected) in [
        (hold_update("nothing", "3"), Reason::HoldNotFound, vec![("hold_id", "nothing")]),
        (hold_update("ended", "3"), Reason::HoldNotOpen, vec![("state", "released")]),
        (past, Reason::ExpireTimePassed, vec![]),
        (euros, Reason::CurrencyMismatch, vec![("account_currency_code", "USD")]),
        (
            hold_update("h", "1"),
            Reason::HoldAmountTooLow,
            vec![("captured", "1.00"), ("required", "1.00"), ("account_id", "alice")],
        ),
        (
            hold_update("h", "10.01"),
            Reason::InsufficientFunds,
            vec![("available", "8.00"), ("required", "8.01")],
        ),
    ] {
        let status = rejected_twice(&database, &client, request, reason).await;
        for (name, value) in expected {
            assert_eq!(metadata(&status, name), value, "{status:?}");
        }
        assert!(
            status.get_details_precondition_failure().is_some() || reason == Reason::HoldNotFound
        );
    }
    freeze(&client, "alice").await;
    rejected_twice(&database, &client, hold_update("h", "2.01"), Reason::AccountFrozen).await;
    updated(&client, hold_update("h", "1.99")).await;
    checker::assert_consistent(&database).await;
}

async fn the_fields_to_update_are_those_of_the_mask(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "2", &["h"]).await;
    let both =
        UpdateHoldRequest { expire_time: Some(from_now(seconds(3600))), ..hold_update("h", "3") };
    let only = |paths: &[&str]| UpdateHoldRequest {
        request_id: new_request_id(),
        update_mask: mask(paths),
        ..both.clone()
    };
    let hold = updated(&client, only(&["amount"])).await;
    assert_eq!((value(&hold.amount), hold.expire_time), ("3.00", None));
    let four = UpdateHoldRequest { amount: money("4"), ..only(&["expire_time"]) };
    let hold = updated(&client, four).await;
    assert_eq!(value(&hold.amount), "3.00");
    assert!(hold.expire_time.is_some());
    let nothing = UpdateHoldRequest { amount: None, ..hold_update("h", "") };
    must_fail(client.update_hold(nothing.clone()).await, Reason::InvalidUpdateMask);
    must_fail(client.update_hold(only(&["state"])).await, Reason::InvalidUpdateMask);
    let missing = UpdateHoldRequest { update_mask: mask(&["amount"]), ..nothing };
    must_fail(client.update_hold(missing).await, Reason::InvalidAmount);
    must_fail(client.update_hold(hold_update("h", "0")).await, Reason::InvalidAmount);
}

async fn a_hold_is_captured_in_parts(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open(&client, "bob").await;
    place_all(&client, "alice", "5", &["h", "rest"]).await;

    let to_bob = CaptureHoldRequest { keep_open: true, ..capture_to("bob", "h", "2") };
    let first = captured(&client, to_bob).await.hold.expect("a hold");
    assert_eq!((first.state(), first.captured_amount), (HoldState::Open, money("2.00")));
    assert_eq!(standing(&client, "alice").await[..3], ["8.00", "8.00", "0.00"]);
    let status = must_fail(
        client.capture_hold(capture_and_keep("h", "3.01")).await,
        Reason::HoldAmountExceeded,
    );
    assert_eq!(metadata(&status, "held"), "3.00");
    // All that is left ends the hold.
    let last = captured(&client, capture_and_keep("h", "3")).await;
    let hold = last.hold.expect("a hold");
    assert_eq!((hold.state(), hold.captured_amount), (HoldState::Captured, money("5.00")));
    assert_eq!(hold.transaction_id, last.transaction.expect("a transaction").transaction_id);
    // What is left of the other one is released.
    captured(&client, capture_and_keep("rest", "1")).await;
    let hold = released(&client, release("rest")).await;
    assert_eq!((hold.state(), hold.captured_amount), (HoldState::Released, money("1.00")));
    assert_eq!(standing(&client, "alice").await[..3], ["4.00", "0.00", "4.00"]);
    assert_eq!(balance(&client, "bob").await, "2.00");
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn more_than_a_hold_is_captured_where_funds_allow_it(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let placed = hold_named("h", "alice", "4");
    let first = client.place_hold(placed.clone()).await.expect("placed");
    let tip = |amount| CaptureHoldRequest { allow_excess: true, ..capture_part("h", amount) };
    must_fail(client.capture_hold(capture_part("h", "5")).await, Reason::HoldAmountExceeded);
    let status = must_fail(client.capture_hold(tip("10.01")).await, Reason::InsufficientFunds);
    assert_eq!([metadata(&status, "available"), metadata(&status, "required")], ["6.00", "6.01"]);
    freeze(&client, "alice").await;
    must_fail(client.capture_hold(tip("4.01")).await, Reason::AccountFrozen);
    unfreeze(&client, "alice").await;

    let hold = captured(&client, tip("5.5")).await.hold.expect("a hold");

    assert_eq!((value(&hold.amount), hold.captured_amount), ("5.50", money("5.50")));
    let again = client.place_hold(placed).await.expect("the same");
    assert_eq!((again.hold, again.replayed), (first.hold, true));
    assert_eq!(standing(&client, "alice").await[..3], ["4.50", "0.00", "4.50"]);
    checker::assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

async fn an_open_hold_has_its_placement_and_less_than_all_captured(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "4", &["h"]).await;
    updated(&client, hold_update("h", "5")).await;
    captured(&client, capture_and_keep("h", "2")).await;
    let words = match kind {
        Kind::Sqlite => "a hold is ended once",
        Kind::Postgres => "append-only",
    };
    let change = |set: &str| format!("UPDATE holds SET {set}");
    let statements =
        ["placed = NULL", "placed = '{}'", "captured_amount = NULL, transaction_id = NULL"];
    database.must_refuse(&statements.map(change), words).await;
    database.refused(&change("transaction_id = NULL")).await;
    if kind == Kind::Postgres {
        database.must_refuse(&[change("captured_amount = 1")], words).await;
        let all = "holds_captured_have_a_transaction";
        database.must_refuse(&[change("captured_amount = 5")], all).await;
    }
}
