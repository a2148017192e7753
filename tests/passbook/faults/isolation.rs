//! Interference of other programs with the database has no wider effect than it must.

use sea_orm::ConnectionTrait;
use tokio::{task::JoinSet, time::Instant};

use crate::harness::{checker, proxy::PostgresProxy, *};

on_both_databases! {
    an_account_whose_row_was_tampered_with_fails_alone,
    a_column_added_by_a_newer_server_does_not_disturb_running_ones,
}

async fn an_account_whose_row_was_tampered_with_fails_alone(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "broken", "1").await;
    for number in 0..9 {
        open(&client, &format!("healthy-{number}")).await;
    }
    // The sequence of its next entry is taken.
    database.execute("UPDATE accounts SET sequence = 0 WHERE account_id = 'broken'").await;

    let account_id = |number| match number % 10 {
        9 => "broken".to_owned(),
        healthy => format!("healthy-{healthy}"),
    };
    let calls =
        (0..50).map(|number| client.deposit(within(PATIENCE, deposit(&account_id(number), "1"))));
    for (number, answer) in join_all(calls).await.into_iter().enumerate() {
        if number % 10 == 9 {
            assert_eq!(outcome(&must_fail(answer, Reason::Internal)), "not_applied");
        } else {
            answer.expect("a neighbour is not harmed");
        }
    }
    assert_eq!(database.count("entries").await, 46);
}

async fn a_column_added_by_a_newer_server_does_not_disturb_running_ones(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "1").await;
    let change = Change::Deposit(deposit("alice", "1"));
    change.send(&client, PATIENCE).await.expect("every statement is prepared");

    for table in ["accounts", "entries", "requests"] {
        database.execute(&format!("ALTER TABLE {table} ADD COLUMN later text")).await;
    }

    assert!(change.send(&client, PATIENCE).await.expect("a replay reads all tables").replayed);
    for _ in 0..3 {
        client
            .deposit(within(PATIENCE, deposit("alice", "1")))
            .await
            .expect("the new column has no part in it");
    }
    assert_eq!(balance(&client, "alice").await, "5.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncommitted_request_id_of_another_session_delays_no_other_request() {
    let (database, server, client) = start_server(Kind::Postgres).await;
    open_all(&client, &["a", "b"]).await;
    let other = database.connect().await;
    let insert =
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys,
            create_time_us)
         SELECT '', 'taken', sha256('x'), gen_random_uuid(), 'deposit', '', 0";
    other.execute_unprepared("BEGIN").await.expect("a transaction");
    other.execute_unprepared(insert).await.expect("a key");

    let request_id = "taken".to_owned();
    let taken = Change::Deposit(DepositRequest { request_id, ..deposit("a", "1") });
    let waiting = {
        let (client, taken) = (client.clone(), taken.clone());
        tokio::spawn(async move { taken.send(&client, 2 * PATIENCE).await })
    };
    eventually("it waits for the key", async || database.lock_waits().await > 0).await;
    let mut slowest = ms(0);
    for _ in 0..20 {
        let started = Instant::now();
        client.deposit(within(PATIENCE, deposit("b", "1"))).await.expect("nobody is in its way");
        slowest = slowest.max(started.elapsed());
    }
    times::figure(&format!("the slowest of the others: {slowest:?}"), slowest < ms(500));
    assert!(!waiting.is_finished(), "it still waits");
    waiting.abort();
    let status = taken.send(&server.patient(), seconds(1)).await.expect_err("the key is not free");
    assert_eq!(outcome(&status), "not_applied", "{status:?}");

    other.execute_unprepared("ROLLBACK").await.expect("the key is free");
    taken.send(&client, PATIENCE).await.expect("now it is made");
    assert_eq!((balance(&client, "a").await, balance(&client, "b").await), {
        ("1.00".to_owned(), "20.00".to_owned())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_early_however_many_rows_are_locked() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    for number in 0..25 {
        open(&client, &format!("held-{number}")).await;
    }
    let other = database.connect().await;
    let lock = "BEGIN; SELECT balance FROM accounts FOR UPDATE";
    other.execute_unprepared(lock).await.expect("all rows are held");

    let mut calls = JoinSet::new();
    for number in 0..25 {
        let client = client.clone();
        let change = Change::Deposit(deposit(&format!("held-{number}"), "1"));
        calls.spawn(async move { change.send(&client, PATIENCE).await });
    }
    tokio::time::sleep(ms(1500)).await;
    other.execute_unprepared("COMMIT").await.expect("the rows are free");

    for answer in calls.join_all().await {
        answer.expect("there was time enough");
    }
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_recovers_within_ten_seconds_when_all_connections_fall_silent() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let client = server.client();
    open_funded(&client, "hot", "1").await;
    open_funded(&client, "cold", "1").await;
    fill_the_pool_of_readers(&database, &client).await;
    // A lock waiter with its own connection waits for this row.
    let other = database.lock_account("hot").await;
    let parked = Change::Deposit(deposit("hot", "1"));
    let waiting = {
        let (client, parked) = (client.clone(), parked.clone());
        tokio::spawn(async move { parked.send(&client, seconds(2)).await })
    };
    eventually("it waits for the row", async || database.lock_waits().await > 0).await;

    proxy.silence_connections();
    other.execute_unprepared("COMMIT").await.expect("the row is free");
    // More canceled reads than the pool has connections.
    let reads = (0..16).map(|_| client.get_account(within(ms(300), account_named("cold"))));
    join_all(reads).await;
    waiting.await.expect("the call ends").expect_err("nobody answers");

    let silent_since = Instant::now();
    eventually("reads are back", async || {
        let request = account_named("cold");
        client.get_account(within(seconds(2), request)).await.is_ok()
    })
    .await;
    for account_id in ["cold", "hot"] {
        let change = Change::Deposit(deposit(account_id, "1"));
        let result = change.settle(std::slice::from_ref(&client)).await;
        assert!(matches!(result, RequestResult::Applied(_)), "{account_id}: {result:?}");
        let what = format!("{account_id} is back");
        times::promise(&what, silent_since.elapsed(), seconds(10));
    }
    parked.settle(std::slice::from_ref(&client)).await;
    assert_eq!(balance(&client, "hot").await, "3.00");
    checker::assert_consistent(&database).await;
}

/// Opens all connections of the pool, so that all of them fall silent.
async fn fill_the_pool_of_readers(database: &TestDatabase, client: &Client) {
    let connections = format!(
        "pg_stat_activity WHERE datname = '{}' AND application_name = 'passbook'",
        database.name()
    );
    eventually("there are eight readers and a writer", async || {
        join_all((0..100).map(|_| get(client, "cold"))).await;
        database.count(&connections).await >= 9
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_in_no_message_and_in_no_log() {
    let bad = passbook(&["serve", "--database-url", "postgres://u:pa/ss-word@127.0.0.1/db"]).await;
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
    assert!(bad.stderr.contains("is not a valid URL"), "{}", bad.stderr);
    assert!(!bad.stderr.contains("ss-word"), "{}", bad.stderr);

    let database = TestDatabase::create(Kind::Postgres).await;
    let (scheme, rest) = database.url().split_once("://").expect("a URL");
    let (user, place) = rest.split_once('@').expect("a user");
    let user = user.split(':').next().expect("a name");
    let url = format!("{scheme}://{user}:open-sesame@{place}");
    let server = Server::start_at(&url, &["--log", "trace"]).await;
    open_funded(&server.client(), "alice", "1").await;
    let log = server.log();
    assert!(log.contains("TRACE"), "there is a log at trace");
    assert!(!log.contains("open-sesame"), "the password is in the log");
}
