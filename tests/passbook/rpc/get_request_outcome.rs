//! GetRequestOutcome: what became of a request. It reads, and changes nothing.

use crate::harness::{
    checker,
    request::{one_of_each_kind, one_of_each_kind_rejected},
    *,
};

on_both_databases! {
    an_applied_request_has_its_response_as_outcome,
    a_rejected_request_has_its_error_as_outcome,
    a_request_without_a_result_is_not_seen,
}

async fn an_applied_request_has_its_response_as_outcome(kind: Kind) {
    let (_database, _servers, clients) = start_loaded(kind, 2).await;
    let mut history = Vec::new();
    for asked in one_of_each_kind(&clients[0], "alice").await {
        assert_eq!(request_outcome(&clients[1], asked.request_id()).await, not_seen(false));
        let made = asked.send(&clients[0], PATIENCE).await.expect("applied");
        assert_final_everywhere(&clients, asked.request_id(), &applied(&made)).await;
        history.push((asked, made));
    }

    // Later changes do not alter the answers.
    for (_, made) in history.clone() {
        let ends = match (made.transaction, made.hold) {
            (Some(transaction), _) => Change::Reverse(reversal(&transaction.transaction_id)),
            (None, Some(hold)) => Change::CaptureHold(capture_part(&hold.hold_id, "0.50")),
            (None, None) => panic!("nothing was made"),
        };
        // The capture of the released hold is rejected; all others are applied.
        let _ = ends.send(&clients[0], PATIENCE).await;
    }
    for (asked, made) in history {
        assert_final_everywhere(&clients, asked.request_id(), &applied(&made)).await;
        let replayed = Answer { replayed: true, ..made };
        for again in [asked.clone(), asked.in_stream()] {
            let answer = again.send(&clients[1], PATIENCE).await.expect("it is replayed");
            assert_eq!(answer, replayed, "{again:?}");
        }
    }
}

async fn a_rejected_request_has_its_error_as_outcome(kind: Kind) {
    let (_database, _servers, clients) = start_loaded(kind, 2).await;
    open_funded(&clients[0], "alice", "100").await;
    let hold_id = place(&clients[0], hold("alice", "1")).await.hold_id;
    let mut history = Vec::new();
    for asked in one_of_each_kind_rejected("alice", &hold_id) {
        assert_eq!(request_outcome(&clients[1], asked.request_id()).await, not_seen(false));
        let status = asked.send(&clients[0], PATIENCE).await.expect_err("it is rejected");
        assert!(request::is_definite(&status), "{status:?}");
        history.push((asked, status));
    }

    // A rejection is final, whatever becomes possible later.
    open_funded(&clients[0], "nobody", "1").await;
    clients[0].deposit(deposit("alice", "100000")).await.expect("applied");

    let before = get(&clients[0], "alice").await;
    for (asked, status) in history {
        assert_final_everywhere(&clients, asked.request_id(), &rejected(&status)).await;
        for again in [asked.clone(), asked.in_stream()] {
            let error = again.send(&clients[1], PATIENCE).await.expect_err("it is rejected");
            assert_eq!(rejected(&error), rejected(&status), "{again:?}");
        }
    }
    assert_eq!(get(&clients[0], "alice").await, before);
}

async fn a_request_without_a_result_is_not_seen(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    let request = deposit("alice", "1");
    let id = request.request_id.clone();

    let malformed = DepositRequest { amount: money("1e1"), ..request.clone() };
    must_fail(client.deposit(malformed).await, Reason::InvalidAmount);
    assert_eq!(request_outcome(&client, &id).await, not_seen(false));

    let dry = DepositRequest { validate_only: true, ..request.clone() };
    client.deposit(dry).await.expect("valid");
    assert_eq!(request_outcome(&client, &id).await, not_seen(false));

    // The lookup has recorded nothing.
    let made = Change::Deposit(request.clone()).send(&client, PATIENCE).await.expect("applied");
    assert!(!made.replayed);

    // A rejected reuse of the id is no request of its own.
    let another = DepositRequest { amount: money("2"), ..request };
    must_fail(client.deposit(another).await, Reason::RequestIdReused);
    assert_final_everywhere(std::slice::from_ref(&client), &id, &applied(&made)).await;
    checker::assert_consistent(&database).await;
}
