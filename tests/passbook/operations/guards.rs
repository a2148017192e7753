//! A database in which repeats would be applied again, rows can be hidden or lost, or entries changed, is
//! not served, and a server that has it says that it is not ready.

use sea_orm::{ConnectionTrait, QueryResult};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{checker::assert_consistent, servers::PostgresServer, *};

on_both_databases! {
    each_index_and_trigger_of_the_schema_is_needed,
}

/// An index or a trigger of the schema, and how it is dropped and restored.
struct Guard {
    name: String,
    drop: String,
    restore: String,
}

async fn guards(database: &TestDatabase) -> Vec<Guard> {
    let statement = match database.kind {
        Kind::Sqlite => {
            "SELECT name, 'DROP ' || type || ' ' || name, sql FROM sqlite_schema
             WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        }
        Kind::Postgres => {
            "SELECT tgname::text, 'DROP TRIGGER ' || tgname || ' ON ' || tgrelid::regclass,
                 pg_get_triggerdef(oid)
             FROM pg_trigger WHERE NOT tgisinternal
             UNION ALL
             SELECT conname::text, 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT '
                     || conname,
                 'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT ' || conname || ' '
                     || pg_get_constraintdef(oid)
             FROM pg_constraint WHERE contype IN ('p', 'u')
                 AND connamespace = 'public'::regnamespace
                 AND conrelid <> 'passbook_migrations'::regclass
             UNION ALL
             SELECT c.relname::text, 'DROP INDEX ' || c.relname, pg_get_indexdef(c.oid)
             FROM pg_class c
             WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace
                 AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)"
        }
    };
    let rows = database.rows(statement).await;
    let text = |row: &QueryResult, index| row.try_get_by_index(index).expect("a text");
    let guard = |row| Guard { name: text(row, 0), drop: text(row, 1), restore: text(row, 2) };
    rows.iter().map(guard).collect()
}

async fn each_index_and_trigger_of_the_schema_is_needed(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let guards = guards(&database).await;
    assert!(guards.len() > 20, "only {}", guards.len());
    for Guard { name, drop, restore } in &guards {
        database.execute(drop).await;
        let why = start_error(database.url()).await;
        assert!(
            why.contains("the database cannot be used: ") && why.contains(name),
            "{name}: {why}"
        );
        database.execute(restore).await;
    }

    let server = Server::start(&database).await;
    let client = server.client();
    open_funded(&client, "alice", "1").await;
    let Guard { name, drop, restore } = &guards[0];
    database.execute(drop).await;
    becomes(&server, "", ServingStatus::NotServing).await;
    assert!(server.log().contains(name.as_str()), "{}", server.log());
    database.execute(restore).await;
    becomes(&server, "", ServingStatus::Serving).await;
    assert_consistent(&database).await;
}

/// What makes PostgreSQL drop, hide or lose rows, a word of the error, and how it is undone.
const UNSAFE: [(&str, &str, &str); 8] = [
    (
        "ALTER TABLE requests DROP CONSTRAINT requests_pkey;
         CREATE INDEX requests_pkey ON requests (caller, request_id)",
        "no valid unique index requests_pkey",
        "DROP INDEX requests_pkey; ALTER TABLE requests ADD PRIMARY KEY (caller, request_id)",
    ),
    (
        "ALTER TABLE requests DROP CONSTRAINT requests_pkey;
         ALTER TABLE requests ADD PRIMARY KEY (caller, request_id, kind)",
        "ADD PRIMARY KEY (caller, request_id)",
        "ALTER TABLE requests DROP CONSTRAINT requests_pkey;
         ALTER TABLE requests ADD PRIMARY KEY (caller, request_id)",
    ),
    (
        "ALTER TABLE entries DISABLE TRIGGER entries_are_immutable",
        "entries_are_immutable",
        "ALTER TABLE entries ENABLE TRIGGER entries_are_immutable",
    ),
    (
        "ALTER TABLE holds ENABLE REPLICA TRIGGER holds_are_kept",
        "holds_are_kept",
        "ALTER TABLE holds ENABLE TRIGGER holds_are_kept",
    ),
    ("ALTER TABLE requests SET UNLOGGED", "is not logged", "ALTER TABLE requests SET LOGGED"),
    (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER archive BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION nothing()",
        "the trigger archive",
        "DROP TRIGGER archive ON requests",
    ),
    (
        "CREATE RULE archive AS ON INSERT TO entries DO INSTEAD NOTHING",
        "the rule archive",
        "DROP RULE archive ON entries",
    ),
    (
        "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY; ALTER TABLE accounts FORCE ROW LEVEL SECURITY",
        "row-level security",
        "ALTER TABLE accounts NO FORCE ROW LEVEL SECURITY; ALTER TABLE accounts DISABLE ROW LEVEL SECURITY",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_drop_hide_or_lose_rows_are_not_served() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (name, url) = database.create_serving_role("").await;
    for (change, word, undo) in UNSAFE {
        database.execute(change).await;
        let why = start_error(&url).await;
        assert!(
            why.contains("the database cannot be used: ") && why.contains(word),
            "{change}: {why}"
        );
        database.execute(undo).await;
    }
    drop(Server::start_at(&url, &[]).await);
    // Triggers that run after an event, or only for replication, change nothing, and room in an index
    // makes it no other.
    let harmless = "CREATE TRIGGER look AFTER INSERT ON requests
             FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE TRIGGER replicate BEFORE INSERT ON requests
             FOR EACH ROW EXECUTE FUNCTION nothing();
         ALTER TABLE requests ENABLE REPLICA TRIGGER replicate;
         ALTER INDEX requests_pkey SET (fillfactor = 80)";
    database.execute(harmless).await;
    drop(Server::start_at(&url, &[]).await);
    database.drop_role(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_hidden_are_an_error_and_no_rejection_or_short_export() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (name, url) = database.create_serving_role("").await;
    let server = Server::start_at(&url, &[]).await;
    let client = server.client();
    open_funded(&client, "alice", "5").await;
    let hide = "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY";
    database.execute(hide).await;
    let request = within(seconds(2), deposit("alice", "1"));
    let id = request.get_ref().request_id.clone();

    let patient = server.patient();
    let status = patient.deposit(request).await.expect_err("its row is hidden");
    assert_ne!(status.code(), Code::NotFound, "{status:?}");
    assert_ne!(outcome(&status), "", "{status:?}");
    let read = patient.get_account(within(seconds(2), account_named("alice"))).await;
    must_fail(read, Reason::DatabaseUnavailable);
    becomes(&server, "", ServingStatus::NotServing).await;
    let export = passbook(&["export", "--database-url", &url]).await;
    export.must_fail_with(1, "row-level security");

    database.execute("ALTER TABLE accounts DISABLE ROW LEVEL SECURITY").await;
    becomes(&server, "", ServingStatus::Serving).await;
    let again = DepositRequest { request_id: id, ..deposit("alice", "1") };
    client.deposit(again).await.expect("it was not rejected");
    assert_eq!(balance(&client, "alice").await, "6.00");
    drop(server);
    database.drop_role(&name).await;
    assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_not_applied_again_once_a_key_is_known_to_be_gone() {
    let (database, server, client) = start_server(Kind::Postgres).await;
    open(&client, "alice").await;
    let request = deposit("alice", "1");
    client.deposit(request.clone()).await.expect("applied");
    let (drop, restore) = (
        "ALTER TABLE requests DROP CONSTRAINT requests_pkey",
        "ALTER TABLE requests ADD PRIMARY KEY (caller, request_id)",
    );
    database.execute(drop).await;
    becomes(&server, "", ServingStatus::NotServing).await;

    let status = client.deposit(request.clone()).await.expect_err("it would be applied again");
    assert_reason(&status, Reason::DatabaseUnavailable);
    assert_eq!(outcome(&status), "not_applied");

    database.execute(restore).await;
    becomes(&server, "", ServingStatus::Serving).await;
    assert!(client.deposit(request).await.expect("found").replayed);
    assert_eq!(balance(&client, "alice").await, "1.00");
    assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_gets_no_connection_takes_none_from_changes() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (name, url) = database.create_serving_role("").await;
    let server = Server::start_at(&url, &[]).await;
    let client = server.client();
    open(&client, "alice").await;
    // No more sessions than there are now.
    database.execute(&format!("ALTER ROLE {name} CONNECTION LIMIT 1")).await;

    let reads = (0..40).map(|_| client.get_account(within(seconds(5), account_named("alice"))));
    futures_util::future::join_all(reads).await;
    for _ in 0..5 {
        let request = within(seconds(5), deposit("alice", "1"));
        client.deposit(request).await.expect("its connection is still there");
    }
    database.execute(&format!("ALTER ROLE {name} CONNECTION LIMIT -1")).await;
    becomes(&server, "", ServingStatus::Serving).await;
    drop(server);
    database.drop_role(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_a_primary_key_is_neither_verified_nor_exported() {
    let database = TestDatabase::create(Kind::Postgres).await;
    database.passbook(&["verify"]).await.must_succeed();
    database.execute("ALTER TABLE requests DROP CONSTRAINT requests_pkey").await;
    for command in ["verify", "export"] {
        database.passbook(&[command]).await.must_fail_with(1, "requests_pkey");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dropped_and_restored_is_not_used_before_a_restart() {
    let _slot = slots::take(Load::Light).await;
    let postgres = PostgresServer::start_migrated().await;
    let server = Server::start_at(&postgres.url(), &[]).await;
    let client = server.client();
    open_funded(&client, "alice", "5").await;
    // Another database takes its name, as that of a backup.
    let template = "CREATE DATABASE backup TEMPLATE postgres";
    let other = format!("postgres://postgres@{}/template1", postgres.address());
    let session = connect(&other).await.expect("a session");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'";
    for statement in [
        "ALTER DATABASE postgres ALLOW_CONNECTIONS false",
        end,
        template,
        "ALTER DATABASE postgres RENAME TO before",
        "ALTER DATABASE backup RENAME TO postgres",
    ] {
        session.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{error}"));
    }

    becomes(&server, "", ServingStatus::NotServing).await;
    let request = within(seconds(2), deposit("alice", "1"));
    let status = server.patient().deposit(request).await.expect_err("it is another database");
    assert_eq!(outcome(&status), "not_applied");
    assert!(server.log().contains("another database of this name"), "{}", server.log());
    let restarted = Server::start_at(&postgres.url(), &[]).await;
    assert_eq!(balance(&restarted.client(), "alice").await, "5.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_database_no_read_fails_once_the_server_is_ready() {
    let _slot = slots::take(Load::Light).await;
    let mut postgres = PostgresServer::start_migrated().await;
    let server = Server::start_at(&postgres.url(), &[]).await;
    let client = server.client();
    open_funded(&client, "alice", "5").await;
    let read = async || {
        let reads = (0..32).map(|_| client.get_account(account_named("alice")));
        futures_util::future::join_all(reads).await
    };
    assert!(read().await.iter().all(Result::is_ok));

    postgres.crash();
    becomes(&server, "", ServingStatus::NotServing).await;
    postgres.run().await;
    becomes(&server, "", ServingStatus::Serving).await;

    let failed: Vec<_> = read().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
