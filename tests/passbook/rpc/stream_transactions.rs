use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::harness::{checker, *};

on_both_databases! {
    results_come_in_the_order_of_the_requests,
    a_bad_request_in_a_stream_fails_alone,
    a_stream_that_is_broken_off_leaves_each_change_whole_and_resolvable,
    a_server_that_shuts_down_answers_what_it_has_read_and_ends_the_stream,
    an_idle_stream_ends_at_the_deadline_of_its_caller,
}

async fn results_come_in_the_order_of_the_requests(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "hot").await;
    let requests: Vec<_> = (0..3000).map(|_| one_posting(post(&[leg("hot", "1")]))).collect();

    let mut results =
        client.stream_transactions(tokio_stream::iter(requests)).await.expect("a stream");

    let mut sequence = 0;
    while let Some(response) = results.next().await {
        let result = response.expect("a result").result.expect("always there");
        sequence += 1;
        assert_eq!(made(&result).entries[0].sequence, sequence);
    }
    assert_eq!(sequence, 3000, "one result a request");
    assert_eq!(balance(&client, "hot").await, "3000.00");
    checker::assert_consistent(&database).await;
}

async fn a_bad_request_in_a_stream_fails_alone(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let requests = vec![
        one_posting(post(&[leg("a", "1")])),
        StreamTransactionsRequest::default(),
        one_posting(post(&[])),
        one_posting(post(&[leg("a", "-2")])),
        one_posting(post(&[leg("a", "1")])),
    ];

    let answer = client.stream_transactions(tokio_stream::iter(requests)).await.expect("a stream");
    let results: Vec<_> = answer
        .map(|response| response.expect("a result").result.expect("always there"))
        .collect()
        .await;

    assert_eq!(results.len(), 5);
    let reasons: Vec<_> = results[1..4].iter().map(|result| reason(&error(result))).collect();
    assert_eq!(reasons, ["INVALID_REQUESTS", "INVALID_LEGS", "INSUFFICIENT_FUNDS"]);
    assert_eq!(value(&made(&results[4]).entries[0].balance_after), "2.00");
}

async fn a_stream_that_is_broken_off_leaves_each_change_whole_and_resolvable(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["a", "b"]).await;
    let requests: Vec<_> = (0..2000).map(|_| post(&[leg("a", "1"), leg("b", "1")])).collect();
    let messages: Vec<_> = requests.iter().cloned().map(one_posting).collect();
    let mut results =
        client.stream_transactions(tokio_stream::iter(messages)).await.expect("a stream");
    for _ in 0..100 {
        results.next().await.expect("not the end").expect("a result");
    }

    drop(results);

    // Each repeat is applied now or replayed: together each has one effect.
    for some in requests.chunks(100) {
        let calls = some.iter().map(|request| client.post_transaction(request.clone()));
        for response in join_all(calls).await {
            response.expect("it is resolved");
        }
    }
    assert_eq!(balance(&client, "a").await, "2000.00");
    assert_eq!(balance(&client, "b").await, "2000.00");
    checker::assert_consistent(&database).await;
}

async fn a_server_that_shuts_down_answers_what_it_has_read_and_ends_the_stream(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start_with(&database, &["--shutdown-grace", "5m"]).await;
    let client = server.client();
    open(&client, "hot").await;
    let (sender, receiver) = mpsc::channel(1);
    let sending = tokio::spawn(async move {
        while sender.send(one_posting(post(&[leg("hot", "1")]))).await.is_ok() {
            tokio::time::sleep(ms(1)).await;
        }
    });
    let mut results =
        client.stream_transactions(ReceiverStream::new(receiver)).await.expect("a stream");
    let mut count = 0;
    let end = loop {
        match results.next().await.expect("an end with a status") {
            Ok(response) => {
                made(&response.result.expect("always there"));
                count += 1;
                if count == 100 {
                    server.terminate();
                }
            }
            Err(status) => break status,
        }
    };

    assert_eq!(reason(&end), "SHUTTING_DOWN", "{end:?}");
    let status = server.wait(PATIENCE).await.expect("no delay");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert_eq!(database.count("entries").await, count, "all that was made was answered");
    sending.abort();
}

/// The server stops reading long before its memory grows, and continues when its results are read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_results_are_not_read_is_not_read_from() {
    let (_database, _server, client) = start_loaded_server(Kind::Sqlite).await;
    open(&client, "hot").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel(1);
    let counter = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        for _ in 0..20_000 {
            let request = PostTransactionRequest {
                description: "x".repeat(1000),
                ..post(&[leg("hot", "1")])
            };
            if sender.send(one_posting(request)).await.is_err() {
                return;
            }
            counter.fetch_add(1, Relaxed);
        }
    });
    let mut results =
        client.stream_transactions(ReceiverStream::new(receiver)).await.expect("a stream");

    let mut at_rest = 0;
    eventually("unread results stop the intake", async || {
        let before = at_rest;
        tokio::time::sleep(seconds(1)).await;
        at_rest = sent.load(Relaxed);
        at_rest > 0 && at_rest == before
    })
    .await;
    println!("{at_rest} of 20000 requests taken while nobody read");
    assert!(at_rest < 5_000, "{at_rest} requests taken while nobody reads");

    let mut count = 0;
    while let Some(response) = results.next().await {
        made(&response.expect("a result").result.expect("always there"));
        count += 1;
    }
    assert_eq!(count, 20_000);
    sending.await.expect("all are sent");
}

async fn an_idle_stream_ends_at_the_deadline_of_its_caller(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let requests = tokio_stream::iter([one_posting(post(&[leg("a", "1")]))]);
    let requests = within(seconds(2), requests.chain(tokio_stream::pending()));
    let mut results = client.stream_transactions(requests).await.expect("a stream");
    made(&results.next().await.expect("a result").expect("applied").result.expect("always there"));
    let end = results.next().await.expect("an end with a status").expect_err("the deadline");
    assert_reason(&end, Reason::DeadlineExceeded);
    assert_eq!(outcome(&end), "not_applied", "of what has no result");
}
