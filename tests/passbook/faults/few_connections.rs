//! Changes have their own connections, however many reads there are and however few connections the
//! database allows.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait;
use tokio::task::JoinSet;

use crate::harness::*;

/// The number of sessions of a role.
async fn sessions(database: &TestDatabase, name: &str) -> i64 {
    database.count(&format!("pg_stat_activity WHERE usename = '{name}'")).await
}

fn read_all(client: &Client, count: usize) -> JoinSet<Result<(), tonic::Status>> {
    let read = |client: Client| async move {
        let request = within(PATIENCE, ListTransactionsRequest::default());
        client.list_transactions(request).await.map(drop)
    };
    (0..count).map(|_| read(client.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_applied_with_a_small_connection_limit() {
    for connections in [3, 4, 8] {
        let database = TestDatabase::create(Kind::Postgres).await;
        let limit = format!("CONNECTION LIMIT {connections}");
        let (name, url) = database.create_serving_role(&limit).await;
        let mut server = Server::start_at(&url, &["--admin-listen", "127.0.0.1:0"]).await;
        let (client, admin) = (server.client(), server.admin());
        open(&client, "alice").await;

        let mut reads = read_all(&client, 200);
        for _ in 0..20 {
            let request = within(PATIENCE, deposit("alice", "1"));
            client.deposit(request).await.expect("a change is made beside the reads");
        }
        while let Some(read) = reads.join_next().await {
            read.expect("no panic").expect("a read is slower, and is made");
        }
        assert_eq!(admin.get("/readyz").await.0, 200);
        assert_eq!(balance(&client, "alice").await, "20.00");
        // A lock wait needs its own connection, which is taken from the reads.
        let session = database.lock_account("alice").await;
        let waiting = spawn_deposit(&client, "alice", "1");
        open(&client, "bob").await;
        session.execute_unprepared("ROLLBACK").await.expect("it is free");
        waiting.await.expect("no panic").expect("it is made in the end");

        assert!(sessions(&database, &name).await <= i64::from(connections));
        server.terminate();
        assert!(server.wait(PATIENCE).await.is_some(), "it ends");
        database.drop_role(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_low_a_connection_limit_is_an_error_with_the_number_needed() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (name, url) = database.create_serving_role("CONNECTION LIMIT 2").await;

    let outcome = passbook(&["serve", "--database-url", &url, "--listen", "127.0.0.1:0"]).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    // PostgreSQL may refuse a connection before the server has read the limit. Then it warns, tries
    // again, and says why at the end.
    let error = outcome.stderr.lines().last().expect("an error's line");
    let error = error.strip_prefix("error: ").expect("an error's line");
    let is_too_low =
        error.contains("allows 2 connections") && error.contains("at least 3 are needed");
    let is_refused = error.contains("too many connections for role") && error.contains("raise");
    assert!(is_too_low || is_refused, "{error}");

    let arguments = ["serve", "--database-connections-max", "2"];
    let outcome = passbook(&arguments).await;
    assert!(outcome.stderr.contains("2 is not in 3..=1000"), "{}", outcome.stderr);
    database.drop_role(&name).await;
}

/// Starts reads that wait for a table lock of another program.
fn slow_reads(client: &Client, count: usize) -> JoinSet<()> {
    let read = |client: Client| async move {
        let request = changes_of("alice");
        let _ = client.list_account_changes(within(ms(500), request)).await;
    };
    (0..count).map(|_| read(client.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_reads_are_limited_and_block_no_capture() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let server = Server::start_with(&database, &["--admin-listen", "127.0.0.1:0"]).await;
    let (client, admin) = (server.client(), server.admin());
    open_funded(&client, "alice", "10").await;
    place_all(&client, "alice", "1", &["a", "b", "c"]).await;
    let session = database.connect().await;
    let lock = "BEGIN; LOCK TABLE account_changes IN ACCESS EXCLUSIVE MODE";
    session.execute_unprepared(lock).await.expect("it is locked");

    let mut most = BTreeSet::new();
    for hold_id in ["a", "b", "c"] {
        // The callers give up, but the database continues the queries.
        let mut reads = slow_reads(&client, 40);
        eventually("reads wait", async || database.lock_waits().await >= 8).await;
        captured(&client, capture(hold_id)).await;
        assert_eq!(admin.get("/readyz").await, (200, "ready\n".to_owned()));
        while reads.join_next().await.is_some() {
            most.insert(database.lock_waits().await);
        }
    }
    assert_eq!(most.last(), Some(&8), "reads that run at a time: {most:?}");
    session.execute_unprepared("ROLLBACK").await.expect("it is free");
    assert_eq!(balance(&client, "alice").await, "7.00");
}
