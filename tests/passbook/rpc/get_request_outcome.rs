//! GetRequestOutcome: what became of a request. It reads, and changes nothing.

use passbook::proto::DepositRequest;
use tonic::Code;

use crate::harness::{
    checker,
    request::{one_of_each_kind, one_of_each_kind_refused},
    *,
};

on_both_databases! {
    an_applied_request_has_its_response_as_outcome,
    a_rejected_request_has_its_error_as_outcome,
    a_request_without_a_result_is_not_seen,
}

async fn two_servers(database: &TestDatabase) -> (Vec<Server>, Vec<Client>) {
    let servers = Server::start_fleet(database, 2).await;
    let clients = servers.iter().map(Server::client).collect();
    (servers, clients)
}

async fn an_applied_request_has_its_response_as_outcome(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let (_servers, clients) = two_servers(&database).await;
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
        let again = asked.send(&clients[1], PATIENCE).await.expect("it is replayed");
        assert_eq!(again, Answer { replayed: true, ..made });
    }
}

async fn a_rejected_request_has_its_error_as_outcome(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let (_servers, clients) = two_servers(&database).await;
    open_funded(&clients[0], "alice", "100").await;
    let placed = clients[0].clone().place_hold(hold("alice", "1")).await.expect("it is placed");
    let hold_id = placed.into_inner().hold.expect("a hold").hold_id;
    let mut history = Vec::new();
    for asked in one_of_each_kind_refused("alice", &hold_id) {
        assert_eq!(request_outcome(&clients[1], asked.request_id()).await, not_seen(false));
        let status = asked.send(&clients[0], PATIENCE).await.expect_err("it is refused");
        assert!(request::is_definite(&status), "{status:?}");
        history.push((asked, status));
    }

    // A rejection is final, whatever becomes possible later.
    open_funded(&clients[0], "nobody", "1").await;
    clients[0].clone().deposit(deposit("alice", "100000")).await.expect("applied");

    let before = get(&clients[0], "alice").await;
    for (asked, status) in history {
        assert_final_everywhere(&clients, asked.request_id(), &rejected(&status)).await;
        let again = asked.send(&clients[1], PATIENCE).await.expect_err("it is refused");
        assert_eq!(rejected(&again), rejected(&status));
    }
    assert_eq!(get(&clients[0], "alice").await, before);
}

async fn a_request_without_a_result_is_not_seen(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    let request = deposit("alice", "1");
    let id = request.request_id.clone();

    let malformed = DepositRequest { amount: money("1e1"), ..request.clone() };
    let answer = client.clone().deposit(malformed).await;
    refused(answer, Code::InvalidArgument, "INVALID_AMOUNT");
    assert_eq!(request_outcome(&client, &id).await, not_seen(false));

    let dry = DepositRequest { validate_only: true, ..request.clone() };
    client.clone().deposit(dry).await.expect("valid");
    assert_eq!(request_outcome(&client, &id).await, not_seen(false));

    // The lookup has recorded nothing.
    let made = Change::Deposit(request.clone()).send(&client, PATIENCE).await.expect("applied");
    assert!(!made.replayed);

    // A rejected reuse of the id is no request of its own.
    let another = DepositRequest { amount: money("2"), ..request };
    refused(client.clone().deposit(another).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_final_everywhere(std::slice::from_ref(&client), &id, &applied(&made)).await;
    checker::assert_consistent(&database).await;
}
