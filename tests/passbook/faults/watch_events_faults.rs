//! WatchEvents misses and repeats nothing through kills and reconnects, does not wait for other
//! programs, and says so when it waits for a server.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use sea_orm::ConnectionTrait;
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::{
    ledger_dump::LedgerDump,
    ring::{RingLoad, open_ring},
    *,
};

on_both_databases! {
    each_event_comes_once_while_servers_are_killed,
    a_copy_has_each_event_once_when_both_sides_are_killed,
}

/// What a pass over the feed has seen: transaction ids, and the sequences of each account.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    transactions: Vec<String>,
    sequences: BTreeMap<String, Vec<i64>>,
}

impl Seen {
    fn add(&mut self, transaction_id: &str, entries: impl Iterator<Item = (String, i64)>) {
        self.transactions.push(transaction_id.to_owned());
        for (account_id, sequence) in entries {
            self.sequences.entry(account_id).or_default().push(sequence);
        }
    }

    fn add_event(&mut self, event: &Event) {
        if let Some(transaction) = &event.transaction {
            let entries = transaction.entries.iter().map(|it| (it.account_id.clone(), it.sequence));
            self.add(&transaction.transaction_id, entries);
        }
    }

    /// Checks that the pass has every transaction of the tables once, and each account's in order.
    async fn assert_complete(mut self, database: &TestDatabase) {
        let dump = LedgerDump::read(database).await;
        let applied = dump.requests.iter().filter(|it| it.is_applied && it.is_transaction);
        let mut expected: Vec<_> = applied.map(|it| it.transaction_id.clone()).collect();
        self.transactions.sort();
        expected.sort();
        assert!(self.transactions == expected, "each transaction once");
        for (account_id, entries) in dump.entries {
            let sequences: Vec<_> = entries.iter().map(|entry| entry.sequence).collect();
            assert_eq!(self.sequences.remove(&account_id), Some(sequences), "{account_id}");
        }
        assert!(self.sequences.is_empty(), "{:?}", self.sequences);
    }
}

async fn applied(database: &TestDatabase) -> usize {
    database.count("requests WHERE rejection IS NULL").await as usize
}

async fn each_event_comes_once_while_servers_are_killed(kind: Kind) {
    const STREAMS: usize = 9;
    let (database, mut servers, clients) = start_loaded(kind, 3).await;
    let (accounts, _) = open_ring(&clients[0], 4).await;
    let load = RingLoad::start(&accounts, 12, &clients, seed());
    let (mut seen, mut token) = (Seen::default(), None);
    let mut streams = 0;

    while streams < STREAMS {
        let client = &clients[streams % clients.len()];
        let request = token.as_deref().map_or_else(all_events, events_after);
        let Ok(mut watching) = EventWatching::try_begin(client, request).await else {
            tokio::time::sleep(ms(20)).await;
            continue;
        };
        streams += 1;
        let read = async {
            loop {
                match watching.next().await {
                    Ok(events) => events.iter().for_each(|event| seen.add_event(event)),
                    Err(status) => return status,
                }
            }
        };
        if streams % 3 == 0 {
            // The server of the stream, or another one.
            let killed = (streams - fastrand::usize(1..3)) % clients.len();
            let kill = async {
                tokio::time::sleep(ms(fastrand::u64(100..300))).await;
                servers[killed].kill9();
                servers[killed].restart().await;
            };
            let _ = tokio::join!(timeout(seconds(1), read), kill);
        } else {
            let _ = timeout(ms(fastrand::u64(50..600)), read).await;
        }
        token = Some(watching.token).filter(|token| !token.is_empty());
    }
    load.stop().await;
    let count = applied(&database).await;
    let request = token.as_deref().map_or_else(all_events, events_after);
    let mut watching = EventWatching::begin(&clients[1], request).await;
    while seen.transactions.len() < count {
        let events = timeout(PATIENCE, watching.next()).await.expect("the rest in time");
        events.expect("the stream continues").iter().for_each(|event| seen.add_event(event));
    }

    println!("{kind:?}: {count} transactions by {streams} streams");
    assert!(count > 100, "{count} transactions");
    seen.assert_complete(&database).await;
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

/// Draws the number of a commit.
const DRAW: &str = "SELECT nextval(pg_get_serial_sequence('commits', 'number'))";

/// A session with the name of a server plays one that hangs before its COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_the_commit_of_a_server_and_the_stream_says_so() {
    let (database, servers, client) = start_two_servers(Kind::Postgres).await;
    open(&client, "alice").await;
    open(&client, "bob").await;
    let mut watching = EventWatching::begin(&servers[1].client(), events_from_now()).await;
    let hanging = database.connect().await;
    let sql = format!(
        "SET application_name = 'passbook'; BEGIN; \
         SELECT 1 FROM accounts WHERE account_id = 'bob' FOR UPDATE; {DRAW}"
    );
    hanging.execute_unprepared(&sql).await.expect("it hangs");
    let paid = deposited(&client, "alice", "1").await;

    let heartbeat = timeout(PATIENCE, watching.next()).await.expect("a heartbeat");
    assert_eq!(heartbeat.expect("the stream continues"), []);
    assert!(watching.is_delayed);
    let token = watching.token.clone();

    // It was before alice's, and both come.
    let commit = "INSERT INTO commits VALUES (currval(pg_get_serial_sequence('commits', 'number')), 7, \
                  '', '[[0, {\"account_opened\": \"bob\"}]]'); COMMIT";
    hanging.execute_unprepared(commit).await.expect("it ends");
    let events = watching.take(2).await;
    assert_eq!(kinds(&events), [EventKind::AccountOpened, EventKind::Transaction]);
    assert_eq!(events[1].transaction, Some(paid));
    let mut resumed = EventWatching::begin(&client, events_after(&token)).await;
    assert_eq!(resumed.take(2).await, events);
    assert!(!resumed.is_delayed);
}
