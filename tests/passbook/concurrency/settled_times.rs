//! Answers about a past time are final: reads at a time that has just passed, under concurrent
//! changes, always give the same answer, and consecutive time windows miss nothing. No read waits
//! for the lock of another program.

use std::collections::HashSet;

use prost_types::Timestamp;
use sea_orm::ConnectionTrait;
use tokio::task::JoinHandle;

use crate::harness::{
    proxy::PostgresProxy,
    ring::{RingLoad, open_ring},
    *,
};

on_both_databases! {
    the_balance_at_a_past_time_never_changes,
    consecutive_time_windows_miss_no_transaction,
    a_read_at_a_time_does_not_wait_for_a_foreign_lock,
}

fn now() -> Timestamp {
    from_now(ms(0))
}

fn later_than(time: &Timestamp) -> bool {
    microseconds(&Some(now())) > microseconds(&Some(*time))
}

async fn balance_at(client: &Client, account_id: &str, time: Timestamp) -> (String, i64) {
    let request = GetBalanceRequest {
        account_id: account_id.to_owned(),
        at_time: Some(time),
        ..Default::default()
    };
    let answer = client.get_balance(request).await.expect("an answer");
    (value(&answer.balance).to_owned(), answer.sequence)
}

async fn the_balance_at_a_past_time_never_changes(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    let (accounts, _) = open_ring(&clients[0], 3).await;
    let load = RingLoad::start(&accounts, 8, &clients, seed());

    let mut answers = Vec::new();
    for number in 0..200 {
        let (account_id, time) = (&accounts[number % accounts.len()], now());
        answers.push((account_id, time, balance_at(&clients[number % 2], account_id, time).await));
    }
    load.stop().await;

    assert!(answers.last().is_some_and(|last| last.2.1 > answers[0].2.1), "changes were made");
    for (account_id, time, answer) in answers {
        assert_eq!(balance_at(&clients[0], account_id, time).await, answer, "{account_id} {time}");
    }
}

async fn consecutive_time_windows_miss_no_transaction(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let clients: Vec<_> = servers.iter().map(Server::client).collect();
    let (accounts, _) = open_ring(&clients[0], 3).await;
    let client = servers[1].client();
    let began = now();
    let load = RingLoad::start(&accounts, 8, &clients, seed());

    let (mut entries, mut transactions) = (Vec::new(), Vec::new());
    let mut start = began;
    for _ in 0..60 {
        eventually("time goes by", async || later_than(&start)).await;
        let end = now();
        let window = (Some(start), Some(end));
        let request = ListEntriesRequest {
            account_id: accounts[0].clone(),
            start_time: window.0,
            end_time: window.1,
            page_size: 1000,
            ..Default::default()
        };
        let page = client.list_entries(request).await.expect("an answer");
        assert_eq!(page.next_page_token, "", "one page");
        entries.extend(page.entries.into_iter().map(|entry| entry.sequence));
        let request = ListTransactionsRequest {
            start_time: window.0,
            end_time: window.1,
            page_size: 1000,
            ..Default::default()
        };
        let page = client.list_transactions(request).await.expect("an answer");
        assert_eq!(page.next_page_token, "", "one page");
        transactions.extend(page.transactions.into_iter().map(|it| it.transaction_id));
        start = end;
    }
    load.stop().await;

    let end_us = microseconds(&Some(start));
    let made = |table: &str| {
        let began_us = microseconds(&Some(began));
        format!("{table} create_time_us >= {began_us} AND create_time_us < {end_us}")
    };
    let of_account = format!("{} AND", of_account(&accounts[0]));
    let expected = database.count(&made(&format!("entries WHERE {of_account}"))).await;
    assert!(expected > 0, "changes were made");
    assert_eq!(entries.len() as i64, expected, "entries of all windows");
    let unique: HashSet<_> = transactions.iter().collect();
    assert_eq!(unique.len(), transactions.len(), "none is in two windows");
    let posted = "requests WHERE rejection IS NULL AND entry_keys <> '' AND";
    assert_eq!(transactions.len() as i64, database.count(&made(posted)).await, "transactions");
}

/// Delays the commit by a trigger that waits for an advisory lock, as a COMMIT waits for a standby.
/// SQLite has nothing similar; there a server is paused, see below.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_a_time_waits_for_changes_in_flight() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let server = Server::start(&database).await;
    let client = server.client();
    open_funded(&client, "alice", "1").await;
    open_funded(&client, "bob", "1").await;
    hold_up_commits(&database).await;
    let gate = shut_gate(&database).await;
    let under_way = spawn_deposit(&server.client(), "alice", "10");
    eventually("it commits", async || waits_at_commit(&database).await).await;
    let time = now();

    let request = |account_id: &str| GetBalanceRequest {
        account_id: account_id.to_owned(),
        at_time: Some(time),
        ..Default::default()
    };
    let answer = server.patient().get_balance(within(ms(300), request("alice"))).await;
    assert_eq!(answer.expect_err("nobody knows").code(), Code::DeadlineExceeded);
    assert_eq!(balance(&client, "alice").await, "1.00", "a read of the present does not wait");
    let reader = client.clone();
    let read = tokio::spawn(async move { balance_at(&reader, "alice", time).await });
    gate.execute_unprepared("SELECT pg_advisory_unlock(1)").await.expect("it continues");

    under_way.await.expect("no panic").expect("applied");
    assert_eq!(read.await.expect("no panic"), ("11.00".to_owned(), 2));
    assert_eq!(balance_at(&client, "alice", time).await, ("11.00".to_owned(), 2));
}

/// How many transactions there are before a time, and the sums of the balances at that time.
async fn totals_at(client: &Client, time: Timestamp) -> (usize, Vec<BalanceSum>) {
    let request = ListTransactionsRequest { end_time: Some(time), ..Default::default() };
    let page = client.list_transactions(request).await.expect("an answer");
    let request = SumBalancesRequest { at_time: Some(time), ..Default::default() };
    let answer = client.sum_balances(request).await.expect("an answer");
    (page.transactions.len(), answer.sums)
}

/// The accounts that a database transaction opens have no rows yet that it could lock. The network puts
/// a while between its time and its first row.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_a_time_waits_for_the_opening_of_an_account() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let far = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let near = Server::start(&database).await;
    let (client, changing) = (near.client(), far.client());
    open(&changing, "first").await;
    proxy.delay(ms(60));
    let changes = tokio::spawn(async move {
        let depositing = async {
            // Behind the opening in the queue, and in time for the same database transaction.
            tokio::time::sleep(ms(20)).await;
            deposited(&changing, "alice", "5").await
        };
        tokio::join!(open(&changing, "alice"), depositing)
    });

    let mut answers = Vec::new();
    while !changes.is_finished() {
        let time = now();
        answers.push((time, totals_at(&client, time).await));
        tokio::time::sleep(ms(5)).await;
    }
    changes.await.expect("both are applied");

    assert_eq!(totals_at(&client, now()).await.0, 1);
    for (time, answer) in answers {
        assert_eq!(totals_at(&client, time).await, answer, "{time}");
    }
}

/// Pauses the server in the middle of a deposit, and returns it. Other transactions are over before.
async fn pause_in_deposit(
    database: &TestDatabase,
    server: &Server,
) -> JoinHandle<Result<DepositResponse, Status>> {
    // The deposit takes its time first, and then works through four million rows.
    let fill = format!("INSERT INTO ballast SELECT n FROM {}", database.numbers(160));
    let work = "SELECT max(a.n * b.n + c.n) FROM ballast a, ballast b, ballast c";
    let trigger = format!("CREATE TRIGGER slow AFTER INSERT ON entries BEGIN {work}; END");
    database.execute(&format!("CREATE TABLE ballast (n INTEGER); {fill}; {trigger}")).await;
    let session = database.connect().await;
    session.execute_unprepared("PRAGMA busy_timeout = 0").await.expect("it is set");
    let is_locked = async || match session.execute_unprepared("BEGIN IMMEDIATE").await {
        Ok(_) => {
            session.execute_unprepared("ROLLBACK").await.expect("it is free again");
            false
        }
        Err(_) => true,
    };
    loop {
        let deposit = spawn_deposit(&server.client(), "alice", "10");
        eventually("it has the lock", async || is_locked().await).await;
        tokio::time::sleep(ms(20)).await;
        server.pause();
        if is_locked().await {
            return deposit;
        }
        // The deposit was over before.
        server.resume();
        deposit.await.expect("no panic").expect("applied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_at_a_time_waits_for_a_change_of_another_process_that_is_paused() {
    let (database, servers, client) = start_two_servers(Kind::Sqlite).await;
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("link.db");
    let path = database.url().trim_start_matches("sqlite://").trim_end_matches("?mode=rwc");
    std::os::unix::fs::symlink(path, &link).expect("a link");
    let linked = Server::start_at(&format!("sqlite://{}", link.display()), &[]).await;
    open_funded(&client, "alice", "1").await;
    let deposit = pause_in_deposit(&database, &servers[0]).await;

    let time = now();
    let others = [servers[1].client(), linked.client()];
    let reads = others
        .clone()
        .map(|reader| tokio::spawn(async move { balance_at(&reader, "alice", time).await }));
    // Longer than the lock of another program delays a read.
    tokio::time::sleep(ms(1500)).await;
    assert!(!reads.iter().any(JoinHandle::is_finished), "nobody knows yet");
    servers[0].resume();

    deposit.await.expect("no panic").expect("applied");
    for (read, other) in reads.into_iter().zip(&others) {
        let answer = read.await.expect("no panic");
        assert_eq!(balance_at(other, "alice", time).await, answer);
    }
}

/// Makes transactions that changed an account wait in COMMIT while the gate is shut.
async fn hold_up_commits(database: &TestDatabase) {
    let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        SET LOCAL lock_timeout = 0; PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$";
    database.execute(wait).await;
    let trigger = "CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON accounts
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()";
    database.execute(trigger).await;
}

async fn shut_gate(database: &TestDatabase) -> sea_orm::DatabaseConnection {
    let gate = database.connect().await;
    gate.execute_unprepared("SELECT pg_advisory_lock(1)").await.expect("it is taken");
    gate
}

async fn waits_at_commit(database: &TestDatabase) -> bool {
    let waiting = "pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'advisory'
        AND datname = current_database()";
    database.count(waiting).await == 1
}

async fn a_read_at_a_time_does_not_wait_for_a_foreign_lock(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place_and_expire(&client, hold_named("h", "alice", "7")).await;
    assert_eq!(database.text("SELECT state FROM holds").await, "open", "the expiry is unrecorded");
    let session = database.lock_account("alice").await;

    // The deadline of each read. On SQLite a read waits for a second, since the owner of the lock
    // is unknown.
    assert_eq!(balance_at(&client, "alice", now()).await, ("10.00".to_owned(), 1));
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "4"]);
    assert_eq!(get_hold(&client, "h").await.state(), HoldState::Expired);
    let request = ListTransactionsRequest { end_time: Some(now()), ..Default::default() };
    let page = client.list_transactions(request).await.expect("an answer");
    assert_eq!(page.transactions.len(), 1);

    session.execute_unprepared("ROLLBACK").await.expect("the row is free");
    client.withdraw(withdrawal("alice", "10")).await.expect("nothing is held");
    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", "5"]);
}

/// Places a hold, and then holds up commits. Returns when it expires, and the gate.
async fn place_and_shut_gate(
    database: &TestDatabase,
    client: &Client,
) -> (Timestamp, sea_orm::DatabaseConnection) {
    open_funded(client, "alice", "10").await;
    hold_up_commits(database).await;
    // Long enough for a change of it to be judged.
    let expire_time = from_now(ms(3000));
    let request = hold_named("h", "alice", "7");
    place(client, PlaceHoldRequest { expire_time: Some(expire_time), ..request }).await;
    (expire_time, shut_gate(database).await)
}

/// A capture that was accepted in time commits after the hold's expire time.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_not_reported_expired_while_its_capture_is_in_flight() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let server = Server::start(&database).await;
    let (client, other) = (server.client(), server.client());
    let (expire_time, gate) = place_and_shut_gate(&database, &client).await;
    let capturing =
        tokio::spawn(async move { other.capture_hold(within(PATIENCE, capture("h"))).await });
    eventually("it commits", async || waits_at_commit(&database).await).await;
    eventually("its time has passed", async || later_than(&expire_time)).await;

    let reader = client.clone();
    let read = tokio::spawn(async move { get_hold(&reader, "h").await.state() });
    eventually("the read waits", async || asks_what_is_under_way(&database).await).await;
    gate.execute_unprepared("SELECT pg_advisory_unlock(1)").await.expect("it continues");

    capturing.await.expect("no panic").expect("it was in time");
    assert_eq!(read.await.expect("no panic"), HoldState::Captured);
}

/// An update that was accepted in time extends the hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_open_holds_waits_for_an_update_in_flight() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let server = Server::start(&database).await;
    let (client, other) = (server.client(), server.client());
    let (expire_time, gate) = place_and_shut_gate(&database, &client).await;
    let later = Some(from_now(seconds(3600)));
    let extension = UpdateHoldRequest { expire_time: later, ..hold_update("h", "8") };
    let extending =
        tokio::spawn(async move { other.update_hold(within(PATIENCE, extension)).await });
    eventually("it commits", async || waits_at_commit(&database).await).await;
    eventually("its time has passed", async || later_than(&expire_time)).await;

    let state = HoldState::Open.into();
    let account_id = "alice".to_owned();
    let open_holds = ListHoldsRequest { account_id, state, ..Default::default() };
    let answer = server.patient().list_holds(within(ms(300), open_holds.clone())).await;
    assert_eq!(answer.expect_err("nobody knows").code(), Code::DeadlineExceeded);
    gate.execute_unprepared("SELECT pg_advisory_unlock(1)").await.expect("it continues");

    extending.await.expect("no panic").expect("it was in time");
    assert_eq!(client.list_holds(open_holds).await.expect("an answer").holds.len(), 1);
}

async fn asks_what_is_under_way(database: &TestDatabase) -> bool {
    let asking = "pg_stat_activity WHERE query LIKE '%xact_start%' AND pid <> pg_backend_pid()
        AND datname = current_database()";
    database.count(asking).await > 0
}
