//! GetWritePathStats adds up to the requests that were made.

use crate::harness::*;

on_both_databases! {
    every_decided_request_is_counted_in_one_batch,
    a_repeat_in_a_batch_of_new_requests_is_replayed,
}

async fn every_decided_request_is_counted_in_one_batch(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    assert_eq!(server.write_path_stats().await.batch_size.unwrap_or_default().count, 0);
    open(&client, "a").await;

    deposit_at_once(&client, "a", 60).await;

    let stats = server.write_path_stats().await;
    let batches = stats.batch_size.unwrap_or_default();
    assert_eq!(batches.sum, 61.0, "the account and 60 deposits: {batches:?}");
    assert!(batches.count < 61, "nothing was shared: {batches:?}");
    assert_eq!(stats.queue_time.unwrap_or_default().count, 61);
    for times in [stats.lock_wait, stats.write_time, stats.commit_time] {
        let times = times.unwrap_or_default();
        assert_eq!(times.count, batches.count);
        assert!(0.0 < times.sum && times.p50 <= times.p99 && times.p99 <= times.max, "{times:?}");
    }
}

/// The first attempt assumes that all requests are new. The insert of their ids finds the repeat.
async fn a_repeat_in_a_batch_of_new_requests_is_replayed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    let known = deposit("a", "1000");
    client.deposit(known.clone()).await.expect("applied");

    // More requests than are looked up after one repeat, so that in each round the worker expects
    // no repeat.
    for round in 0..3 {
        let calls = (0..100).map(|number| {
            let new = deposit("a", "1");
            client.deposit(within(PATIENCE, if number == 50 { known.clone() } else { new }))
        });
        for answer in join_all(calls).await {
            answer.expect("it is answered");
        }
        for _ in 0..100 {
            client.deposit(within(PATIENCE, deposit("a", "1"))).await.expect("applied");
        }
        assert_eq!(database.count("entries").await, 1 + 199 * (round + 1));
    }
    assert_eq!(database.count("requests").await, 1 + 199 * 3);
}
