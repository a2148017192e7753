//! Two versions of the program on one database: the schema is migrated first, under servers of the
//! previous version, which continue until they are replaced.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use sea_orm::{ConnectionTrait, TransactionTrait};
use tokio::sync::watch;

use crate::harness::{
    checker::{self, History},
    ring::{RingLoad, open_ring, random_change},
    *,
};

on_both_databases! {
    a_running_server_continues_when_a_newer_one_migrates,
}

/// What a migration may do: add columns with a default, tables, indexes.
const NEXT_MIGRATION: [&str; 9] = [
    "ALTER TABLE currencies ADD COLUMN next_1 TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE accounts ADD COLUMN next_2 TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE requests ADD COLUMN next_3 TEXT",
    "ALTER TABLE entries ADD COLUMN next_4 TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE holds ADD COLUMN next_5 TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE account_changes ADD COLUMN next_6 TEXT",
    "CREATE TABLE next_7 (next_7 TEXT PRIMARY KEY)",
    "CREATE INDEX next_8 ON accounts (next_2)",
    "INSERT INTO passbook_migrations (version, applied_at) VALUES ('m29990101_000001_next', 0)",
];

async fn a_running_server_continues_when_a_newer_one_migrates(kind: Kind) {
    let (database, server, client) = start_loaded_server(kind).await;
    let (accounts, mut history) = open_ring(&client, 4).await;
    let (stop, stopped) = watch::channel(false);
    let made = Arc::new(AtomicUsize::new(0));
    let calls = tokio::spawn(call(client.clone(), accounts.clone(), stopped, made.clone()));
    let mut admin = client.clone();
    // Every statement is prepared after its first use.
    history.extend(use_everything(&mut admin, "before").await);

    let connection = database.connect().await;
    if kind == Kind::Sqlite {
        connection.execute_unprepared("PRAGMA busy_timeout = 10000").await.expect("it is set");
    }
    for statement in NEXT_MIGRATION {
        connection.execute_unprepared(statement).await.expect(statement);
        tokio::time::sleep(ms(50)).await;
    }

    history.extend(use_everything(&mut admin, "after").await);
    let before = made.load(Relaxed);
    eventually("calls go on", async || made.load(Relaxed) > before + 20).await;
    stop.send_replace(true);
    history.extend(calls.await.expect("no call failed"));
    assert!(!server.log().contains("not ready"), "{}", server.log());
    checker::assert_sound(&database, &history).await;
}

/// Sequential changes on one server. Each gets a result at the first attempt.
async fn call(
    client: Client,
    accounts: Vec<String>,
    stopped: watch::Receiver<bool>,
    made: Arc<AtomicUsize>,
) -> History {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut history = History::new();
    while !*stopped.borrow() {
        let change = match random_change(&mut random, &accounts) {
            // The version before takes no other requests in a stream than postings.
            Change::InStream(change) => *change,
            change => change,
        };
        let result = match change.send(&client, PATIENCE).await {
            Ok(answer) => RequestResult::Applied(answer),
            Err(status) if request::is_definite(&status) => RequestResult::Rejected(status),
            Err(status) => panic!("{status:?}"),
        };
        history.push((change, result));
        made.fetch_add(1, Relaxed);
    }
    history
}

/// Reads and writes every table in every way, on an account of its own. Returns the postings.
async fn use_everything(client: &mut Client, round: &str) -> History {
    open(client, round).await;
    let once = Change::Deposit(deposit(round, "5"));
    let deposited = once.send(client, PATIENCE).await.expect("a deposit");
    let transaction_id = deposited.transaction().transaction_id.clone();
    let placed = [format!("{round}-captured"), format!("{round}-released")];
    for hold_id in &placed {
        place(client, hold_named(hold_id, round, "1")).await;
    }
    let captured = captured(client, capture(&placed[0])).await;
    released(client, release(&placed[1])).await;
    let update = UpdateAccountRequest { labels: labels(&[("round", round)]), ..update_of(round) };
    client.update_account(update).await.expect("updated");

    client.get_transaction(transaction_by_id(&transaction_id)).await.expect("found");
    get_hold(client, &placed[0]).await;
    client.list_entries(entries_of(round)).await.expect("entries");
    client.list_transactions(transactions_of(round)).await.expect("transactions");
    client.list_holds(holds_of(round)).await.expect("holds");
    client.list_account_changes(changes_of(round)).await.expect("changes");
    client.list_accounts(ListAccountsRequest::default()).await.expect("accounts");

    // For the balance a capture is a withdrawal.
    let transaction = captured.transaction.expect("a capture's transaction");
    let taken = Answer { transaction: Some(transaction), hold: None, replayed: false };
    vec![
        (once, RequestResult::Applied(deposited)),
        (Change::Withdraw(withdrawal(round, "1")), RequestResult::Applied(taken)),
    ]
}

/// An export or a backup reads a table in one long transaction. A migration that waited for it
/// would block all others behind its own lock request.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_lock_does_not_block_changes() {
    let database = TestDatabase::create(Kind::Postgres).await;
    // Back to before the migration that adds columns, which needs exclusive locks.
    database.migrate_down_before("who_asked").await;
    let reader = database.connect().await;
    let reading = reader.begin().await.expect("a transaction");
    reading.execute_unprepared("LOCK TABLE accounts IN ACCESS SHARE MODE").await.expect("ours");

    let url = database.url().to_owned();
    let migrating = tokio::spawn(async move {
        passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed()
    });
    let writer = database.connect().await;
    for _ in 0..40 {
        let start = Instant::now();
        let write = writer.execute_unprepared("UPDATE accounts SET held = held");
        tokio::time::timeout(PATIENCE, write).await.expect("in time").expect("written");
        times::promise("a change", start.elapsed(), ms(1500));
        tokio::time::sleep(ms(100)).await;
    }
    assert!(!migrating.is_finished(), "the table is being read");
    reading.rollback().await.expect("it ends");

    let outcome = migrating.await.expect("it ends");
    assert!(outcome.stderr.contains("a long transaction uses the tables"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("applied m20261125_000003_who_asked"), "{}", outcome.stdout);
}

/// The full rehearsal with the binary of the version before the migration of account keys:
/// `scripts/rolling_update`. That migration stops servers: they apply nothing more, and say so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a build of the version before: run scripts/rolling_update before a release"]
async fn servers_of_the_version_before_reject_changes_until_they_are_replaced() {
    let previous = std::env::var("PASSBOOK_TEST_PREVIOUS").expect("PASSBOOK_TEST_PREVIOUS");
    let previous = Path::new(&previous);
    let database = TestDatabase::create_empty(Kind::Postgres).await;
    let migrate = ["migrate", "up", "--database-url", database.url()];
    passbook_of(previous, &migrate).await.must_succeed();
    let mut old = Server::start_of(previous, &database).await;
    let (accounts, mut history) = open_ring(&old.client(), 4).await;
    history.extend(use_everything(&mut old.client(), "old").await);
    let once = deposit(&accounts[0], "1");
    let applied = old.client().deposit(once.clone()).await.expect("applied by the old one");
    let (stop, stopped) = watch::channel(false);
    let made = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn(call(old.client(), accounts.clone(), stopped, made.clone()));
    eventually("the old one changes", async || made.load(Relaxed) > 100).await;
    stop.send_replace(true);
    history.extend(load.await.expect("no call failed"));

    let migrated = passbook(&migrate).await.must_succeed();
    println!("{}", migrated.stdout);

    let next = deposit(&accounts[0], "2");
    let status = must_fail(old.client().deposit(next.clone()).await, Reason::SchemaNotMigrated);
    assert_eq!((status.code(), outcome(&status)), (Code::Unavailable, "not_applied".to_owned()));
    let place = old.client().place_hold(hold(&accounts[0], "1")).await;
    must_fail(place, Reason::SchemaNotMigrated);
    let entries = old.client().list_entries(entries_of(&accounts[0])).await;
    must_fail(entries, Reason::SchemaNotMigrated);

    let new = [Server::start(&database).await, Server::start(&database).await];
    println!("{} -> {}", old.ready_line, new[0].ready_line);
    let again = new[0].client().deposit(once.clone()).await.expect("replayed");
    assert!(again.replayed, "the fingerprints of both versions are the same");
    let other = DepositRequest { amount: money("3"), ..once.clone() };
    must_fail(new[0].client().deposit(other).await, Reason::RequestIdReused);
    let repeated = new[1].client().deposit(next.clone()).await.expect("applied by the new one");
    assert!(!repeated.replayed, "the old one did not apply it");
    for (request, answer) in [(once, applied), (next, repeated)] {
        let transaction = answer.transaction;
        let answer = Answer { transaction, hold: None, replayed: false };
        history.push((Change::Deposit(request), RequestResult::Applied(answer)));
    }
    history.extend(use_everything(&mut new[0].client(), "new").await);
    let clients: Vec<Client> = new.iter().map(Server::client).collect();
    let load = RingLoad::start(&accounts, 16, &clients, seed());
    tokio::time::sleep(seconds(3)).await;
    history.extend(load.stop().await);

    old.terminate();
    let status = old.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", old.log());
    println!("{} changes", history.len());
    checker::assert_sound(&database, &history).await;
    database.passbook(&["verify"]).await.must_succeed();
}
