//! `passbook verify` compares holds with the requests that placed, changed or ended them, and finds times,
//! closed accounts and currencies that no server has made.

use super::verify::assert_found;
use crate::harness::*;

on_both_databases! {
    holds_and_their_requests_without_each_other_are_found,
    terms_of_holds_that_no_request_left_are_found,
    holds_that_were_not_asked_for_so_are_found,
    updates_that_do_not_say_how_they_left_their_hold_are_found,
    times_that_do_not_fit_are_found,
    closed_accounts_with_money_are_found,
    currencies_that_no_server_reads_are_found,
}

/// One hold for each way to end or change it. Bob's balance is 81.00, of which 29.00 are held.
async fn ledger(kind: Kind) -> (TestDatabase, Server, Client) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "bob", "100").await;
    place_all(&client, "bob", "10", &["open", "released", "captured", "changed", "parts"]).await;
    place_all(&client, "bob", "5", &["more"]).await;
    released(&client, release("released")).await;
    captured(&client, capture("captured")).await;
    updated(&client, hold_update("changed", "12")).await;
    captured(&client, capture_and_keep("parts", "3")).await;
    let more = CaptureHoldRequest { allow_excess: true, ..capture_part("more", "6") };
    captured(&client, more).await;
    (database, server, client)
}

fn of_hold(change: &str, hold_id: &str) -> String {
    format!("UPDATE holds SET {change} WHERE hold_id = '{hold_id}'")
}

/// Changes a hold, and what its account holds, so that the account is right.
fn with_held(change: &str, hold_id: &str, held: &str) -> String {
    let hold = of_hold(change, hold_id);
    format!("{hold}; UPDATE accounts SET held = '{held}' WHERE account_id = 'bob'")
}

async fn holds_and_their_requests_without_each_other_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let of_place = "kind = 'place_hold' AND hold_id = 'open'";
    let cases = [
        (
            format!("DELETE FROM requests WHERE {of_place}"),
            "hold open: no request placed it: its row names request ",
        ),
        (
            of_hold("request_id = 'other'", "open"),
            "hold open: no request placed it: its row names request other, but",
        ),
        (of_hold("caller = 'other'", "open"), "hold open: no request placed it: "),
        (
            "UPDATE requests SET kind = 'place_hold', hold_id = 'open', details = NULL \
             WHERE kind = 'update_hold'"
                .to_owned(),
            " placed it, but its row names another one",
        ),
        (
            with_held("state = 'released'", "open", "19.00"),
            "hold open: it is released, but no request released it",
        ),
        (
            of_hold("state = 'expired'", "released"),
            "hold released: it was released more often than its state says",
        ),
        (
            "UPDATE requests SET kind = 'release_hold', details = NULL WHERE kind = 'update_hold'"
                .to_owned(),
            "hold changed: it was released more often than its state says",
        ),
        (
            with_held("state = 'captured'", "parts", "22.00"),
            "hold parts: it is captured, but no capture ended it",
        ),
        (
            of_hold("state = 'expired'", "captured"),
            "hold captured: a capture ended it more often than its state says",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

async fn terms_of_holds_that_no_request_left_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let words = |hold_id: &str| {
        format!("hold {hold_id}: its amount or expire time is said to have changed since it was")
    };
    let cases = [
        (with_held("amount = '13.00'", "changed", "30.00"), words("changed")),
        (of_hold("expire_time_us = 4000000000000000", "changed"), words("changed")),
        (of_hold("placed = '{\"amount\":\"9.00\"}'", "open"), words("open")),
        (of_hold("placed = '{\"amount\":\"9.00\"}'", "released"), words("released")),
        (of_hold("amount = '7.00'", "more"), words("more")),
    ];
    let cases: Vec<_> =
        cases.iter().map(|(change, words)| (change.as_str(), words.as_str())).collect();
    assert_found(&database, &cases).await;
}

/// The fingerprint of a request covers what the caller sent.
async fn holds_that_were_not_asked_for_so_are_found(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    let expires = UpdateHoldRequest {
        expire_time: Some(timestamp(4_000_000_000_000_000)),
        ..hold_update("changed", "14")
    };
    updated(&client, expires).await;
    open(&client, "carol").await;
    let words =
        |hold_id: &str| format!("hold {hold_id}: a request with the fingerprint of another");
    let of_request = |change: &str, which: &str| {
        format!("UPDATE requests SET {change} WHERE kind = '{which}' AND hold_id = 'changed'")
    };
    let carol = "(SELECT account_key FROM accounts WHERE account_id = 'carol')";
    let cases = [
        (of_hold("description = 'x'", "open"), words("open")),
        (of_hold("labels = '{\"a\":\"b\"}'", "released"), words("released")),
        (of_hold("expire_time_us = 4000000000000000", "open"), words("open")),
        (of_hold("amount = '11.00'", "released"), words("released")),
        (of_hold(&format!("account_key = {carol}"), "released"), words("released")),
        (of_hold("placed = '{\"amount\":\"9.00\"}'", "changed"), words("changed")),
        (of_request("description = 'x'", "place_hold"), words("changed")),
        // That of an update which is not the latest, and so of no hold as it is now.
        (
            of_request(
                "details = (SELECT details FROM requests o WHERE o.kind = 'update_hold' \
                 ORDER BY o.create_time_us DESC LIMIT 1)",
                "update_hold",
            ),
            words("changed"),
        ),
    ];
    let cases: Vec<_> =
        cases.iter().map(|(change, words)| (change.as_str(), words.as_str())).collect();
    assert_found(&database, &cases).await;
}

/// A repeat would get the hold as the next update left it.
async fn updates_that_do_not_say_how_they_left_their_hold_are_found(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    let request_id = "not the last".to_owned();
    updated(&client, UpdateHoldRequest { request_id, ..hold_update("changed", "13") }).await;
    updated(&client, hold_update("changed", "14")).await;
    let cases = [
        (
            "UPDATE requests SET details = NULL WHERE request_id = 'not the last'",
            ": column details",
        ),
        ("UPDATE requests SET hold_id = NULL WHERE kind = 'capture'", ": column hold_id"),
    ];
    assert_found(&database, &cases).await;
}

/// PostgreSQL refuses such rows.
#[tokio::test(flavor = "multi_thread")]
async fn amounts_that_no_hold_has_are_found() {
    let (database, server, client) = ledger(Kind::Sqlite).await;
    // A server does not go by them.
    let tampering = Tampering::begin(&database).await;
    database.execute(&with_held("amount = '2.00'", "parts", "21.00")).await;
    must_fail(client.capture_hold(capture("parts")).await, Reason::Internal);
    assert!(server.log().contains("unreadable row: see `passbook verify`"), "{}", server.log());
    tampering.undo().await;
    tampering.end().await;

    let unreadable = |hold_id: &str, column: &str| {
        format!("hold {hold_id}: unreadable row: hold {hold_id}: column {column}")
    };
    let cases = [
        (with_held("amount = '-10.00'", "open", "9.00"), unreadable("open", "amount")),
        (with_held("amount = '0.00'", "open", "19.00"), unreadable("open", "amount")),
        (of_hold("amount = '-10.00'", "released"), unreadable("released", "amount")),
        (with_held("amount = '3.00'", "parts", "22.00"), unreadable("parts", "captured_amount")),
        (with_held("amount = '2.00'", "parts", "21.00"), unreadable("parts", "captured_amount")),
        (
            of_hold("captured_amount = '-1.00'", "captured"),
            unreadable("captured", "captured_amount"),
        ),
        (of_hold("amount = '5.99'", "more"), unreadable("more", "captured_amount")),
        (
            "UPDATE accounts SET overdraft_limit = '-1.00'".to_owned(),
            "account bob: unreadable row: account bob: column overdraft_limit".to_owned(),
        ),
    ];
    let cases: Vec<_> =
        cases.iter().map(|(change, words)| (change.as_str(), words.as_str())).collect();
    assert_found(&database, &cases).await;
}

async fn times_that_do_not_fit_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    assert_found(
        &database,
        &[
            (
                "UPDATE requests SET create_time_us = create_time_us - 1 WHERE kind = 'deposit'",
                "account bob, entry 1: its create_time is ",
            ),
            (
                "UPDATE accounts SET update_time_us = 1 WHERE account_id = 'bob'",
                "account bob: its update_time is 1 microseconds since 1970, before the ",
            ),
        ],
    )
    .await;
}

async fn closed_accounts_with_money_are_found(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    open_with_overdraft(&client, "carol", "10").await;
    place_all(&client, "carol", "4", &["of-carol"]).await;
    open(&client, "dave").await;
    close(&client, "dave").await.expect("it is empty");
    assert_found(
        &database,
        &[
            (
                "UPDATE accounts SET state = 'closed' WHERE account_id = 'bob'",
                "account bob: it is closed, but its balance is 81.00",
            ),
            (
                "UPDATE accounts SET state = 'closed' WHERE account_id = 'carol'",
                "account carol: it is closed, but its held is 4.00",
            ),
        ],
    )
    .await;
}

async fn currencies_that_no_server_reads_are_found(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    open(&client, "dave").await;
    for (code, scale) in [("PTS", "-5"), ("PTS", "30"), ("pts", "2")] {
        database.execute(&format!("INSERT INTO currencies VALUES ('{code}', {scale})")).await;

        let outcome = database.passbook(&["verify"]).await;

        assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
        let words = format!(
            "fault: currency {code}: unreadable row: currency {code} with a scale of {scale}"
        );
        assert!(outcome.stdout.contains(&words), "{}\n{words}", outcome.stdout);
        database.execute(&format!("DELETE FROM currencies WHERE currency_code = '{code}'")).await;
    }
    let of_dave = |change: &str| format!("UPDATE accounts SET {change} WHERE account_id = 'dave'");
    let cases = [
        (of_dave("currency_scale = -5"), "dave: unreadable row: currency USD with a scale of -5"),
        (of_dave("currency_scale = 30"), "dave: unreadable row: currency USD with a scale of 30"),
        (of_dave("currency_code = 'usd'"), "dave: unreadable row: currency usd with a"),
    ];
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}
