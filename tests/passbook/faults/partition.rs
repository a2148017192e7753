//! A silent partition between server and database: packets are dropped, and the old connections
//! stay dead after it.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::harness::{
    checker,
    proxy::PostgresProxy,
    ring::{RingLoad, open_ring},
    *,
};

/// From the end of the partition.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_service_recovers_within_ten_seconds_of_three_seconds_of_silence() {
    all_are_back_after_a_partition_of(seconds(3)).await;
}

/// Longer than an attempt, and than the database keeps an idle transaction.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_recovers_within_ten_seconds_of_nine_seconds_of_silence() {
    all_are_back_after_a_partition_of(seconds(9)).await;
}

async fn all_are_back_after_a_partition_of(length: Duration) {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let client = server.client();
    let (accounts, mut history) = open_ring(&client, 4).await;
    let mut watching = Watching::begin(&client, &accounts[0], 1).await;
    let load = RingLoad::start(&accounts, 16, std::slice::from_ref(&client), seed());
    tokio::time::sleep(ms(500)).await;

    // The changes in flight are at different points.
    proxy.freeze();
    tokio::time::sleep(length).await;
    proxy.silence_connections();
    proxy.thaw();

    let healed = Instant::now();
    let mut changes = JoinSet::new();
    for account_id in &accounts {
        let (client, change) = (client.clone(), Change::Deposit(deposit(account_id, "1")));
        changes.spawn(async move {
            let result = change.settle(&[client]).await;
            (change, result, healed.elapsed())
        });
    }
    let changes = changes.join_all().await;
    let slowest = changes.iter().map(|(_, _, after)| *after).max().expect("a change");
    history.extend(changes.into_iter().map(|(change, result, _)| (change, result)));
    // A read on one of the dead connections ends at its deadline.
    let mut sequence = 0;
    eventually("reads are back", async || {
        let request = GetAccountRequest { account_id: accounts[0].clone() };
        let answer = client.get_account(within(seconds(2), request)).await;
        let account = answer.ok().and_then(|answer| answer.account);
        sequence = account.as_ref().map_or(0, |account| account.sequence);
        account.is_some()
    })
    .await;
    let read = healed.elapsed();
    while watching.sequence < sequence {
        watching.next().await.expect("such an outage does not end the stream");
    }
    let watched = healed.elapsed();
    history.extend(load.stop().await);

    checker::assert_sound(&database, &history).await;
    for (what, after) in [("changes", slowest), ("reads", read), ("watchers", watched)] {
        times::promise(&format!("{what} after {length:?}"), after, RECOVERY_TIME_MAX);
    }
}
