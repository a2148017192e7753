//! WatchEvents misses and repeats nothing through kills and reconnects, does not wait for other
//! programs, and says so when it waits for a server.

use std::{
    fs,
    future::pending,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use sea_orm::ConnectionTrait;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use crate::harness::{
    admin::ADMIN,
    holds::HoldLoad,
    proxy::PostgresProxy,
    ring::{RingLoad, open_ring},
    seen_events::{CHANGE_KINDS, Seen},
    servers::PostgresServer,
    *,
};

on_both_databases! {
    a_copy_has_each_event_once_when_both_sides_are_killed,
}

async fn applied(database: &TestDatabase) -> usize {
    database.count("requests WHERE rejection IS NULL").await as usize
}

/// A pass over the feed, from stream to stream.
#[derive(Default)]
struct Pass {
    seen: Seen,
    /// The position behind the last message. None: no message has come.
    token: Option<String>,
}

impl Pass {
    /// Begins the next stream, when the server is there.
    async fn stream(&self, client: &Client) -> EventWatching {
        let request = self.token.as_deref().map_or_else(all_events, events_after);
        let end = Instant::now() + PATIENCE;
        loop {
            match EventWatching::try_begin(client, request.clone()).await {
                Ok(stream) => return stream,
                Err(status) => assert!(Instant::now() < end, "no stream begins: {status}"),
            }
            tokio::time::sleep(ms(20)).await;
        }
    }

    /// Takes the next message of a stream.
    async fn take(&mut self, stream: &mut EventWatching) -> Result<(), Status> {
        let events = stream.next().await?;
        events.iter().for_each(|event| self.seen.add_event(event));
        self.token = Some(stream.token.clone());
        Ok(())
    }

    /// Reads all events that there are.
    async fn catch_up(&mut self, client: &Client) {
        let mut stream = self.stream(client).await;
        while !stream.has_caught_up {
            self.take(&mut stream).await.expect("the stream continues");
        }
    }

    /// Reads until the pass has this many transactions. Returns the open stream.
    async fn read_up_to(&mut self, count: usize, client: &Client) -> EventWatching {
        let read = async {
            let mut stream = self.stream(client).await;
            while self.seen.transactions.len() < count {
                if self.take(&mut stream).await.is_err() {
                    stream = self.stream(client).await;
                }
            }
            stream
        };
        timeout(PATIENCE, read).await.expect("the pass goes on")
    }
}

/// Kills something under load again and again, each time while a stream is read. Checks that the pass
/// over all streams has every event once, and that a second pass has the same events in the same order.
async fn check_passes(
    database: &TestDatabase,
    clients: &[Client],
    mut kill: impl AsyncFnMut(usize),
) {
    const KILLS: usize = 20;
    // So many that servers often have database transactions on different accounts at a time.
    let (accounts, _) = open_ring(&clients[0], 40).await;
    let load = RingLoad::start(&accounts, 12, clients, seed());
    let holds = HoldLoad::start(4, clients).await;
    let mut pass = Pass::default();
    for round in 0..KILLS {
        let client = &clients[round % clients.len()];
        let mut stream = pass.read_up_to(pass.seen.transactions.len() + 10, client).await;
        let read = async {
            while pass.take(&mut stream).await.is_ok() {}
            pending::<()>().await;
        };
        tokio::select! {
            () = kill(round) => {}
            () = read => {}
        }
    }
    load.stop().await;
    holds.stop().await;

    pass.catch_up(&clients[1]).await;
    let mut again = Pass::default();
    again.catch_up(&clients[0]).await;
    assert!(pass.seen == again.seen, "two passes differ");
    let counts = CHANGE_KINDS.map(|kind| {
        let is_of = |change: &&String| change.split(' ').next() == Some(kind);
        pass.seen.changes.iter().filter(is_of).count()
    });
    println!("{KILLS} kills, {} transactions, {counts:?}", pass.seen.transactions.len());
    assert!(!counts.contains(&0), "each kind: {counts:?}");
    pass.seen.assert_complete(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_comes_once_while_postgres_and_three_servers_are_killed() {
    let slot = slots::take(Load::Heavy).await;
    let mut postgres = PostgresServer::start_migrated().await;
    let database = TestDatabase::outside(&postgres.url(), slot);
    let mut servers = Server::start_fleet(&database, 3).await;
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    let mut random = fastrand::Rng::with_seed(seed());

    let kill = async |round| {
        tokio::time::sleep(ms(random.u64(0..50))).await;
        if round % 4 == 3 {
            postgres.crash();
            postgres.run().await;
        } else {
            let killed = &mut servers[random.usize(..3)];
            killed.kill9();
            killed.restart().await;
        }
    };
    check_passes(&database, &clients, kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_comes_once_while_two_processes_on_one_file_are_killed() {
    let (database, mut servers, clients) = start_loaded(Kind::Sqlite, 2).await;
    let mut random = fastrand::Rng::with_seed(seed());

    let kill = async |_| {
        tokio::time::sleep(ms(random.u64(0..50))).await;
        let killed = &mut servers[random.usize(..2)];
        killed.kill9();
        killed.restart().await;
    };
    check_passes(&database, &clients, kill).await;
}

/// The program of the example `copy_events`, killed when dropped.
struct CopyProgram(Child);

impl CopyProgram {
    fn start(file: &Path, servers: &[Server]) -> Self {
        let mut command = Command::new(example("copy_events"));
        command.arg(file);
        for server in servers {
            command.args(["--target", &format!("http://{}", server.address)]);
        }
        Self(command.spawn().expect("the example starts"))
    }
}

impl Drop for CopyProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program of an example, which cargo has built beside the tests.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let profile = this.ancestors().nth(2).expect("a directory of the profile");
    profile.join("examples").join(name)
}

/// The events in the complete lines of a copy.
fn copied(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.flat_map(|line| line["events"].as_array().expect("events").clone()).collect()
}

async fn a_copy_has_each_event_once_when_both_sides_are_killed(kind: Kind) {
    const KILLS: usize = 4;
    let (database, mut servers, clients) = start_loaded(kind, 2).await;
    let (accounts, _) = open_ring(&clients[0], 3).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("events.jsonl");
    let load = RingLoad::start(&accounts, 8, &clients, seed());

    for round in 0..KILLS {
        let lines = copied(&file).len();
        let copy = CopyProgram::start(&file, &servers);
        let grows = async || copied(&file).len() > lines;
        eventually("the copy grows", grows).await;
        tokio::time::sleep(ms(fastrand::u64(0..100))).await;
        if round % 2 == 1 {
            servers[round / 2].kill9();
            servers[round / 2].restart().await;
        }
        drop(copy);
    }
    load.stop().await;
    let transactions =
        |events: &[Value]| events.iter().filter(|it| it["transaction"].is_object()).count();
    let count = applied(&database).await;
    let _copy = CopyProgram::start(&file, &servers);
    eventually("the copy is complete", async || transactions(&copied(&file)) >= count).await;

    let mut seen = Seen::default();
    for event in copied(&file) {
        seen.opened.extend(event["account"]["account_id"].as_str().map(str::to_owned));
        let transaction = &event["transaction"];
        let entries = transaction["entries"].as_array().into_iter().flatten();
        let entries = entries.map(|entry| {
            let account_id = entry["account_id"].as_str().expect("an id").to_owned();
            (account_id, entry["sequence"].as_i64().expect("a number"))
        });
        if let Some(transaction_id) = transaction["transaction_id"].as_str() {
            seen.add(transaction_id, entries);
        }
    }
    println!("{kind:?}: {count} transactions copied");
    seen.assert_complete(&database).await;
}

/// A transaction of another program that has written something, and a number that a rollback has used
/// up.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_other_programs_and_rollbacks_do_not_delay_events() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    let other = database.connect().await;
    other.execute_unprepared("BEGIN; CREATE TABLE theirs (id int)").await.expect("it is open");
    let mut watching = EventWatching::begin(&client, events_from_now()).await;
    open(&client, "alice").await;
    watching.take(1).await;

    database.execute(&format!("BEGIN; {DRAW}; ROLLBACK")).await;
    let paid = deposited(&client, "alice", "1").await;

    assert_eq!(watching.take(1).await[0].transaction, Some(paid));
    assert!(!watching.is_delayed);
    other.execute_unprepared("ROLLBACK").await.expect("it was open until now");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_the_commit_of_a_server_and_the_stream_says_so() {
    let (database, servers, client) = start_two_servers(Kind::Postgres).await;
    open(&client, "alice").await;
    let mut watching = EventWatching::begin(&servers[1].client(), events_from_now()).await;
    open(&client, "bob").await;
    watching.take(1).await;
    let hanging = hang_as_server(&database, &format!("{LOCK_BOB}; {DRAW}")).await;
    let paid = deposited(&client, "alice", "1").await;

    let mut behind = EventWatching::begin(&servers[1].client(), all_events()).await;

    let heartbeat = timeout(PATIENCE, watching.next()).await.expect("a heartbeat");
    assert_eq!(heartbeat.expect("the stream continues"), []);
    assert!(watching.is_delayed && watching.has_caught_up);
    let token = watching.token.clone();
    behind.take(2).await;
    while !behind.is_delayed {
        assert_eq!(behind.next().await.expect("a heartbeat"), []);
    }
    assert!(!behind.has_caught_up, "alice's deposit was there, and has not come");

    // It was before alice's, and both come.
    let commit = "INSERT INTO commits VALUES (currval(pg_get_serial_sequence('commits', 'number')), 7, \
                  '', '[[0, {\"account_opened\": \"bob\"}]]'); COMMIT";
    hanging.execute_unprepared(commit).await.expect("it ends");
    let events = watching.take(2).await;
    assert_eq!(kinds(&events), [EventKind::AccountOpened, EventKind::Transaction]);
    assert_eq!(events[1].transaction, Some(paid));
    assert_eq!(behind.take(2).await, events);
    assert!(behind.has_caught_up);
    let mut resumed = EventWatching::begin(&client, events_after(&token)).await;
    assert_eq!(resumed.take(2).await, events);
    assert!(!resumed.is_delayed);
}

/// The database stays away while the feed waits, and the last watcher leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_without_watchers_reports_no_delay() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &ADMIN).await;
    let client = server.client();
    let mut watching = EventWatching::begin(&client, events_from_now()).await;
    let _hanging = hang_as_server(&database, &format!("CREATE TABLE t (i int); {DRAW}")).await;
    open(&client, "alice").await;
    while !watching.is_delayed {
        assert_eq!(watching.next().await.expect("a heartbeat"), []);
    }

    let delay = async || server.admin().metrics().await.value("passbook_event_feed_delay_seconds");
    eventually("the delay is reported", async || delay().await > 0.0).await;

    proxy.freeze();
    drop(watching);

    eventually("the delay ends with its last watcher", async || delay().await == 0.0).await;
}

/// A stream from now waits for open transactions before it begins. If no number is missing, others wait
/// for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_to_begin_delays_no_other() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    let mut watching = EventWatching::begin(&client, events_from_now()).await;
    open(&client, "bob").await;
    watching.take(1).await;
    let hanging = hang_as_server(&database, LOCK_BOB).await;

    let begin = {
        let client = client.clone();
        tokio::spawn(async move { EventWatching::begin(&client, events_from_now()).await })
    };
    // Longer than a delay that the stream would speak of.
    let end = Instant::now() + seconds(3);
    while timeout_at(end, watching.next()).await.is_ok_and(|next| next.is_ok()) {
        assert!(!watching.is_delayed);
    }

    assert!(!begin.is_finished(), "it waits for the transaction");
    hanging.execute_unprepared("ROLLBACK").await.expect("it ends");
    let mut begun = begin.await.expect("it begins");
    let opened = open(&client, "alice").await;
    for watching in [&mut watching, &mut begun] {
        assert_eq!(watching.take(1).await[0].account.as_ref(), Some(&opened));
    }
}

/// The round trips of the feed and of its one watcher, while another server writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_feed_asks_the_database_at_its_own_pace_under_load() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let behind = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let beside = Server::start(&database).await;
    let (accounts, _) = open_ring(&beside.client(), 40).await;
    let load = RingLoad::start(&accounts, 12, &[beside.client()], seed());
    let mut watching = EventWatching::begin(&behind.client(), events_from_now()).await;
    watching.next().await.expect("its beginning");
    let (before, began) = (proxy.round_trips(), Instant::now());

    let mut events = 0;
    while began.elapsed() < seconds(3) {
        events += watching.next().await.expect("the stream continues").len();
    }

    let taken = began.elapsed().as_secs_f64();
    let rates = [proxy.round_trips() - before, events].map(|count| count as f64 / taken);
    load.stop().await;
    println!("{:.0} round trips/s for {:.0} events/s", rates[0], rates[1]);
    // A page of 500 events costs up to 10.
    assert!(rates[0] < 100.0 + rates[1] / 50.0, "{rates:?}");
}
