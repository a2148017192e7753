use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_release_makes_all_of_it_available_again,
    a_frozen_account_s_holds_can_be_released,
    a_repeat_answers_the_same_and_releases_nothing,
    a_request_id_that_was_used_for_another_hold_is_rejected,
    every_rejection_has_its_reason_and_is_recorded_alone,
}

async fn a_release_makes_all_of_it_available_again(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let placed = place(&client, hold_named("h", "alice", "7.50")).await;
    place(&client, hold_named("other", "alice", "1")).await;

    let answer = client.release_hold(release("h")).await.expect("it is released");
    assert!(!answer.replayed);
    let hold = answer.hold.expect("a hold");
    let expected =
        Hold { state: HoldState::Released.into(), update_time: hold.update_time, ..placed.clone() };
    assert_eq!(hold, expected, "nothing else of it changes");
    assert!(microseconds(&hold.update_time) >= microseconds(&placed.update_time));
    assert_eq!(get_hold(&client, "h").await, hold);
    assert_eq!(standing(&client, "alice").await, ["10.00", "1.00", "9.00", "5"]);
    assert_eq!(database.count("entries").await, 1, "no money has moved");
    client.withdraw(withdrawal("alice", "9")).await.expect("it is available");
    checker::assert_consistent(&database).await;
}

async fn a_frozen_account_s_holds_can_be_released(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "7.50")).await;
    freeze(&client, "alice").await;

    released(&client, release("h")).await;

    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "5"]);
    checker::assert_consistent(&database).await;
}

async fn a_repeat_answers_the_same_and_releases_nothing(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "7.50")).await;
    let request = release("h");
    let first = released(&client, request.clone()).await;
    let before = get(&client, "alice").await;

    for server in &servers {
        let again = server.client().release_hold(request.clone()).await.expect("the answer");
        assert!(again.replayed);
        assert_eq!(again.hold.as_ref(), Some(&first));
    }

    assert_eq!(get(&client, "alice").await, before);
}

async fn a_request_id_that_was_used_for_another_hold_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "3", &["h", "other"]).await;
    let first = release("h");
    released(&client, first.clone()).await;

    let other = ReleaseHoldRequest { hold_id: "other".to_owned(), ..first.clone() };
    // The same request id in another RPC.
    let capture = CaptureHoldRequest { request_id: first.request_id, ..capture("h") };
    assert_request_id_reused(&client, [other.into(), capture.into()]).await;

    assert_eq!(standing(&client, "alice").await, ["10.00", "3.00", "7.00", "5"]);
}

async fn every_rejection_has_its_reason_and_is_recorded_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "1", &["captured", "released"]).await;
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;

    let missing = release("missing");
    let status = rejected_twice(&database, &client, missing.clone(), Reason::HoldNotFound).await;
    assert_eq!(metadata(&status, "hold_id"), "missing");
    let info = status.get_details_resource_info().expect("ResourceInfo");
    assert_eq!(info.resource_name, "missing");
    for state in ["captured", "released"] {
        let status = rejected_twice(&database, &client, release(state), Reason::HoldNotOpen).await;
        assert_eq!(["hold_id", "state"].map(|it| metadata(&status, it)), [state, state]);
        assert!(status.get_details_precondition_failure().is_some());
    }

    // A later hold with this id does not turn the rejection into a release.
    place(&client, hold_named("missing", "alice", "1")).await;
    must_fail(client.release_hold(missing).await, Reason::HoldNotFound);
    assert_eq!(get_hold(&client, "missing").await.state(), HoldState::Open);
    checker::assert_consistent(&database).await;
}
