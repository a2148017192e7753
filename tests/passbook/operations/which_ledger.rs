//! A server stays with the ledger that it began with, and says if it cannot know which one that is, or if
//! it is the copy of another one.

use sea_orm::ConnectionTrait;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{servers::PostgresServer, *};

/// Makes a second ledger in this schema.
async fn second_ledger(database: &TestDatabase, schema: &str) {
    database.execute(&format!("CREATE SCHEMA {schema}")).await;
    let url = with_search_path(database.url(), schema);
    passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed();
}

async fn end_sessions(database: &TestDatabase) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'passbook' AND datname = current_database()";
    database.execute(sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_appears_in_front_of_another_one_is_not_taken_for_it() {
    let (database, server, client) = start_server(Kind::Postgres).await;
    open(&client, "alice").await;
    let request = deposit("alice", "1");
    client.deposit(request.clone()).await.expect("applied");

    // The schema of the role's own name comes first in the search path.
    second_ledger(&database, "postgres").await;
    assert!(client.deposit(request.clone()).await.expect("found").replayed);
    assert_eq!(balance(&client, "alice").await, "1.00");
    let both = "has a ledger in several schemas of the search path (postgres, public)";
    assert!(start_error(database.url()).await.contains(both));
    // New sessions do not know which one to use.
    end_sessions(&database).await;
    becomes(&server, "", ServingStatus::NotServing).await;
    assert!(server.log().contains(both), "{}", server.log());

    database.execute("DROP SCHEMA postgres CASCADE").await;
    becomes(&server, "", ServingStatus::Serving).await;
    assert!(client.deposit(request).await.expect("found").replayed);
}

/// Sessions that were there before the ledger are not kept with its schema.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_made_its_ledger_stays_with_it() {
    let database = TestDatabase::create_empty(Kind::Postgres).await;
    let server = Server::start_with(&database, &["--migrate"]).await;
    let client = server.client();
    open_funded(&client, "alice", "1").await;
    assert_eq!(balance(&client, "alice").await, "1.00");

    second_ledger(&database, "postgres").await;

    // A new session does not know which one to use.
    let reads = (0..50).map(|_| client.get_account(account_named("alice")));
    for read in futures_util::future::join_all(reads).await {
        match read {
            Ok(account) => assert_eq!(value(&account.account.expect("alice").balance), "1.00"),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_search_path_does_not_lead_a_server_to_another_ledger() {
    let (database, server, client) = start_server(Kind::Postgres).await;
    open_funded(&client, "alice", "1").await;
    second_ledger(&database, "bank").await;

    let set = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = bank', \
         current_database()); END $$";
    database.execute(set).await;
    end_sessions(&database).await;
    becomes(&server, "", ServingStatus::NotServing).await;
    let why = "has a ledger in another schema than the one used before";
    assert!(server.log().contains(why), "{}", server.log());
    let change = Change::Deposit(deposit("alice", "1"));
    let result = change.send(&server.patient(), seconds(2)).await;
    let status = result.expect_err("alice is in the other ledger");
    assert_eq!(outcome(&status), "not_applied", "{status:?}");

    database.execute(&set.replace("= bank", "= public")).await;
    becomes(&server, "", ServingStatus::Serving).await;
    assert_eq!(balance(&client, "alice").await, "1.00");
}

/// Logical replication copies rows, not sequences.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_logical_replication_is_served_once_it_is_a_ledger_of_its_own() {
    let _slot = slots::take(Load::Heavy).await;
    let postgres = PostgresServer::start_in(None, &["wal_level=logical"]).await;
    postgres.migrate().await;
    let server = Server::start_at(&postgres.url(), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    open(&server.client(), "bob").await;
    drop(server);
    postgres.execute("CREATE DATABASE copy").await;
    let url = format!("postgres://postgres@{}/copy?sslmode=disable", postgres.address());
    passbook(&["migrate", "up", "--database-url", &url]).await.must_succeed();
    let copy = connect(&url).await.expect("a session");
    let execute = async |sql: &str| {
        copy.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    };

    let tables = "accounts, entries, requests, holds, account_changes, commits";
    postgres.execute(&format!("CREATE PUBLICATION of_ledger FOR TABLE {tables}")).await;
    postgres.execute("SELECT pg_create_logical_replication_slot('to_copy', 'pgoutput')").await;
    let subscribe = format!(
        "CREATE SUBSCRIPTION from_ledger CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=postgres' \
         PUBLICATION of_ledger WITH (create_slot = false, slot_name = to_copy)",
        postgres.port
    );
    execute(&subscribe).await;
    eventually("the rows are copied", async || {
        let rows = database::rows(&copy, "SELECT 1 FROM commits").await;
        rows.expect("an answer").len() == 3
    })
    .await;
    let why = start_error(&url).await;
    assert!(why.contains("come from the subscription from_ledger"), "{why}");

    execute("ALTER SUBSCRIPTION from_ledger DISABLE").await;
    for column in ["accounts.account_key", "commits.number"] {
        let why = start_error(&url).await;
        assert!(why.contains(&format!("the sequence of {column} is behind the rows")), "{why}");
        let (_, statement) = why.split_once("replication: ").expect("a statement");
        execute(statement.lines().next().expect("a line")).await;
    }
    let server = Server::start_at(&url, &[]).await;
    let client = server.client();
    open(&client, "carol").await;
    client.deposit(deposit("alice", "1")).await.expect("applied");
    assert_eq!(balance(&client, "alice").await, "2.00");

    drop(server);
    execute("ALTER SUBSCRIPTION from_ledger SET (slot_name = NONE)").await;
    execute("DROP SUBSCRIPTION from_ledger").await;
}
