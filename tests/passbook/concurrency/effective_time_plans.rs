//! What goes by effective time finds its rows by indexes, on an account with many entries.

use crate::harness::*;

on_both_databases! {
    statements_by_effective_time_are_searched_by_indexes,
}

/// The statements as the server sends them.
const STATEMENTS: &str = include_str!("../../../src/storage/statement_texts.sql");
/// Entries of the account. Each tenth has an effective time.
const ENTRIES: usize = 20_000;

/// The plan of a statement with these values, on the database's own statistics.
async fn plan(database: &TestDatabase, name: &str, values: &[&str]) -> String {
    let of_kind = match database.kind {
        Kind::Sqlite => "sqlite",
        Kind::Postgres => "postgres",
    };
    let text = STATEMENTS.split(&format!("-- {name}, {of_kind}\n")).nth(1).expect("it is there");
    let mut sql = text.split("\n-- ").next().expect("a statement").to_owned();
    for (index, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", index + 1), value);
    }
    let (explain, column) = match database.kind {
        Kind::Sqlite => ("EXPLAIN QUERY PLAN", "detail"),
        Kind::Postgres => ("EXPLAIN", "QUERY PLAN"),
    };
    let lines = database.rows(&format!("{explain} {sql}")).await;
    let lines = lines.iter().map(|row| row.try_get("", column).expect("a line"));
    lines.collect::<Vec<String>>().join("\n")
}

async fn statements_by_effective_time_are_searched_by_indexes(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;
    open_funded(&client, "b", "1").await;
    // Both accounts, so that neither is all of the table.
    let fill = format!(
        "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after,
             create_time_us, hash, effective_time_us)
         SELECT e.account_key, n + 1, e.transaction_id, e.amount, e.balance_after,
             e.create_time_us + n, e.hash, CASE WHEN n % 10 = 0 THEN e.create_time_us - n END
         FROM {} CROSS JOIN entries e WHERE e.sequence = 1",
        database.numbers(ENTRIES)
    );
    database.execute(&fill).await;
    let random_id = match kind {
        Kind::Sqlite => "randomblob(16)",
        Kind::Postgres => "gen_random_uuid()",
    };
    let fill = format!(
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys,
             create_time_us)
         SELECT 'other', 'r-' || n, fingerprint, {random_id}, kind, entry_keys, create_time_us
         FROM {}, (SELECT * FROM requests LIMIT 1) r",
        database.numbers(ENTRIES)
    );
    database.execute(&fill).await;
    database.execute("ANALYZE").await;
    let account_key = database.text("SELECT CAST(max(account_key) AS text) FROM entries").await;
    let time = database.text("SELECT CAST(min(create_time_us) AS text) FROM entries").await;
    let (first, last) = (i64::MIN + 1, i64::MAX.to_string());
    let first = format!("({first})");
    let range = [&account_key, "19000", "20001", &first, "0", &last, "0", "20001", "101"];
    for name in ["effective_times::ASCENDING", "effective_times::DESCENDING"] {
        assert_found(&plan(&database, name, &range).await, &["entries_by_effective_time"]);
    }
    let ids = match kind {
        Kind::Sqlite => "'[\"00112233445566778899aabbccddeeff\"]'",
        Kind::Postgres => "'{00112233-4455-6677-8899-aabbccddeeff}'",
    };
    let filter = ["''", &first, &last, "'{}'", ids];
    let found = plan(&database, "effective_times::MATCHING", &filter).await;
    assert_found(&found, &["requests_transaction_id"]);
    let balance = [&account_key, &time, "19000", "20001", "250001"].map(|it| it as &str);
    let found = plan(&database, "effective_times::BALANCE", &balance).await;
    assert_found(&found, &["entries_by_effective_time", "entries_with_effective_time"]);
}

/// Fails unless a plan uses these indexes and reads no table as a whole.
fn assert_found(plan: &str, indexes: &[&str]) {
    for index in indexes {
        assert!(plan.contains(index), "{index} is not in\n{plan}");
    }
    for scan in ["Seq Scan on entries", "Seq Scan on requests", "SCAN entries", "SCAN r "] {
        assert!(!plan.contains(scan), "{scan} is in\n{plan}");
    }
}
