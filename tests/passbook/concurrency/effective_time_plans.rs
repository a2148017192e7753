//! What goes by effective time, on accounts with many entries: it finds its rows by indexes, and a page
//! ends after so many examined entries.

use crate::harness::*;

on_both_databases! {
    statements_by_effective_time_are_searched_by_indexes_and_complete,
    a_balance_by_effective_time_examines_so_many_entries_and_no_more,
}

/// The statements as the server sends them.
const STATEMENTS: &str = include_str!("../../../src/storage/statement_texts.sql");
/// Entries of each account: more than twice what a page examines.
const ENTRIES: usize = 21_000;
/// The most entries that a balance examines.
const EXAMINED_MAX: usize = 250_000;

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
    database.execute(&fill(&database, "a", ENTRIES, "n % 10 = 0", "-")).await;
    database.execute(&fill(&database, "other", ENTRIES, "n % 10 = 0", "-")).await;
    database.copy_request("'other'", "'r-' || n", ENTRIES).await;
    database.execute("ANALYZE").await;
    let account_key = database.text("SELECT CAST(min(account_key) AS text) FROM accounts").await;
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
    // Of a time at the end; of the first time, where more entries have to be examined than it may; and
    // where it may examine all.
    for (of_time, sequence, limit) in
        [("max", "20990", "250001"), ("min", "0", "101"), ("min", "0", "250001")]
    {
        let time = format!("SELECT CAST({of_time}(create_time_us) AS text) FROM entries");
        let time = database.text(&time).await;
        let balance = [&account_key, &time, sequence, "21001", limit].map(|it| it as &str);
        let found = plan(&database, "effective_times::BALANCE", &balance).await;
        // PostgreSQL may read all dated entries of the account by one index if it expects to need about
        // half of them, and no more than the limit.
        let has_choice = kind == Kind::Postgres && (of_time, limit) == ("min", "250001");
        let both = ["entries_with_effective_time", "entries_by_effective_time"];
        assert_found(&found, if has_choice { &both[..1] } else { &both });
        assert!(!found.contains("entries_pkey") && !found.contains("PRIMARY KEY"), "{found}");
    }

    // The first 15,000 entries take effect behind all others, in the reverse order: a page that examines
    // only these is short.
    database.execute(&fill(&database, "b", ENTRIES, "n <= 15000", "+ 1000000 -")).await;
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

async fn a_balance_by_effective_time_examines_so_many_entries_and_no_more(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;
    // All take effect a second after the first was written, a microsecond apart.
    let entries = fill(&database, "a", EXAMINED_MAX + 1, "n > 0", "+ 1000000 +");
    database.execute(&entries).await;
    database.execute(&format!("UPDATE accounts SET sequence = {}", EXAMINED_MAX + 2)).await;
    let first = database.text("SELECT CAST(min(create_time_us) AS text) FROM entries").await;
    let first_effective_us = first.parse::<i64>().expect("a number") + 1_000_001;
    let at = |time_us| GetBalanceRequest {
        account_id: "a".to_owned(),
        at_time: Some(timestamp(time_us)),
        time_basis: TimeBasis::EffectiveTime.into(),
    };
    let status =
        must_fail(client.get_balance(at(first_effective_us - 1)).await, Reason::TooManyEntries);
    assert_eq!(metadata(&status, "max"), EXAMINED_MAX.to_string());

    let answer = client.get_balance(at(first_effective_us)).await.expect("a balance");

    // Every entry has a copy of the first balance.
    let examined = i64::try_from(EXAMINED_MAX).expect("a number");
    assert_eq!(value(&answer.balance), format!("{}.00", 1 - examined));
    assert_eq!(answer.sequence, examined + 2);
}

/// Copies the only entry of an account so often. Those that match get an effective time.
fn fill(
    database: &TestDatabase,
    account_id: &str,
    count: usize,
    matches: &str,
    offset: &str,
) -> String {
    format!(
        "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after,
             create_time_us, hash, effective_time_us)
         SELECT e.account_key, n + 1, e.transaction_id, e.amount, e.balance_after,
             e.create_time_us + n, e.hash, CASE WHEN {matches} THEN e.create_time_us {offset} n END
         FROM {} CROSS JOIN entries e WHERE e.sequence = 1 AND e.{}",
        database.numbers(count),
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
