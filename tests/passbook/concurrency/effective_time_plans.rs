//! What goes by effective time, on accounts with many entries: it finds its rows by indexes, and a page
//! ends after so many examined entries.

use crate::harness::*;

on_both_databases! {
    statements_by_effective_time_are_searched_by_indexes_and_complete,
}

/// The statements as the server sends them.
const STATEMENTS: &str = include_str!("../../../src/storage/statement_texts.sql");
/// Entries of each account: more than twice what a page examines.
const ENTRIES: usize = 21_000;

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

async fn statements_by_effective_time_are_searched_by_indexes_and_complete(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;
    open_funded(&client, "b", "1").await;
    open_funded(&client, "other", "1").await;
    // Each tenth entry takes effect before it was written.
    database.execute(&fill(&database, "a", "n % 10 = 0", "-")).await;
    database.execute(&fill(&database, "other", "n % 10 = 0", "-")).await;
    let random_id = match kind {
        Kind::Sqlite => "randomblob(16)",
        Kind::Postgres => "gen_random_uuid()",
    };
    let requests = format!(
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys,
             create_time_us)
         SELECT 'other', 'r-' || n, fingerprint, {random_id}, kind, entry_keys, create_time_us
         FROM {}, (SELECT * FROM requests LIMIT 1) r",
        database.numbers(ENTRIES)
    );
    database.execute(&requests).await;
    database.execute("ANALYZE").await;
    let account_key = database.text("SELECT CAST(min(account_key) AS text) FROM accounts").await;
    let time = database.text("SELECT CAST(min(create_time_us) AS text) FROM entries").await;
    let (first, last) = (i64::MIN + 1, i64::MAX.to_string());
    let first = format!("({first})");
    let range = [&account_key, "20000", "21001", &first, "0", &last, "0", "21001", "101"];
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
    let balance = [&account_key, &time, "20000", "21001", "250001"].map(|it| it as &str);
    let found = plan(&database, "effective_times::BALANCE", &balance).await;
    // What takes effect behind the time is found by either index, as PostgreSQL estimates.
    assert_found(&found, &["entries_with_effective_time"]);

    // The first 15,000 entries take effect behind all others, in the reverse order: a page that examines
    // only these is short.
    database.execute(&fill(&database, "b", "n <= 15000", "+ 1000000 -")).await;
    database.execute(&format!("UPDATE accounts SET sequence = {}", ENTRIES + 1)).await;
    for account_id in ["a", "b"] {
        let order = "COALESCE(effective_time_us, create_time_us), sequence";
        let account = of_account(account_id);
        let in_order =
            format!("SELECT CAST(sequence AS text) FROM entries WHERE {account} ORDER BY {order}");
        let mut expected = database.texts(&in_order).await;
        let mut all_short = 0;
        for order in [EntryOrder::Ascending, EntryOrder::Descending] {
            let (listed, short) = all_pages(&client, account_id, order).await;
            assert!(listed == expected, "{account_id} {order:?}: {} entries", listed.len());
            all_short += short;
            expected.reverse();
        }
        assert_eq!(all_short > 0, account_id == "b", "{account_id}: {all_short} short pages");
    }
}

/// Copies the only entry of an account so often. Those that match get an effective time.
fn fill(database: &TestDatabase, account_id: &str, matches: &str, offset: &str) -> String {
    format!(
        "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after,
             create_time_us, hash, effective_time_us)
         SELECT e.account_key, n + 1, e.transaction_id, e.amount, e.balance_after,
             e.create_time_us + n, e.hash, CASE WHEN {matches} THEN e.create_time_us {offset} n END
         FROM {} CROSS JOIN entries e WHERE e.sequence = 1 AND e.{}",
        database.numbers(ENTRIES),
        of_account(account_id)
    )
}

/// The sequences of all entries by effective time, and the number of short pages before the last.
async fn all_pages(client: &Client, account_id: &str, order: EntryOrder) -> (Vec<String>, usize) {
    let mut request = ListEntriesRequest {
        order: order.into(),
        page_size: 1000,
        time_basis: TimeBasis::EffectiveTime.into(),
        ..entries_of(account_id)
    };
    let (mut sequences, mut short) = (Vec::new(), 0);
    loop {
        let page = client.list_entries(request.clone()).await.expect("a page");
        sequences.extend(page.entries.iter().map(|entry| entry.sequence.to_string()));
        if page.next_page_token.is_empty() {
            return (sequences, short);
        }
        short += usize::from(page.entries.len() < 1000);
        request.page_token = page.next_page_token;
    }
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
