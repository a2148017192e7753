//! WatchEntries misses and repeats nothing through cuts, kills, slow readers and outages.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use crate::harness::{
    ledger_dump::LedgerDump,
    proxy::PostgresProxy,
    ring::{RingLoad, open_ring},
    *,
};

on_both_databases! {
    reconnects_and_a_killed_server_lose_and_repeat_no_entry,
    a_watcher_that_does_not_read_is_cut_off_and_costs_no_memory,
}

/// The entries of an account in the database.
async fn stored(database: &TestDatabase, account_id: &str) -> Vec<(i64, String)> {
    let mut dump = LedgerDump::read(database).await;
    let entries = dump.entries.remove(account_id).unwrap_or_default();
    entries.into_iter().map(|entry| (entry.sequence, entry.transaction_id)).collect()
}

async fn reconnects_and_a_killed_server_lose_and_repeat_no_entry(kind: Kind) {
    const RECONNECTS: usize = 20;
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut servers = Server::start_fleet(&database, 2).await;
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    let (accounts, _) = open_ring(&clients[0], 2).await;
    let load = RingLoad::start(&accounts, 8, &clients, seed());
    let mut received = Vec::new();
    let (mut sequence, mut streams, mut ends) = (0, 0, 0);

    while streams < RECONNECTS {
        let client = &clients[streams % clients.len()];
        let Ok(mut watching) = Watching::try_begin(client, "ring-0", sequence).await else {
            tokio::time::sleep(ms(20)).await;
            continue;
        };
        streams += 1;
        let read = async {
            loop {
                match watching.next().await {
                    Ok(entries) => received.extend(entries),
                    Err(status) => return status,
                }
            }
        };
        if streams == RECONNECTS / 2 || streams == RECONNECTS - 1 {
            let killed = (streams - 1) % clients.len();
            let kill = async {
                tokio::time::sleep(ms(30)).await;
                servers[killed].kill9();
                servers[killed].restart().await;
            };
            let (ended, ()) = tokio::join!(timeout(PATIENCE, read), kill);
            ended.expect("the stream ends with its server");
            ends += 1;
        } else {
            let _ = timeout(ms(fastrand::u64(50..400)), read).await;
        }
        sequence = watching.sequence;
    }
    load.stop().await;
    let last = get(&clients[0], "ring-0").await.sequence;
    received.extend(Watching::begin(&clients[1], "ring-0", sequence).await.until(last).await);

    let received: Vec<_> =
        received.into_iter().map(|it| (it.sequence, it.transaction_id)).collect();
    println!("{kind:?}: {} entries by {streams} streams, {ends} of them killed", received.len());
    assert_eq!(received, stored(&database, "ring-0").await, "each entry once and in order");
    assert_eq!(ends, 2);
    assert!(received.len() > RECONNECTS, "{} entries", received.len());
}

async fn a_watcher_that_does_not_read_is_cut_off_and_costs_no_memory(kind: Kind) {
    const SLOW: usize = 100;
    let (_database, server, client) = start_loaded_server(kind).await;
    open(&client, "hot").await;
    post_many(&client, "hot", 4000).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut watching = Watching::begin(&narrow_client(&server), "hot", 0).await;
        // Reads one message and then stops reading.
        watching.next().await.expect("the first entries");
        slow.push(watching);
    }
    let mut slow_events = EventWatching::begin(&narrow_client(&server), all_events()).await;
    slow_events.next().await.expect("the first events");
    let mut others = join_all((0..20).map(|_| Watching::begin(&client, "hot", 4000))).await;
    let began = Instant::now();
    tokio::time::sleep(seconds(2)).await;
    let memory_before = server.memory_kib();

    let mut last = 4000;
    while began.elapsed() < seconds(13) {
        post_many(&client, "hot", 200).await;
        last += 200;
        join_all(others.iter_mut().map(|other| other.until(last))).await;
    }

    let memory_after = server.memory_kib();
    println!("{kind:?}: {memory_before} KiB before, {memory_after} KiB after {last} entries");
    assert!(memory_after < memory_before + 24 * 1024, "{memory_before} -> {memory_after} KiB");
    let ends = join_all(slow.iter_mut().map(Watching::end));
    for end in timeout(PATIENCE, ends).await.expect("they were cut off before") {
        assert_reason(&end, Reason::WatcherTooSlow);
    }
    let end = timeout(PATIENCE, slow_events.end()).await.expect("it was cut off before");
    assert_reason(&end, Reason::WatcherTooSlow);
    let slow = slow.remove(0);
    assert!(slow.sequence >= 250 && slow.sequence < 4000, "cut at {}", slow.sequence);
    Watching::begin(&client, "hot", slow.sequence).await.until(last).await;
}

/// A client with small flow-control windows and its own connection.
fn narrow_client(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(65_535);
    Client::anonymous(endpoint.initial_connection_window_size(65_535).connect_lazy())
}

/// Light on tests beside it: opened on one account, and idle.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_beyond_the_limit_is_shed_until_another_leaves() {
    const LIMIT: usize = 10_000;
    let database = TestDatabase::create_for(Kind::Sqlite, Load::Alone).await;
    let server = Server::start(&database).await;
    open(&server.client(), "alice").await;
    let mut watching = Vec::new();
    while watching.len() < LIMIT {
        let client = server.client();
        watching.extend(join_all((0..500).map(|_| Watching::begin(&client, "alice", 0))).await);
    }

    let answer = Watching::try_begin(&server.client(), "alice", 0).await.map(|_| ());
    let status = must_fail(answer, Reason::Overloaded);
    assert!(status.message().contains("10000"), "{}", status.message());
    assert_eq!(outcome(&status), "", "nothing was to be changed");

    println!("{} KiB with {LIMIT} who watch", server.memory_kib());
    watching.truncate(LIMIT - 1);
    eventually("a place is free", async || {
        Watching::try_begin(&server.client(), "alice", 0).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_only_outages_that_last() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let behind = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let beside = Server::start(&database).await;
    let client = beside.client();
    open(&client, "alice").await;
    post_many(&client, "alice", 10).await;
    let mut caught_up = Watching::begin(&behind.client(), "alice", 10).await;
    let (caught_up_ref, client_ref) = (&mut caught_up, &client);

    let outage = async |length: Duration| {
        proxy.freeze();
        post_many(client_ref, "alice", 10).await;
        tokio::time::sleep(length).await;
        proxy.thaw();
    };
    outage(seconds(7)).await;
    let received = timeout(PATIENCE, async {
        while caught_up_ref.sequence < 20 {
            caught_up_ref.next().await.expect("a short outage does not end the stream");
        }
    });
    received.await.expect("entries arrive when the database is back");
    let log = behind.log();
    let warnings = log.lines().filter(|line| line.contains("cannot read the database")).count();
    assert_eq!(warnings, 1, "{log}");

    // A watcher may have read this entry itself. The next one comes from the feed, which has
    // recovered as well. Otherwise the feed would take the next outage for the same one.
    post_many(&client, "alice", 10).await;
    let received = timeout(PATIENCE, async {
        while caught_up.sequence < 30 {
            caught_up.next().await.expect("the stream continues");
        }
    });
    received.await.expect("the feed publishes them");

    proxy.freeze();
    let began = Instant::now();
    let end = timeout(PATIENCE, caught_up.end()).await.expect("a long outage ends it");
    assert_reason(&end, Reason::DatabaseUnavailable);
    assert!(began.elapsed() > seconds(9), "after {:?}", began.elapsed());
    proxy.thaw();
    eventually("a repeat gets the answer", async || {
        let begun = Watching::try_begin(&behind.client(), "alice", caught_up.sequence).await;
        begun.is_ok()
    })
    .await;
}
