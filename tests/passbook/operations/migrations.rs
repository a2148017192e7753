//! `passbook migrate`, and how `serve` treats another schema version.

use passbook::storage::{migration_names, schema_version};
use tokio::task::JoinSet;

use crate::harness::{checker, *};

on_both_databases! {
    reverting_the_holds_migration_releases_held_money,
    migrations_go_up_and_down_and_up_again,
    effective_times_are_not_migrated_away,
    opening_attributes_are_written_for_accounts_that_are_there,
    force_and_parts_are_not_migrated_away,
    details_of_requests_are_not_migrated_away,
    changed_holds_are_not_migrated_away,
    ended_holds_changes_and_reversals_are_not_migrated_away,
    a_ledger_is_not_deleted_by_reverting_its_migrations,
    changes_on_an_older_schema_say_so,
    five_processes_that_migrate_at_once_migrate_once,
    five_servers_that_migrate_at_start_all_get_ready,
    a_schema_that_is_ahead_of_the_server_is_not_served,
}

/// Each row: the last migration of an earlier schema, and how often to run `passbook migrate down`.
#[test]
fn the_table_of_runs_to_go_back_is_that_of_the_migrations() {
    let text = include_str!("../../../docs/operations/upgrades.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| Back to the schema")).skip(2);
    let rows: Vec<_> = table.take_while(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    let names = migration_names();
    for row in rows {
        let (name, runs) = (row.split('`').nth(1), row.rsplit('|').nth(1));
        let place = names.iter().position(|it| Some(it.as_str()) == name).expect(row);
        let expected = (names.len() - 1 - place).to_string();
        assert_eq!(runs.map(str::trim), Some(expected.as_str()), "{row}");
    }
}

async fn migrate(database: &TestDatabase, command: &str) -> Outcome {
    database.passbook(&["migrate", command]).await
}

async fn tables(database: &TestDatabase) -> Vec<String> {
    database
        .texts(match database.kind {
            Kind::Sqlite => "SELECT name FROM sqlite_master WHERE type IN ('table', 'trigger') ORDER BY name",
            Kind::Postgres => {
                "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'
                 UNION ALL SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal
                 UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                 ORDER BY 1"
            }
        })
        .await
}

async fn effective_times_are_not_migrated_away(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let effective_time = Some(from_now(seconds(86_400)));
    let request = DepositRequest { effective_time, ..deposit("alice", "1") };
    client.deposit(request).await.expect("applied");
    drop(server);
    database.migrate_down_before("opening_attributes").await;

    let outcome = migrate(&database, "down").await;

    assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
    migrate(&database, "up").await.must_succeed();
    database.passbook(&["verify"]).await.must_succeed();
}

/// Those of accounts that have changed are in the first change.
async fn opening_attributes_are_written_for_accounts_that_are_there(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open(&client, "plain").await;
    let labels = [("a".to_owned(), "b \"é\"".to_owned())].into();
    open_with(&client, CreateAccountRequest { labels, ..account_of("labelled", "USD") }).await;
    open_unlimited(&client, "unlimited").await;
    for account_id in ["changed", "limited"] {
        open_with_overdraft(&client, account_id, "5").await;
    }
    for limit in ["7", "9"] {
        client.update_account(limit_of("changed", limit)).await.expect("applied");
    }
    drop(server);
    let openings = async || {
        let column = "CAST(opening_attributes AS text)";
        let sql = format!("SELECT {column} FROM accounts ORDER BY account_id");
        let json = |text: &String| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        database.texts(&sql).await.iter().map(json).collect::<Vec<_>>()
    };
    let limit = serde_json::json!({"overdraft_limit": "5.00"});
    let expected = [
        limit.clone(),
        serde_json::json!({"labels": {"a": "b \"é\""}}),
        limit,
        serde_json::json!({}),
        serde_json::json!({"unlimited_overdraft": true}),
    ];
    assert_eq!(openings().await, expected);

    database.migrate_down_before("opening_attributes").await;
    migrate(&database, "up").await.must_succeed();

    assert_eq!(openings().await, expected);
    database.passbook(&["verify"]).await.must_succeed();
    let change = "UPDATE accounts SET opening_attributes = NULL";
    database.must_refuse(&[change], "is not allowed").await;
}

async fn force_and_parts_are_not_migrated_away(kind: Kind) {
    for is_forced in [true, false] {
        let (database, server, client) = start_server(kind).await;
        open(&client, "alice").await;
        let made = deposited(&client, "alice", "5").await;
        if is_forced {
            let request = WithdrawRequest { force: true, ..withdrawal("alice", "7") };
            client.withdraw(request).await.expect("applied");
        } else {
            let whole = reversal(&made.transaction_id);
            let part = ReverseTransactionRequest { amount: money("2"), ..whole };
            client.reverse_transaction(part).await.expect("applied");
        }
        drop(server);
        database.migrate_down_before("commits").await;

        let outcome = migrate(&database, "down").await;

        assert_eq!(outcome.code, Some(1), "{is_forced}: {}{}", outcome.stdout, outcome.stderr);
        migrate(&database, "up").await.must_succeed();
        database.passbook(&["verify"]).await.must_succeed();
    }
}

/// Asserts that this constraint keeps the latest migration from being reverted, and nothing is lost.
async fn assert_not_reverted(database: &TestDatabase, constraint: &str) {
    let outcome = migrate(database, "down").await;

    assert_eq!(outcome.code, Some(1), "{constraint}: {}{}", outcome.stdout, outcome.stderr);
    // SQLite does not name it.
    let words = match database.kind {
        Kind::Sqlite => "CHECK constraint failed",
        Kind::Postgres => constraint,
    };
    assert!(outcome.stderr.contains(words), "{constraint}: {}", outcome.stderr);
    migrate(database, "up").await.must_succeed();
    database.passbook(&["verify"]).await.must_succeed();
}

async fn details_of_requests_are_not_migrated_away(kind: Kind) {
    for is_forced in [true, false] {
        let (database, server, client) = start_server(kind).await;
        open_funded(&client, "alice", "10").await;
        if is_forced {
            // There is enough: the account is not below its limit.
            let request = WithdrawRequest { force: true, ..withdrawal("alice", "7") };
            client.withdraw(request).await.expect("applied");
        } else {
            // The hold itself is as if it had been captured at once.
            place(&client, hold_named("h", "alice", "7")).await;
            captured(&client, capture_and_keep("h", "3")).await;
            captured(&client, capture_part("h", "4")).await;
        }
        drop(server);
        database.migrate_down_before("commits").await;

        assert_not_reverted(&database, "requests_have_no_details").await;
    }
}

async fn changed_holds_are_not_migrated_away(kind: Kind) {
    for is_open in [true, false] {
        let (database, server, client) = start_server(kind).await;
        open_funded(&client, "alice", "10").await;
        let request = hold_named("h", "alice", "7");
        let first = place(&client, request.clone()).await;
        updated(&client, hold_update("h", "5")).await;
        if !is_open {
            released(&client, release("h")).await;
        }
        drop(server);
        database.migrate_down_before("effective_times").await;

        assert_not_reverted(&database, "holds_are_as_placed").await;

        let server = Server::start(&database).await;
        let again = server.client().place_hold(request).await.expect("the same result");
        assert_eq!((again.hold, again.replayed), (Some(first), true));
    }
}

async fn ended_holds_changes_and_reversals_are_not_migrated_away(kind: Kind) {
    for constraint in ["holds_are_open", "accounts_have_not_changed", "requests_reverse_nothing"] {
        let (database, server, client) = start_server(kind).await;
        open(&client, "alice").await;
        let made = deposited(&client, "alice", "10").await;
        match constraint {
            "holds_are_open" => {
                place(&client, hold_named("h", "alice", "7")).await;
                released(&client, release("h")).await;
            }
            "accounts_have_not_changed" => {
                freeze(&client, "alice").await;
            }
            _ => {
                reversed(&client, reversal(&made.transaction_id)).await;
            }
        }
        drop(server);
        database.migrate_down_before("who_asked").await;

        assert_not_reverted(&database, constraint).await;
    }
}

async fn a_ledger_is_not_deleted_by_reverting_its_migrations(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "5").await;
    drop(server);
    database.migrate_down_before("holds_and_history").await;

    let outcome = migrate(&database, "down").await;

    assert!(outcome.must_fail(1).contains("there are accounts"), "{}", outcome.stderr);
    migrate(&database, "up").await.must_succeed();
    database.passbook(&["verify"]).await.must_succeed();
    let server = Server::start(&database).await;
    assert_eq!(balance(&server.client(), "alice").await, "5.00");
}

async fn changes_on_an_older_schema_say_so(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    migrate(&database, "down").await.must_succeed();

    let status = must_fail(client.deposit(deposit("alice", "1")).await, Reason::SchemaNotMigrated);

    assert_eq!(outcome(&status), "not_applied", "{status:?}");
    migrate(&database, "up").await.must_succeed();
    deposited(&client, "alice", "1").await;
}

async fn reverting_the_holds_migration_releases_held_money(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    client.place_hold(hold("alice", "7")).await.expect("it is placed");
    drop(server);

    database.migrate_down_before("holds_and_history").await;
    migrate(&database, "up").await.must_succeed();

    let server = Server::start(&database).await;
    let account = get(&server.client(), "alice").await;
    assert_eq!((value(&account.held), value(&account.available)), ("0.00", "10.00"));
}

async fn migrations_go_up_and_down_and_up_again(kind: Kind) {
    let database = TestDatabase::create_empty(kind).await;

    migrate(&database, "up").await.must_succeed();
    let first = tables(&database).await;
    for name in ["accounts", "entries", "requests"] {
        assert!(first.iter().any(|table| table == name), "{first:?}");
    }
    let status = migrate(&database, "status").await.must_succeed();
    assert!(status.stdout.contains("m20261123_000001_create_ledger"), "{}", status.stdout);

    for _ in migration_names() {
        migrate(&database, "down").await.must_succeed();
    }
    let left: Vec<String> =
        tables(&database).await.into_iter().filter(|name| name != "passbook_migrations").collect();
    assert!(left.is_empty() || left.iter().all(|name| name.starts_with("sqlite_")), "{left:?}");

    migrate(&database, "up").await.must_succeed();
    migrate(&database, "up").await.must_succeed();
    assert_eq!(tables(&database).await, first);

    let server = Server::start(&database).await;
    open_funded(&server.client(), "alice", "1").await;
    checker::assert_consistent(&database).await;
}

async fn five_processes_that_migrate_at_once_migrate_once(kind: Kind) {
    let database = TestDatabase::create_empty(kind).await;
    let mut processes = JoinSet::new();
    for _ in 0..5 {
        let url = database.url().to_owned();
        processes.spawn(async move { passbook(&["migrate", "up", "--database-url", &url]).await });
    }

    for outcome in processes.join_all().await {
        outcome.must_succeed();
    }

    assert_eq!(database.count("passbook_migrations").await, migration_names().len() as i64);
}

async fn five_servers_that_migrate_at_start_all_get_ready(kind: Kind) {
    let database = TestDatabase::create_empty(kind).await;
    let mut starting = JoinSet::new();
    for _ in 0..5 {
        let url = database.url().to_owned();
        let arguments: &[&str] = if kind == Kind::Postgres { &["--migrate"] } else { &[] };
        starting.spawn(async move { Server::start_at(&url, arguments).await });
    }

    let servers = starting.join_all().await;

    open(&servers[0].client(), "alice").await;
    for server in &servers {
        server.client().deposit(deposit("alice", "1")).await.expect("applied");
    }
    assert_eq!(balance(&servers[4].client(), "alice").await, "5.00");
    assert_eq!(database.count("passbook_migrations").await, migration_names().len() as i64);
}

async fn a_schema_that_is_ahead_of_the_server_is_not_served(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let insert = "INSERT INTO passbook_migrations (version, applied_at) VALUES ('m29990101_000001_future', 0)";
    database.execute(insert).await;

    for arguments in [&[][..], &["--migrate"]] {
        let outcome = serve(&database, arguments).await;
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("m29990101_000001_future"), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
}

async fn serve(database: &TestDatabase, arguments: &[&str]) -> Outcome {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--database-url", database.url()];
    all.extend(arguments);
    passbook(&all).await
}

/// A role that only serves has rights on the tables, which must last when a migration makes them anew.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_a_migration_makes_anew_keep_their_grants() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let grants = "SELECT string_agg(table_name || ' ' || privilege_type, ', ' ORDER BY table_name)
        FROM information_schema.role_table_grants
        WHERE grantee = 'PUBLIC' AND table_schema = 'public'";
    let granted = "entries INSERT, holds UPDATE, requests SELECT";
    database.execute("GRANT INSERT ON entries TO PUBLIC").await;
    database.execute("GRANT SELECT ON requests TO PUBLIC").await;
    database.execute("GRANT UPDATE ON holds TO PUBLIC").await;

    database.migrate_down_before("account_keys").await;
    assert_eq!(database.text(grants).await, granted);

    migrate(&database, "up").await.must_succeed();
    // The new table has those of the requests.
    assert_eq!(database.text(grants).await, format!("commits SELECT, {granted}"));
}

/// The owner of the tables migrates, and servers have a role of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_only_serves_may_write_a_new_table() {
    let database = TestDatabase::create(Kind::Postgres).await;
    database.migrate_down_before("commits").await;
    let role = format!("{}_serves", database.name());
    let create = format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"
    );
    database.execute(&create).await;

    migrate(&database, "up").await.must_succeed();

    let (_, address) = database.url().split_once('@').expect("a user");
    let server = Server::start_at(&format!("postgres://{role}@{address}"), &[]).await;
    open_funded(&server.client(), "alice", "5").await;
    assert_eq!(balance(&server.client(), "alice").await, "5.00");
    drop(server);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_does_not_start_without_a_schema_and_names_the_command() {
    let database = TestDatabase::create_empty(Kind::Postgres).await;

    let outcome = serve(&database, &[]).await;

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("passbook migrate up"), "{}", outcome.stderr);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    assert!(tables(&database).await.is_empty(), "nothing was made without being asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_does_not_start_on_an_old_schema_unless_it_may_migrate() {
    let database = TestDatabase::create(Kind::Postgres).await;
    migrate(&database, "down").await.must_succeed();

    let outcome = serve(&database, &[]).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("passbook migrate up"), "{}", outcome.stderr);

    let server = Server::start_with(&database, &["--migrate"]).await;
    open(&server.client(), "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_creates_the_schema_on_sqlite() {
    let database = TestDatabase::create_empty(Kind::Sqlite).await;

    let server = Server::start(&database).await;

    open(&server.client(), "alice").await;
    let schema = format!("schema {}", schema_version());
    assert!(server.ready_line.contains(&schema), "{}", server.ready_line);
}
