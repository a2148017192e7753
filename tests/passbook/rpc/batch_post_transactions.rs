use crate::harness::{checker, *};

on_both_databases! {
    batched_requests_are_independent_and_answered_in_order,
    a_batch_of_a_thousand_shares_its_commits,
    a_batch_sent_again_is_replayed,
    a_batch_has_limits,
}

async fn send(client: &Client, requests: &[PostTransactionRequest]) -> Vec<PostTransactionResult> {
    let batch = BatchPostTransactionsRequest { requests: requests.to_vec() };
    let results = client.batch_post_transactions(batch).await.expect("an answer").results;
    assert_eq!(results.len(), requests.len());
    results
}

async fn batched_requests_are_independent_and_answered_in_order(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["a", "b"]).await;
    let too_much = post(&[leg("a", "-1000")]);
    let requests = [
        post(&[leg("a", "10")]),
        post(&[leg("a", "1e2")]),
        post(&[leg("a", "-4"), leg("b", "4")]),
        too_much.clone(),
        post(&[leg("nobody", "1")]),
        post(&[leg("b", "-4")]),
    ];

    let results = send(&client, &requests).await;

    assert_eq!(value(&made(&results[0]).entries[0].balance_after), "10.00");
    assert_eq!(reason(&error(&results[1])), "INVALID_AMOUNT");
    assert_eq!(value(&made(&results[2]).entries[1].balance_after), "4.00");
    assert_eq!(reason(&error(&results[3])), "INSUFFICIENT_FUNDS");
    assert_eq!(metadata(&error(&results[3]), "available"), "6.00");
    assert_eq!(reason(&error(&results[4])), "ACCOUNT_NOT_FOUND");
    assert_eq!(value(&made(&results[5]).entries[0].balance_after), "0.00");
    // The error equals that of the unary call.
    let alone = client.post_transaction(too_much).await.expect_err("it was rejected");
    assert_eq!(alone.details(), error(&results[3]).details());
    assert_eq!(database.count("requests").await, 5, "the malformed one is not kept");
    checker::assert_consistent(&database).await;
}

async fn a_batch_of_a_thousand_shares_its_commits(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "hot").await;
    let requests: Vec<_> = (0..1000).map(|_| post(&[leg("hot", "1")])).collect();

    let results = send(&client, &requests).await;

    for (index, result) in results.iter().enumerate() {
        assert_eq!(made(result).entries[0].sequence, index as i64 + 1, "in their order");
    }
    let times = "SELECT DISTINCT CAST(create_time_us AS TEXT) FROM entries";
    let transactions = database.texts(times).await.len();
    println!("1000 changes in at most {transactions} database transactions");
    assert!(transactions <= 20, "{transactions}");
    checker::assert_consistent(&database).await;
}

async fn a_batch_sent_again_is_replayed(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let twice = post(&[leg("a", "1")]);
    let requests = [twice.clone(), post(&[leg("a", "-9")]), twice];

    let first = send(&client, &requests).await;
    assert!(!first[0].replayed && first[2].replayed, "one id, one effect");
    assert_eq!(made(&first[0]), made(&first[2]));
    client.deposit(deposit("a", "100")).await.expect("a deposit is accepted");

    let again = send(&client, &requests).await;
    assert!(again[0].replayed && again[2].replayed);
    assert_eq!(made(&first[0]), made(&again[0]));
    assert_eq!(first[1], again[1], "a no stays a no");
    assert_eq!(balance(&client, "a").await, "101.00");
}

async fn a_batch_has_limits(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let too_many_legs = vec![post(&vec![leg("a", "1"); 100]); 51];
    for requests in [vec![], vec![post(&[leg("a", "1")]); 1001], too_many_legs] {
        let batch = BatchPostTransactionsRequest { requests };
        let status = client.batch_post_transactions(batch).await;
        let status = must_fail(status, Reason::InvalidRequests);
        assert_eq!(fields(&status), ["requests"]);
    }
    assert_eq!(database.count("requests").await, 0);

    // A hundred legs with two faults each: the error still fits into a header.
    let status = client.post_transaction(post(&vec![Leg::default(); 100])).await;
    let status = must_fail(status, Reason::InvalidAccountId);
    assert_eq!(fields(&status).len(), 17, "sixteen, and how many more");
    assert!(status.details().len() < 4096, "{}", status.details().len());
}
