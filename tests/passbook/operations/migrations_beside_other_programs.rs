//! Shared databases: tables of other programs, missing grants, and the migration table of the
//! previous version, which had another name.

use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::*;

on_both_databases! {
    migrations_of_another_program_do_not_matter,
    tables_of_another_program_are_named_and_left_alone,
    the_migration_table_of_the_previous_version_is_adopted_and_kept,
}

const FORMER_TABLE: &str = "CREATE TABLE seaql_migrations (version varchar NOT NULL PRIMARY KEY, \
                            applied_at bigint NOT NULL)";

async fn migrate(url: &str, command: &str) -> Outcome {
    passbook(&["migrate", command, "--database-url", url]).await
}

async fn versions(database: &TestDatabase, table: &str) -> Vec<String> {
    database.texts(&format!("SELECT version FROM {table} ORDER BY version")).await
}

async fn migrations_of_another_program_do_not_matter(kind: Kind) {
    const OTHER: &str = "m20220101_000001_create_table";
    let database = TestDatabase::create_empty(kind).await;
    database.execute(FORMER_TABLE).await;
    database.execute(&format!("INSERT INTO seaql_migrations VALUES ('{OTHER}', 1)")).await;

    let status = migrate(database.url(), "status").await;
    status.must_fail_with(1, "`passbook migrate up`");
    migrate(database.url(), "up").await.must_succeed();
    migrate(database.url(), "status").await.must_succeed();
    let server = Server::start(&database).await;
    open(&server.client(), "alice").await;
    drop(server);
    migrate(database.url(), "down").await.must_succeed();

    assert_eq!(versions(&database, "seaql_migrations").await, [OTHER]);
}

async fn tables_of_another_program_are_named_and_left_alone(kind: Kind) {
    let database = TestDatabase::create_empty(kind).await;
    database.execute("CREATE TABLE accounts (id integer)").await;

    let outcome = migrate(database.url(), "up").await;

    let said = outcome.must_fail(1);
    assert!(
        said.contains("the table accounts exists already") && said.contains("of its own"),
        "{said}"
    );
    assert!(!said.contains("newer") && !said.contains("at line"), "{said}");
    assert_eq!(database.count("accounts").await, 0);
    let left = match kind {
        Kind::Sqlite => "sqlite_schema WHERE type = 'table'",
        Kind::Postgres => "pg_tables WHERE schemaname = 'public'",
    };
    assert_eq!(database.count(left).await, 1, "nothing was made");
    let arguments = ["--listen", "127.0.0.1:0", "--migrate", "--database-url", database.url()];
    passbook(&[&["serve"][..], &arguments].concat())
        .await
        .must_fail_with(1, "the table accounts exists already");
}

async fn the_migration_table_of_the_previous_version_is_adopted_and_kept(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let all = versions(&database, "passbook_migrations").await;
    database.execute("ALTER TABLE passbook_migrations RENAME TO seaql_migrations").await;
    let server = Server::start(&database).await;
    open(&server.client(), "alice").await;
    drop(server);
    migrate(database.url(), "status").await.must_succeed();
    assert_eq!(versions(&database, "seaql_migrations").await, all, "to look changes nothing");

    migrate(database.url(), "up").await.must_succeed();
    assert_eq!(versions(&database, "passbook_migrations").await, all);
    assert_eq!(versions(&database, "seaql_migrations").await, all, "for servers before");

    migrate(database.url(), "down").await.must_succeed();
    assert_eq!(versions(&database, "passbook_migrations").await, all[..all.len() - 1]);
    assert_eq!(versions(&database, "seaql_migrations").await, all[..all.len() - 1]);

    migrate(database.url(), "up").await.must_succeed();
    // A migration that the previous version reverts is reverted for this one as well.
    let last = all.last().expect("one");
    database.execute(&format!("DELETE FROM seaql_migrations WHERE version = '{last}'")).await;
    let status = migrate(database.url(), "status").await;
    assert!(status.stdout.contains(&format!("pending {last}")), "{}", status.stdout);
    let row = format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{last}', 0)");
    database.execute(&row).await;

    // When no server of the previous version is left.
    database.execute("DROP TABLE seaql_migrations").await;
    migrate(database.url(), "status").await.must_succeed();
    migrate(database.url(), "up").await.must_succeed();
    let server = Server::start(&database).await;
    assert_eq!(balance(&server.client(), "alice").await, "0.00");
}

/// A role that may only connect, and its URL.
async fn role(database: &TestDatabase) -> (String, String) {
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    database.create_role("").await
}

/// Asserts a single line with the remedy, without irrelevant details.
#[track_caller]
fn assert_error_says(outcome: &Outcome, words: &[&str]) {
    let said = outcome.must_fail(1);
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("at line") && !said.contains("Execution Error"), "{said}");
    assert!(!said.contains("unavailable"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_create_tables_gets_the_missing_grant() {
    let database = TestDatabase::create_empty(Kind::Postgres).await;
    let (role, url) = role(&database).await;

    let failed = migrate(&url, "up").await;
    let grant = format!("GRANT CREATE ON SCHEMA public TO {role}");
    assert_error_says(&failed, &[&role, "may not create tables in schema public", &grant]);
    let nowhere = with_search_path(&url, "nowhere");
    assert_error_says(&migrate(&nowhere, "up").await, &["search_path (nowhere)", "CREATE SCHEMA"]);

    database.execute(&grant).await;
    migrate(&url, "up").await.must_succeed();
    let server = Server::start_at(&url, &[]).await;
    open(&server.client(), "alice").await;
    drop(server);
    database.drop_role(&role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_use_the_tables_gets_the_reason() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (role, url) = role(&database).await;
    let verify = async || passbook(&["verify", "--database-url", &url]).await;

    assert_error_says(
        &verify().await,
        &["not allowed: permission denied for table", "GRANT SELECT"],
    );
    database.execute(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")).await;
    verify().await.must_succeed();
    let down = migrate(&url, "down").await;
    assert_error_says(&down, &["not allowed: "]);

    // As after an upgrade by the owner: the role has grants on the old tables only.
    database.execute("ALTER TABLE passbook_migrations RENAME TO seaql_migrations").await;
    migrate(database.url(), "up").await.must_succeed();
    verify().await.must_succeed();
    database.execute("DROP TABLE seaql_migrations").await;
    assert_error_says(
        &verify().await,
        &["permission denied for table passbook_migrations", "GRANT SELECT"],
    );
    database.execute(&format!("GRANT SELECT ON passbook_migrations TO {role}")).await;

    // The role can read but not write.
    let server = Server::start_at(&url, &[]).await;
    let failed = server.client().create_account(account_of("alice", "USD")).await;
    let failed = failed.expect_err("it may not");
    assert_eq!(reason(&failed), "DATABASE_UNAVAILABLE");
    assert!(!failed.message().contains("permission"), "nothing of the inside");
    let log = server.log();
    assert!(log.contains("permission denied for table") && log.contains("GRANT SELECT, INSERT"));
    assert!(log.contains("role may not write") && !log.contains("at line"), "{log}");
    becomes(&server, "", ServingStatus::NotServing).await;
    assert!(server.log().contains("lacks INSERT on table"), "{}", server.log());
    let grant = format!("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}");
    database.execute(&grant).await;
    becomes(&server, "", ServingStatus::Serving).await;
    open(&server.client(), "alice").await;

    // A right that is taken away while the server is running.
    database.execute(&format!("REVOKE INSERT ON commits FROM {role}")).await;
    server.client().deposit(deposit("alice", "1")).await.expect_err("it may not");
    becomes(&server, "", ServingStatus::NotServing).await;
    drop(server);
    database.drop_role(&role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_connect_gets_the_reason_and_the_remedy() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (role, url) = role(&database).await;
    let status = async || migrate(&url, "status").await;
    let name = database.name();

    database.execute(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")).await;
    assert_error_says(&status().await, &["permission denied for database", "GRANT CONNECT"]);
    database.execute(&format!("GRANT CONNECT ON DATABASE {name} TO {role}")).await;
    database.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    assert_error_says(&status().await, &["too many connections for role", "raise"]);
    database.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 50")).await;
    database.execute(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    // The default of the role does not matter; its missing grants do.
    assert_error_says(&status().await, &["permission denied for table", "GRANT SELECT"]);
    let (server, _) = url.rsplit_once('/').expect("a path");
    let nowhere = migrate(&format!("{server}/no_such_database"), "status").await;
    assert_error_says(&nowhere, &["\"no_such_database\" does not exist", "create the database"]);
    let nobody = migrate(&url.replace(&role, "no_such_role"), "status").await;
    assert_error_says(&nobody, &["role \"no_such_role\" does not exist", "database_url"]);
    database.drop_role(&role).await;
}
