use prost_types::Timestamp;
use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_hold_reduces_available_and_not_the_balance,
    a_hold_without_an_id_gets_one_from_the_server,
    the_time_of_expiry_is_rounded_up_to_a_microsecond,
    a_repeat_answers_the_hold_as_it_was_placed,
    a_request_id_that_was_used_for_another_hold_is_rejected,
    holds_add_up_to_the_last_cent_that_is_available,
    an_account_without_a_limit_holds_up_to_the_limit_of_money,
    every_rejection_has_its_reason_and_is_recorded_alone,
    a_hold_id_is_never_reused,
    a_time_that_has_passed_is_rejected_with_both_times,
}

async fn a_hold_reduces_available_and_not_the_balance(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let before = open_funded(&client, "alice", "10").await;
    let expire_time = Some(Timestamp { seconds: 4_000_000_000, nanos: 123_456_000 });
    let request = PlaceHoldRequest {
        expire_time,
        description: "für Zimmer 12'; --".to_owned(),
        labels: labels(&[("room", "12"), ("z", "")]),
        ..hold_named("room-12", "alice", "7.5")
    };

    let answer = client.place_hold(request.clone()).await.expect("it is placed");
    assert!(!answer.replayed);
    let hold = answer.hold.expect("a hold");
    let expected = Hold {
        created_by: String::new(),
        ended_by: String::new(),
        hold_id: "room-12".to_owned(),
        account_id: "alice".to_owned(),
        amount: money("7.50"),
        state: HoldState::Open.into(),
        expire_time,
        captured_amount: None,
        transaction_id: String::new(),
        description: request.description,
        labels: request.labels,
        create_time: hold.create_time,
        update_time: hold.create_time,
        request_id: request.request_id,
    };
    assert_eq!(hold, expected);
    assert!(microseconds(&hold.create_time) >= microseconds(&before.update_time));
    assert_eq!(get_hold(&client, "room-12").await, hold);
    let account = get(&client, "alice").await;
    assert_eq!(standing(&client, "alice").await, ["10.00", "7.50", "2.50", "3"]);
    assert_eq!(account.sequence, 1, "it is no entry");
    assert_eq!(account.update_time, hold.create_time);
    let answer = client.withdraw(withdrawal("alice", "2.51")).await;
    let status = must_fail(answer, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "available"), "2.50");
    client.withdraw(withdrawal("alice", "2.5")).await.expect("what is not held is free");
    checker::assert_consistent(&database).await;
}

async fn a_hold_without_an_id_gets_one_from_the_server(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let request = hold("alice", "1");

    let first = place(&client, request.clone()).await;
    let again = place(&client, request).await;
    let other = place(&client, hold("alice", "1")).await;

    let id = uuid::Uuid::parse_str(&first.hold_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(again, first, "repeats get the same name");
    assert_ne!(other.hold_id, first.hold_id);
    assert_eq!(first.expire_time, None);
    assert_eq!(standing(&client, "alice").await, ["10.00", "2.00", "8.00", "4"]);
}

async fn the_time_of_expiry_is_rounded_up_to_a_microsecond(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    // The last one is the latest representable time: there is no later microsecond.
    let cases = [
        (4_000_000_000, 1, 4_000_000_000, 1000),
        (4_000_000_000, 999_999_001, 4_000_000_001, 0),
        (4_000_000_000, 999_999_000, 4_000_000_000, 999_999_000),
        (253_402_300_799, 999_999_999, 253_402_300_799, 999_999_000),
    ];

    for (seconds, nanos, expected_seconds, expected_nanos) in cases {
        let expire_time = Some(Timestamp { seconds, nanos });
        let hold = place(&client, PlaceHoldRequest { expire_time, ..hold("alice", "1") }).await;
        let expected = Timestamp { seconds: expected_seconds, nanos: expected_nanos };
        assert_eq!(hold.expire_time, Some(expected));
    }
}

async fn a_repeat_answers_the_hold_as_it_was_placed(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "alice", "30").await;
    let [kept, to_capture, to_release] =
        ["kept", "to-capture", "to-release"].map(|hold_id| hold_named(hold_id, "alice", "1"));
    let mut placed = Vec::new();
    for request in [&kept, &to_capture, &to_release] {
        placed.push(place(&client, request.clone()).await);
    }
    captured(&client, capture("to-capture")).await;
    released(&client, release("to-release")).await;
    let brief = place_and_expire(&client, hold_named("brief", "alice", "1")).await;
    let to_expire = PlaceHoldRequest {
        request_id: brief.request_id.clone(),
        expire_time: brief.expire_time,
        ..hold_named("brief", "alice", "1")
    };
    placed.push(brief);
    let before = get(&client, "alice").await;

    for (request, first) in [kept, to_capture, to_release, to_expire].into_iter().zip(placed) {
        // Another server, which has never seen it, is asked as well.
        for server in &servers {
            let again = server.client().place_hold(request.clone()).await.expect("the answer");
            assert!(again.replayed);
            assert_eq!(again.hold, Some(first.clone()));
        }
    }

    assert_eq!(get(&client, "alice").await, before);
    checker::assert_consistent(&database).await;
}

async fn a_request_id_that_was_used_for_another_hold_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    let first = PlaceHoldRequest {
        expire_time: Some(Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        ..hold_named("h", "alice", "1")
    };
    place(&client, first.clone()).await;
    let others = [
        PlaceHoldRequest { hold_id: "other".to_owned(), ..first.clone() },
        PlaceHoldRequest { hold_id: String::new(), ..first.clone() },
        PlaceHoldRequest { account_id: "bob".to_owned(), ..first.clone() },
        PlaceHoldRequest { amount: money("1.01"), ..first.clone() },
        PlaceHoldRequest { amount: money_of("EUR", "1"), ..first.clone() },
        PlaceHoldRequest { expire_time: None, ..first.clone() },
        PlaceHoldRequest { description: "d".to_owned(), ..first.clone() },
        PlaceHoldRequest { labels: labels(&[("a", "b")]), ..first.clone() },
    ];
    // A deposit is a different request, whatever its fields.
    let other = DepositRequest { request_id: first.request_id.clone(), ..deposit("alice", "1") };

    let others = others.map(Change::PlaceHold).into_iter().chain([other.into()]);
    assert_request_id_reused(&client, others).await;
    // Another spelling of the same amount is the same request.
    let same = PlaceHoldRequest { amount: money("001.00"), ..first.clone() };
    assert!(client.place_hold(same).await.expect("the answer").replayed);
    assert_eq!(standing(&client, "alice").await, ["10.00", "1.00", "9.00", "3"]);
}

async fn holds_add_up_to_the_last_cent_that_is_available(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "5").await;
    client.deposit(deposit("alice", "10")).await.expect("applied");
    place(&client, hold_named("a", "alice", "14.99")).await;
    place(&client, hold_named("b", "alice", "0.01")).await;
    assert_eq!(standing(&client, "alice").await, ["10.00", "15.00", "0.00", "4"]);

    let status =
        rejected_twice(&database, &client, hold("alice", "0.01"), Reason::InsufficientFunds).await;

    let names = ["account_id", "currency_code", "available", "required", "version"];
    assert_eq!(names.map(|it| metadata(&status, it)), ["alice", "USD", "0.00", "0.01", "4"]);
    assert!(status.get_details_precondition_failure().is_some());
    assert_eq!(standing(&client, "alice").await, ["10.00", "15.00", "0.00", "4"]);
    checker::assert_consistent(&database).await;
}

async fn an_account_without_a_limit_holds_up_to_the_limit_of_money(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_unlimited(&client, "bank").await;
    place(&client, hold_named("all", "bank", LARGEST)).await;

    let status =
        rejected_twice(&database, &client, hold("bank", "0.01"), Reason::BalanceOutOfRange).await;

    let names = ["account_id", "currency_code", "balance", "amount"];
    assert_eq!(names.map(|it| metadata(&status, it)), ["bank", "USD", "0.00", "0.01"]);
    let negative = format!("-{LARGEST}");
    assert_eq!(standing(&client, "bank").await, ["0.00", LARGEST, &negative, "2"]);
    captured(&client, capture("all")).await;
    assert_eq!(standing(&client, "bank").await, [&negative, "0.00", &negative, "3"]);
    checker::assert_consistent(&database).await;
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_all(&client, &["frozen", "closed"]).await;
    open_funded(&client, "poor", "1").await;
    freeze(&client, "frozen").await;
    close(&client, "closed").await.expect("it is closed");
    place(&client, hold_named("taken", "alice", "1")).await;
    let euro = PlaceHoldRequest { amount: money_of("EUR", "1"), ..hold("alice", "") };
    let not_dollars =
        [("account_id", "alice"), ("currency_code", "EUR"), ("account_currency_code", "USD")];
    let poor = [("account_id", "poor"), ("available", "1.00"), ("required", "1.01")];
    let cases: [RejectedCase<'_>; 6] = [
        (hold_named("taken", "alice", "1").into(), Reason::HoldExists, &[("hold_id", "taken")]),
        (hold("nobody", "1").into(), Reason::AccountNotFound, &[("account_id", "nobody")]),
        (hold("closed", "1").into(), Reason::AccountClosed, &[("account_id", "closed")]),
        (hold("frozen", "1").into(), Reason::AccountFrozen, &[("account_id", "frozen")]),
        (euro.into(), Reason::CurrencyMismatch, &not_dollars),
        (hold("poor", "1.01").into(), Reason::InsufficientFunds, &poor),
    ];

    let rejections = all_rejected(&database, &client, &cases).await;

    // The obstacles are gone, but the rejections are final.
    open_funded(&client, "nobody", "10").await;
    unfreeze(&client, "frozen").await;
    for account_id in ["frozen", "poor"] {
        deposited(&client, account_id, "10").await;
    }
    assert_still_rejected(&client, &rejections).await;
    for account_id in ["nobody", "frozen", "poor"] {
        assert_eq!(value(&get(&client, account_id).await.held), "0.00");
    }
    checker::assert_consistent(&database).await;
}

async fn a_hold_id_is_never_reused(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    place_all(&client, "alice", "1", &["open", "captured", "released"]).await;
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;
    place_and_expire(&client, hold_named("expired", "alice", "1")).await;
    // The rejection records the expiry.
    let again = client.place_hold(hold_named("expired", "alice", "1")).await;
    must_fail(again, Reason::HoldExists);

    for hold_id in ["open", "captured", "released", "expired"] {
        for account_id in ["alice", "bob", "nobody"] {
            let request = hold_named(hold_id, account_id, "1");
            let status = rejected_twice(&database, &client, request, Reason::HoldExists).await;
            assert_eq!(metadata(&status, "hold_id"), hold_id);
            let info = status.get_details_resource_info().expect("ResourceInfo");
            assert_eq!(info.resource_name, hold_id);
        }
    }

    assert_eq!(standing(&client, "bob").await, ["10.00", "0.00", "10.00", "2"]);
    checker::assert_consistent(&database).await;
}

async fn a_time_that_has_passed_is_rejected_with_both_times(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let before = open_funded(&client, "alice", "10").await;
    let opened = before.create_time;
    let early = Some(Timestamp { seconds: -62_135_596_800, nanos: 0 });
    let epoch = Some(Timestamp { seconds: 0, nanos: 0 });

    for expire_time in [opened, epoch, early] {
        let request = PlaceHoldRequest { expire_time, ..hold("alice", "1") };
        let status = rejected_twice(&database, &client, request, Reason::ExpireTimePassed).await;
        let said = metadata(&status, "expire_time_us");
        assert_eq!(said, microseconds(&expire_time).to_string());
        let now: i64 = metadata(&status, "now_us").parse().expect("a number");
        assert!(now >= microseconds(&opened), "{now}");
        assert!(status.get_details_precondition_failure().is_some());
    }

    assert_eq!(get(&client, "alice").await, before);
}
