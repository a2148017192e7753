//! Database triggers that protect holds and the history of accounts from other programs.

use crate::harness::{checker, *};

on_both_databases! {
    holds_cannot_be_deleted_by_anyone,
    an_open_hold_can_be_ended_once_and_not_otherwise_changed,
    a_hold_that_has_ended_cannot_be_changed_at_all,
    changes_of_accounts_cannot_be_changed_or_deleted_by_anyone,
    a_second_reversal_is_refused_by_the_database_too,
}

/// One hold in each state, of alice's 100.00, and one change of her account.
async fn with_holds(kind: Kind) -> (TestDatabase, Server) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    for hold_id in ["open", "captured", "released"] {
        let request = PlaceHoldRequest {
            expire_time: Some(from_now(seconds(3600))),
            ..hold_named(hold_id, "alice", "10")
        };
        place(&client, request).await;
    }
    captured(&client, capture("captured")).await;
    released(&client, release("released")).await;
    place_and_expire(&client, hold_named("expired", "alice", "10")).await;
    freeze(&client, "alice").await;
    let states = database.texts("SELECT state FROM holds ORDER BY state").await;
    assert_eq!(states, ["captured", "expired", "open", "released"]);
    (database, server)
}

async fn holds_cannot_be_deleted_by_anyone(kind: Kind) {
    let (database, _server) = with_holds(kind).await;
    let mut statements = vec!["DELETE FROM holds".to_owned()];
    for hold_id in ["open", "captured", "released", "expired"] {
        statements.push(format!("DELETE FROM holds WHERE hold_id = '{hold_id}'"));
    }
    if kind == Kind::Postgres {
        statements.extend(["TRUNCATE holds", "TRUNCATE accounts, holds"].map(str::to_owned));
    }

    database.must_refuse(&statements, "append-only").await;

    assert_eq!(database.count("holds").await, 4);
    checker::assert_consistent(&database).await;
}

/// Every column of a hold except those that its end sets, each with another value.
const FIXED: [&str; 8] = [
    "hold_id = 'other'",
    "account_key = account_key + 1",
    "amount = '9.99'",
    "expire_time_us = expire_time_us + 1",
    "request_id = 'other'",
    "description = 'other'",
    "labels = '{\"a\": \"b\"}'",
    "create_time_us = create_time_us - 1",
];

async fn an_open_hold_can_be_ended_once_and_not_otherwise_changed(kind: Kind) {
    let (database, server) = with_holds(kind).await;
    let before = database.holds().await;
    let words = match kind {
        Kind::Sqlite => "a hold is ended once",
        Kind::Postgres => "append-only",
    };
    let change = |set: &str| format!("UPDATE holds SET {set} WHERE hold_id = 'open'");
    let mut statements: Vec<_> = FIXED.iter().map(|set| change(set)).collect();
    statements.push(change("expire_time_us = NULL"));
    // Not even together with its end.
    statements.push(change("state = 'released', amount = '1'"));

    database.must_refuse(&statements, words).await;
    database.refused(&change("state = 'gone'")).await;
    // A captured hold has a transaction, and no other hold has one.
    database.refused(&change("state = 'captured'")).await;
    database.refused(&change("captured_amount = '1'")).await;
    assert_eq!(database.holds().await, before);

    database.execute(&change("state = 'released'")).await;
    let again = [change("state = 'open'"), change("state = 'expired'")];
    database.must_refuse(&again, words).await;
    assert_eq!(get_hold(&server.client(), "open").await.state(), HoldState::Released);
}

async fn a_hold_that_has_ended_cannot_be_changed_at_all(kind: Kind) {
    let (database, _server) = with_holds(kind).await;
    let before = database.holds().await;
    let words = match kind {
        Kind::Sqlite => "a hold is ended once",
        Kind::Postgres => "append-only",
    };

    for hold_id in ["captured", "released", "expired"] {
        let ends =
            ["state = 'open'", "state = state", "update_time_us = 0", "captured_amount = '1'"];
        let change = |set: &&str| format!("UPDATE holds SET {set} WHERE hold_id = '{hold_id}'");
        let statements: Vec<_> = FIXED.iter().chain(&ends).map(change).collect();
        database.must_refuse(&statements, words).await;
    }

    assert_eq!(database.holds().await, before);
    checker::assert_consistent(&database).await;
}

async fn changes_of_accounts_cannot_be_changed_or_deleted_by_anyone(kind: Kind) {
    let (database, _server) = with_holds(kind).await;
    let mut statements = vec![
        "DELETE FROM account_changes",
        "DELETE FROM account_changes WHERE account_id = 'alice'",
        "UPDATE account_changes SET reason = 'another'",
        "UPDATE account_changes SET version = version",
    ];
    if kind == Kind::Postgres {
        statements.push("TRUNCATE account_changes");
    }

    database.must_refuse(&statements, "append-only").await;

    assert_eq!(database.text("SELECT reason FROM account_changes").await, "f");
}

async fn a_second_reversal_is_refused_by_the_database_too(kind: Kind) {
    let (database, server) = with_holds(kind).await;
    let client = server.client();
    unfreeze(&client, "alice").await;
    let made = client.deposit(deposit("alice", "1")).await.expect("applied");
    let original = made.transaction.expect("a transaction").transaction_id;
    reversed(&client, reversal(&original)).await;
    let (id, text) = match kind {
        Kind::Sqlite => (format!("X'{}'", uuid::Uuid::now_v7().simple()), "UNIQUE"),
        Kind::Postgres => {
            (format!("'{}'", uuid::Uuid::now_v7()), "requests_reverses_transaction_id")
        }
    };

    let words = database
        .refused(&format!(
            "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind,
                 entry_keys, create_time_us, reverses_transaction_id)
             SELECT caller, 'another', fingerprint, {id}, kind,
                 entry_keys, create_time_us, reverses_transaction_id
             FROM requests WHERE reverses_transaction_id IS NOT NULL"
        ))
        .await;

    assert!(words.contains(text), "{words}");
    must_fail(client.reverse_transaction(reversal(&original)).await, Reason::AlreadyReversed);
}

/// INSERT OR REPLACE deletes the conflicting row without firing its DELETE trigger.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_insert_or_replace_too() {
    let (database, _server) = with_holds(Kind::Sqlite).await;
    for table in ["holds", "account_changes"] {
        let columns = database.columns(table).await.join(", ");
        let replace = format!("INSERT OR REPLACE INTO {table} SELECT {columns} FROM {table}");
        database.must_refuse(&[replace], "append-only").await;
    }
    let statement = "UPDATE OR REPLACE holds SET hold_id = 'open' WHERE hold_id = 'released'";
    database.refused(statement).await;
    assert_eq!(database.count("holds").await, 4);
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_refuses_holds_that_break_the_rules_of_money() {
    let (database, _server) = with_holds(Kind::Postgres).await;
    let columns = "account_key, state, expire_time_us, captured_amount, transaction_id, request_id, \
                   description, labels, create_time_us, update_time_us";
    for amount in ["'NaN'", "'Infinity'", "0", "-1", "1e28"] {
        let statement = format!(
            "INSERT INTO holds (hold_id, amount, {columns})
             SELECT 'bad', {amount}, {columns} FROM holds WHERE hold_id = 'open'"
        );
        database.must_refuse(&[statement], "holds_amount_is_positive").await;
    }
    for captured in ["'NaN'", "0", "-1", "10.01"] {
        let statement = format!(
            "UPDATE holds SET state = 'captured', captured_amount = {captured},
                 transaction_id = gen_random_uuid() WHERE hold_id = 'open'"
        );
        database.must_refuse(&[statement], "holds_captured_amount_is_within").await;
    }
}
