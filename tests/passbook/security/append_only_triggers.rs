//! Database triggers that protect the ledger from other programs.

use crate::harness::{checker, *};

on_both_databases! {
    entries_cannot_be_changed_or_deleted_by_anyone,
    requests_accounts_and_commits_cannot_be_deleted_by_anyone,
}

async fn with_an_entry(kind: Kind) -> (TestDatabase, Server) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    (database, server)
}

async fn entries_cannot_be_changed_or_deleted_by_anyone(kind: Kind) {
    let (database, _server) = with_an_entry(kind).await;
    let mut statements = vec![
        "UPDATE entries SET amount = amount",
        "UPDATE entries SET balance_after = '1' WHERE sequence = 1",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE sequence = 1",
    ];
    if kind == Kind::Postgres {
        statements.push("TRUNCATE entries");
    }

    database.must_refuse(&statements, "append-only").await;

    checker::assert_consistent(&database).await;
    assert_eq!(database.count("entries").await, 1);
}

async fn requests_accounts_and_commits_cannot_be_deleted_by_anyone(kind: Kind) {
    let (database, _server) = with_an_entry(kind).await;
    let mut statements = vec![
        "DELETE FROM requests",
        "DELETE FROM accounts",
        "UPDATE requests SET rejection = NULL",
        "DELETE FROM commits",
        "UPDATE commits SET create_time_us = 1",
    ];
    if kind == Kind::Postgres {
        statements.extend(["TRUNCATE requests", "TRUNCATE accounts", "TRUNCATE accounts CASCADE"]);
        statements.push("TRUNCATE commits");
    }

    database.must_refuse(&statements, "append-only").await;

    assert_eq!((database.count("requests").await, database.count("accounts").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_refuses_a_foreign_update_that_breaks_the_rules_of_money() {
    let (database, server) = with_an_entry(Kind::Postgres).await;
    open_with_overdraft(&server.client(), "limited", "50").await;
    let overdrawn = "available_is_not_negative";
    let cases = [
        ("UPDATE accounts SET balance = 'NaN'", "balance_is_a_number"),
        ("UPDATE accounts SET balance = 'Infinity'", "balance_is_a_number"),
        ("UPDATE accounts SET balance = 1e28, unlimited_overdraft = true", "balance_is_a_number"),
        ("UPDATE accounts SET balance = -0.01 WHERE account_id = 'alice'", overdrawn),
        ("UPDATE accounts SET balance = -50.01 WHERE account_id = 'limited'", overdrawn),
        ("UPDATE accounts SET held = 100.01 WHERE account_id = 'alice'", overdrawn),
        ("UPDATE accounts SET held = 'NaN', unlimited_overdraft = true", "held_is_not_negative"),
        ("UPDATE accounts SET overdraft_limit = 'NaN'", "overdraft_limit_is_not_negative"),
        ("UPDATE accounts SET overdraft_limit = -1", "overdraft_limit_is_not_negative"),
        ("UPDATE accounts SET state = 'gone'", "state_is_known"),
        (
            "INSERT INTO entries (account_key, sequence, create_time_us, transaction_id, amount,
                 balance_after, hash)
             SELECT account_key, 9, 0, transaction_id, 'NaN', 0, hash FROM entries",
            "amount_is_a_number",
        ),
    ];

    for (statement, constraint) in cases {
        database.must_refuse(&[statement], constraint).await;
    }

    database.execute("UPDATE accounts SET balance = -50 WHERE account_id = 'limited'").await;
    assert_eq!(balance(&server.client(), "limited").await, "-50.00");
}

/// INSERT OR REPLACE deletes the conflicting row without firing its DELETE trigger.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_insert_or_replace_too() {
    let (database, _server) = with_an_entry(Kind::Sqlite).await;
    for table in ["entries", "requests", "accounts"] {
        let statement = format!("INSERT OR REPLACE INTO {table} SELECT * FROM {table}");
        database.must_refuse(&[statement], "append-only").await;
    }
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_file_is_in_wal_mode_and_passes_its_integrity_check() {
    let (database, _server) = with_an_entry(Kind::Sqlite).await;
    assert_eq!(database.text("PRAGMA journal_mode").await, "wal");
    assert_eq!(database.text("PRAGMA integrity_check").await, "ok");
    let version = database.text("SELECT sqlite_version()").await;
    let version: Vec<u32> =
        version.split('.').map(|part| part.parse().expect("a number")).collect();
    // Below this version a reset of the WAL can corrupt the file.
    assert!(version >= vec![3, 51, 3], "{version:?}");
}
