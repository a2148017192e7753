//! `passbook verify` adds up what was captured of holds, compares reversals with what they reverse, and reads
//! each row a few times, however many there are.

use super::verify::assert_found;
use crate::harness::*;

on_both_databases! {
    captures_that_do_not_add_up_are_found,
    decimals_of_what_is_reversed_do_not_count,
    reversals_that_undo_something_else_are_found,
}

async fn captures_that_do_not_add_up_are_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "bob", "50").await;
    place_all(&client, "bob", "10", &["h", "other", "own"]).await;
    // Two entries on one account, which sum to zero.
    captured(&client, capture_to("bob", "own", "1")).await;
    updated(&client, hold_update("h", "12")).await;
    for (request_id, amount, keep_open) in [("first", "3", true), ("last", "2", false)] {
        let request_id = request_id.to_owned();
        captured(
            &client,
            CaptureHoldRequest { request_id, keep_open, ..capture_part("h", amount) },
        )
        .await;
    }
    let of_request = |change: &str, request_id: &str| {
        format!("UPDATE requests SET {change} WHERE request_id = '{request_id}'")
    };
    let replaced = |from: &str, to: &str| match kind {
        Kind::Sqlite => format!("details = replace(details, '{from}', '{to}')"),
        Kind::Postgres => format!("details = replace(details::text, '{from}', '{to}')::jsonb"),
    };
    let of_update = |terms: &str| {
        format!(
            "UPDATE requests SET details = '{{\"hold\":{{\"terms\":{terms},\"update_time_us\":1}}}}' \
             WHERE kind = 'update_hold'"
        )
    };
    let words =
        "hold h: what was captured of it is not the sum of its captures: no capture leads to";
    let cases = [
        ("UPDATE holds SET captured_amount = '4.00' WHERE hold_id = 'h'".to_owned(), words),
        (
            "UPDATE holds SET captured_amount = NULL, transaction_id = NULL, state = 'released' \
             WHERE hold_id = 'h'"
                .to_owned(),
            words,
        ),
        (of_request(&replaced("3.00", "2.00"), "first"), words),
        (of_request("hold_id = NULL", "first"), ": column hold_id"),
        (of_request("hold_id = 'other'", "first"), "is not the sum of its captures"),
        (of_request(&replaced("12.00", "12.001"), "first"), ": column details cannot be read"),
        (of_update(r#"{"amount":"12.001"}"#), ": column details cannot be read"),
    ];
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

/// An archive of another program can have them. Each decimal too many must not be a factor of ten.
async fn decimals_of_what_is_reversed_do_not_count(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "20").await;
    open_funded(&client, "bob", "1000").await;
    let transferred = client.transfer(transfer("bob", "alice", "7")).await.expect("applied");
    let id = transferred.transaction.expect("a transaction").transaction_id;
    let request_id = "part".to_owned();
    let part = ReverseTransactionRequest { request_id, amount: money("2"), ..reversal(&id) };
    reversed(&client, part).await;
    let with_amount = |amount: &str| {
        format!(
            "UPDATE requests SET details = '{{\"reversed\":{{\"count\":1,\"amount\":\"{amount}\"}}}}' \
             WHERE request_id = 'part'"
        )
    };
    let tampering = Tampering::begin(&database).await;
    database.execute(&with_amount("2.000")).await;
    tampering.end().await;
    database.passbook(&["verify"]).await.must_succeed();

    let rest = reversed(&client, reversal(&id)).await;
    let amounts: Vec<_> = rest.entries.iter().map(|it| value(&it.amount)).collect();
    assert_eq!(amounts, ["5.00", "-5.00"]);
    assert_eq!(balance(&client, "alice").await, "20.00");
    let unreadable = ": column details cannot be read";
    let cases = ["2.001", "-2.00", "0.00"].map(with_amount);
    let cases = cases.each_ref().map(|change| (change.as_str(), unreadable));
    assert_found(&database, &cases).await;
}

async fn reversals_that_undo_something_else_are_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    for account_id in ["alice", "bob", "carol"] {
        open_funded(&client, account_id, "20").await;
    }
    let placed = hold("bob", "1");
    place(&client, placed.clone()).await;
    let mut transfers = Vec::new();
    for (source, destination) in [("alice", "bob"), ("alice", "carol"), ("bob", "carol")] {
        let answer = client.transfer(transfer(source, destination, "7")).await.expect("applied");
        transfers.push(answer.transaction.expect("a transaction").transaction_id);
    }
    client.withdraw(withdrawal("bob", "100")).await.expect_err("he has less");
    for (request_id, transaction_id, amount) in
        [("whole", &transfers[0], None), ("part", &transfers[1], money("2"))]
    {
        let request_id = request_id.to_owned();
        let request = ReverseTransactionRequest { request_id, amount, ..reversal(transaction_id) };
        reversed(&client, request).await;
    }
    let of_request = |change: &str, request_id: &str| {
        format!("UPDATE requests SET {change} WHERE request_id = '{request_id}'")
    };
    let reverses = |transaction_id: &str| {
        let digits = transaction_id.replace('-', "");
        match kind {
            Kind::Sqlite => format!("reverses_transaction_id = unhex('{digits}')"),
            Kind::Postgres => format!("reverses_transaction_id = '{digits}'"),
        }
    };
    let missing = "01990000-0000-7000-8000-000000000000";
    let cases = [
        (
            of_request("details = NULL", "part"),
            ": with it, 2.00 of its transaction are reversed, but",
        ),
        (of_request(&reverses(&transfers[2]), "whole"), ": it has no entry of 7.00 on account bob"),
        (of_request(&reverses(missing), "whole"), ": it reverses 01990000-"),
        (
            of_request("reverses_transaction_id = NULL", "whole"),
            ": it is a reversal, but reverses no transaction",
        ),
        (
            of_request("kind = 'posting'", "whole"),
            ": it reverses a transaction, but is no reversal",
        ),
        (
            format!(
                "UPDATE requests SET {} WHERE request_id = '{}'",
                reverses(&transfers[2]),
                placed.request_id
            ),
            ": it reverses a transaction, but is no reversal",
        ),
        (
            format!("UPDATE requests SET {} WHERE rejection IS NOT NULL", reverses(&transfers[2])),
            ": it is rejected, but reverses a transaction",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

/// Verification reads in parts of some thousand rows. Each of them began at its place, but was read to the
/// end of the account or of the caller, so all of them together took the square of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_ledger_is_read_a_few_times() {
    const PARTS: usize = 12;
    const READS_MAX: i64 = 5;
    let (database, mut server, client) = start_server(Kind::Postgres).await;
    open(&client, "a").await;
    post_many(&client, "a", PARTS * 2500).await;
    server.terminate();
    server.wait(seconds(30)).await;
    database.execute("ANALYZE").await;
    // A session has reported what it read when it is gone.
    let sessions =
        "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let all_are_gone = || eventually("no session", async || database.count(sessions).await == 0);
    all_are_gone().await;
    database.execute("SELECT pg_stat_reset()").await;

    database.passbook(&["verify"]).await.must_succeed();

    all_are_gone().await;
    for index in ["entries_pkey", "requests_pkey"] {
        let number = async |sql: String| -> i64 { database.text(&sql).await.parse().expect(index) };
        let read = number(format!(
            "SELECT (idx_blks_hit + idx_blks_read)::text FROM pg_statio_user_indexes
             WHERE indexrelname = '{index}'"
        ));
        let pages = format!("SELECT relpages::text FROM pg_class WHERE relname = '{index}'");
        let (read, pages) = (read.await, number(pages).await);
        println!("{index}: {read} pages read, of {pages}");
        assert!(read > 0 && read <= pages * READS_MAX, "{index}: {read} of {pages}");
    }
}
