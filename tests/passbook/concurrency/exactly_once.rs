//! One request id has one effect and one answer, whenever and wherever it is sent.

use std::collections::BTreeMap;

use prost::Message;

use crate::harness::{checker, *};

on_both_databases! {
    nine_copies_of_a_hundred_requests_over_three_processes_have_a_hundred_effects,
    nine_copies_of_a_hundred_requests_in_one_process_have_a_hundred_effects,
    another_body_under_the_same_id_is_rejected,
    a_repeat_may_differ_in_form_but_not_in_meaning,
    a_rejected_withdrawal_stays_rejected_after_the_money_arrives,
    answers_survive_a_restart_of_the_server,
    copies_of_a_rejected_request_get_one_and_the_same_rejection,
}

const REQUESTS: usize = 100;
const COPIES: usize = 9;

async fn nine_copies_of_a_hundred_requests_over_three_processes_have_a_hundred_effects(kind: Kind) {
    let (database, _servers, clients) = start_loaded(kind, 3).await;
    a_hundred_effects(&database, &clients).await;
}

async fn nine_copies_of_a_hundred_requests_in_one_process_have_a_hundred_effects(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    // All 900 are in flight together, so that copies meet in one batch.
    a_hundred_effects(&database, &[server.client()]).await;
}

async fn a_hundred_effects(database: &TestDatabase, clients: &[Client]) {
    open_funded(&clients[0], "a", "1000").await;
    open_funded(&clients[0], "b", "1000").await;
    let mut changes: Vec<Change> = (0..REQUESTS)
        .map(|number| match number % 3 {
            0 => Change::Deposit(deposit("a", "1")),
            1 => Change::Withdraw(withdrawal("b", "2")),
            _ => Change::Transfer(transfer("a", "b", "3")),
        })
        .flat_map(|change| vec![change; COPIES])
        .collect();
    fastrand::Rng::with_seed(seed()).shuffle(&mut changes);
    let mut calls = tokio::task::JoinSet::new();
    for (number, change) in changes.into_iter().enumerate() {
        let client = clients[number % clients.len()].clone();
        calls.spawn(async move {
            let answer = change.send(&client, PATIENCE).await.expect("every copy is answered");
            (change.request_id().to_owned(), answer)
        });
    }
    let mut by_request: BTreeMap<String, Vec<Answer>> = BTreeMap::new();
    for (request_id, answer) in calls.join_all().await {
        by_request.entry(request_id).or_default().push(answer);
    }

    assert_eq!(by_request.len(), REQUESTS);
    for (request_id, answers) in &by_request {
        assert_eq!(answers.len(), COPIES);
        let first = answers.iter().filter(|answer| !answer.replayed).count();
        assert_eq!(
            first, 1,
            "{request_id}: {first} of {COPIES} answers say that they are the first"
        );
        let bytes = answers[0].transaction().encode_to_vec();
        assert!(
            answers.iter().all(|answer| answer.transaction().encode_to_vec() == bytes),
            "{answers:#?}"
        );
    }
    // 34 deposits of 1, 33 withdrawals of 2, 33 transfers of 3.
    assert_eq!(balance(&clients[0], "a").await, "935.00");
    assert_eq!(balance(&clients[0], "b").await, "1033.00");
    assert_eq!(database.count("requests").await, REQUESTS as i64 + 2);
    checker::assert_consistent(database).await;
}

async fn another_body_under_the_same_id_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "100").await;
    open_funded(&client, "b", "100").await;
    open_with(&client, account_of("euro", "EUR")).await;
    let request = DepositRequest { description: "one".to_owned(), ..deposit("a", "1") };
    client.deposit(request.clone()).await.expect("applied");
    let same = || request.clone();
    let condition = Some(Condition { expected_version: Some(3), ..Default::default() });
    let others = [
        DepositRequest { amount: money("1.01"), ..same() },
        DepositRequest { amount: money_of("EUR", "1"), ..same() },
        DepositRequest { account_id: "b".to_owned(), ..same() },
        DepositRequest { account_id: "nobody".to_owned(), ..same() },
        DepositRequest { description: "two".to_owned(), ..same() },
        DepositRequest { labels: labels(&[("a", "b")]), ..same() },
        DepositRequest { condition, ..same() },
    ];
    let request_id = same().request_id;
    let withdrawal = WithdrawRequest { request_id: request_id.clone(), ..withdrawal("a", "1") };
    let transfer = TransferRequest { request_id, ..transfer("a", "b", "1") };

    let others = others.map(Change::Deposit).into_iter();
    let others = others.chain([withdrawal.into(), transfer.into()]);
    assert_request_id_reused(&client, others).await;

    assert_eq!(balance(&client, "a").await, "101.00");
    assert_eq!(balance(&client, "b").await, "100.00");
}

async fn a_repeat_may_differ_in_form_but_not_in_meaning(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let request = DepositRequest { condition: Some(Condition::default()), ..deposit("a", "1.50") };
    client.deposit(request.clone()).await.expect("applied");

    let same = [
        DepositRequest { amount: money("1.5"), ..request.clone() },
        DepositRequest { amount: money("01.50"), ..request.clone() },
        DepositRequest { condition: None, ..request },
    ];
    for request in same {
        let answer = client.deposit(request).await.expect("it is the same request");
        assert!(answer.replayed);
    }

    assert_eq!(balance(&client, "a").await, "1.50");
}

async fn a_rejected_withdrawal_stays_rejected_after_the_money_arrives(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    open_funded(&client, "a", "10").await;
    let request = withdrawal("a", "10.01");
    let rejection = must_fail(client.withdraw(request.clone()).await, Reason::InsufficientFunds);

    client.deposit(deposit("a", "1000")).await.expect("the money arrives");

    for server in servers.iter().cycle().take(20) {
        let again = server.client().withdraw(request.clone()).await;
        assert_repeated(&rejection, &must_fail(again, Reason::InsufficientFunds));
    }
    assert_eq!(balance(&client, "a").await, "1010.00");
    // A new request id is judged anew.
    client.withdraw(withdrawal("a", "10.01")).await.expect("the money is there");
}

async fn answers_survive_a_restart_of_the_server(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start(&database).await;
    let client = server.client();
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;
    let made = TransferRequest {
        description: "rent".to_owned(),
        labels: labels(&[("b", "2"), ("a", "1")]),
        ..transfer("a", "b", "4")
    };
    let first = client.transfer(made.clone()).await.expect("applied");
    let rejections = [
        Change::Withdraw(withdrawal("a", "6.01")),
        Change::Deposit(deposit("nobody", "1")),
        Change::Transfer(TransferRequest {
            amount: money_of("EUR", "1"),
            ..transfer("a", "b", "")
        }),
    ];
    let mut before = Vec::new();
    for change in &rejections {
        before.push(change.send(&client, PATIENCE).await.expect_err("it is rejected"));
    }

    server.kill9();
    server.restart().await;

    let again = client.transfer(made).await.expect("it is replayed");
    assert!(again.replayed);
    assert_eq!(
        again.transaction.expect("a transaction").encode_to_vec(),
        first.transaction.expect("a transaction").encode_to_vec()
    );
    for (change, before) in rejections.iter().zip(&before) {
        let after = change.send(&client, PATIENCE).await.expect_err("it stays rejected");
        assert_repeated(before, &after);
    }
}

async fn copies_of_a_rejected_request_get_one_and_the_same_rejection(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, 3).await;
    open_funded(&servers[0].client(), "a", "10").await;
    let request = withdrawal("a", "500");
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..60 {
        let client = servers[call % 3].client();
        let request = request.clone();
        // Deposits in between would change the answer if a request were judged twice.
        calls.spawn(async move {
            client.deposit(deposit("a", "1")).await.expect("applied");
            client.withdraw(request).await.expect_err("it is rejected")
        });
    }

    let rejections = calls.join_all().await;

    for rejection in &rejections {
        assert_repeated(&rejections[0], rejection);
    }
    assert_eq!(balance(&servers[0].client(), "a").await, "70.00");
}
