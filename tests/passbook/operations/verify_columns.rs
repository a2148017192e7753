//! What `passbook verify` calls right, a server can read: every column is decoded, and attributes
//! follow from their history.

use super::{heads::rehash, verify::assert_found};
use crate::harness::*;

on_both_databases! {
    attributes_that_no_change_made_are_found,
    accounts_with_unknown_openings_are_counted,
    columns_of_accounts_that_no_server_reads_are_found,
    columns_of_requests_and_holds_that_no_server_reads_are_found,
    texts_that_no_server_writes_are_found,
    invisible_characters_of_earlier_versions_are_right,
    effective_times_that_no_server_writes_are_found,
    an_account_without_room_for_changes_is_an_error_and_no_panic,
    values_that_no_server_reads_are_not_imported,
}

/// Alice is frozen and then gets an overdraft limit, Bob never changes. Alice has a released hold.
async fn ledger(kind: Kind) -> (TestDatabase, Server, Client) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    open_funded(&client, "bob", "50").await;
    place_all(&client, "alice", "1", &["h"]).await;
    released(&client, release("h")).await;
    client.withdraw(withdrawal("bob", "51")).await.expect_err("he has 50");
    freeze(&client, "alice").await;
    client.update_account(limit_of("alice", "7")).await.expect("applied");
    (database, server, client)
}

async fn attributes_that_no_change_made_are_found(kind: Kind) {
    let (database, _server, client) = ledger(kind).await;
    let version = get(&client, "alice").await.version;
    let (first, last) = (version - 1, version);
    let change = |version: i64, update: &str| {
        format!("UPDATE account_changes SET {update} WHERE version = {version}")
    };
    let other_limit = |column: &str, version: i64| {
        change(
            version,
            &format!(
                "{column} = '{{\"state\":\"frozen\",\"overdraft_limit\":\"8.00\",\
                 \"unlimited_overdraft\":false,\"labels\":{{}}}}'"
            ),
        )
    };
    let account = |update: &str| format!("UPDATE accounts SET {update}");
    let last_left = |name: &str| {
        format!("account alice: its {name} is not what its last change left, change {last}")
    };
    let of_change = |version: i64, what: &str| format!("account alice, change {version}: {what}");
    let not_opened = |name: &str| {
        format!("account bob: its {name} is not that of its opening, but no change made it so")
    };
    let cases = [
        (account("state = 'open' WHERE account_id = 'alice'"), last_left("state")),
        (account("overdraft_limit = '9' WHERE account_id = 'alice'"), last_left("overdraft_limit")),
        (account("labels = '{\"a\":\"b\"}' WHERE account_id = 'alice'"), last_left("labels")),
        (
            account("unlimited_overdraft = true WHERE account_id = 'alice'"),
            last_left("unlimited_overdraft"),
        ),
        (
            account("state = 'frozen' WHERE account_id = 'bob'"),
            "account bob: its state is frozen, but no change made it so".to_owned(),
        ),
        (account("overdraft_limit = '9' WHERE account_id = 'bob'"), not_opened("overdraft_limit")),
        (account("labels = '{\"a\":\"b\"}' WHERE account_id = 'bob'"), not_opened("labels")),
        (
            account("unlimited_overdraft = true WHERE account_id = 'bob'"),
            not_opened("unlimited_overdraft"),
        ),
        (
            account(
                "opening_attributes = '{\"overdraft_limit\":\"9.00\"}' WHERE account_id = 'bob'",
            ),
            not_opened("overdraft_limit"),
        ),
        (
            account("opening_attributes = '{\"labels\":{\"a\":\"b\"}}' WHERE account_id = 'alice'"),
            of_change(first, "it begins with another labels than the account was opened with"),
        ),
        (
            format!("DELETE FROM account_changes WHERE version = {last}"),
            format!(
                "account alice: its overdraft_limit is not what its last change left, change {first}"
            ),
        ),
        (
            format!("DELETE FROM account_changes WHERE version = {first}"),
            of_change(last, "it is the first change, and begins in state frozen"),
        ),
        (
            other_limit("attributes_before", last),
            of_change(last, &format!("it begins with another overdraft_limit than change {first}")),
        ),
        (other_limit("attributes_after", last), last_left("overdraft_limit")),
        (
            change(last, "version = 1000"),
            of_change(1000, &format!("its version is not one from 2 to {last}, the account's")),
        ),
        (
            change(last, "account_id = 'nobody'"),
            format!("account nobody, change {last}: its account does not exist"),
        ),
        (
            change(last, "attributes_after = '[]'"),
            of_change(
                last,
                &format!("unreadable row: change {last} of account alice: column attributes_after"),
            ),
        ),
        (
            change(first, "kind = 'closed'"),
            of_change(first, "its kind is closed, but it goes from state open to frozen"),
        ),
        (
            change(last, "kind = 'unfrozen'"),
            of_change(last, "its kind is unfrozen, but it goes from state frozen to frozen"),
        ),
        (
            other_limit("attributes_after", first),
            of_change(first, "its kind is frozen, but it goes from state open to frozen, or"),
        ),
        (
            change(last, "create_time_us = 1"),
            of_change(last, "its create_time is 1 microseconds since 1970, and not within the"),
        ),
        (
            change(first, "create_time_us = create_time_us + 3600000000"),
            of_change(first, "its create_time is "),
        ),
        (
            account("create_time_us = create_time_us + 3600000000 WHERE account_id = 'bob'"),
            "account bob, entry 1: its create_time is ".to_owned(),
        ),
        (
            change(first, "kind = 'gift'"),
            of_change(
                first,
                &format!("unreadable row: change {first} of account alice: column kind"),
            ),
        ),
    ];
    let cases: Vec<_> =
        cases.iter().map(|(change, words)| (change.as_str(), words.as_str())).collect();
    assert_found(&database, &cases).await;
}

async fn accounts_with_unknown_openings_are_counted(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let verify = async || database.passbook(&["verify"]).await.must_succeed().stdout;
    assert!(!verify().await.contains("not verified"));
    let forget = "UPDATE accounts SET opening_attributes = NULL WHERE account_id = 'bob'";
    let tampering = Tampering::begin(&database).await;
    database.execute(forget).await;
    let expected = "not verified: the attributes at the opening of 1 accounts";
    assert!(verify().await.contains(expected));
    tampering.undo().await;
}

async fn columns_of_accounts_that_no_server_reads_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    assert_found(
        &database,
        &[
            (
                "UPDATE accounts SET version = 9223372036854775807 WHERE account_id = 'bob'",
                "account bob: unreadable row: account bob: column version",
            ),
            (
                "UPDATE accounts SET sequence = 9223372036854775807 WHERE account_id = 'bob'",
                "account bob: unreadable row: account bob: column sequence",
            ),
            (
                "UPDATE accounts SET update_time_us = 9223372036854775807 WHERE account_id = 'bob'",
                "account bob: unreadable row: account bob: column update_time_us",
            ),
            (
                "UPDATE account_changes SET create_time_us = 9223372036854775807",
                "of account alice: column create_time_us",
            ),
            (
                "UPDATE accounts SET opening_attributes = '{\"overdraft_limit\":\"-1\"}' \
                 WHERE account_id = 'bob'",
                "account bob: unreadable row: account bob: column opening_attributes",
            ),
            (
                "UPDATE accounts SET account_id = 'a\n\u{1b}[31m' WHERE account_id = 'bob'",
                "account a\\n\\u{1b}[31m: unreadable row: account a\\n\\u{1b}[31m: column account_id",
            ),
        ],
    )
    .await;
}

async fn columns_of_requests_and_holds_that_no_server_reads_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let no_bytes = match kind {
        Kind::Sqlite => "x''",
        Kind::Postgres => "''::bytea",
    };
    let fingerprint =
        format!("UPDATE requests SET fingerprint = {no_bytes} WHERE kind = 'deposit'");
    let on = |kind: &str, update: &str| {
        format!("UPDATE requests SET {update} WHERE kind = '{kind}' AND rejection IS NULL")
    };
    let cases = [
        (fingerprint, ": column fingerprint"),
        (on("deposit", "labels = '[]'"), ": column labels"),
        (on("release_hold", "request_id = 'ä'"), ": column request_id"),
        (on("place_hold", "hold_id = 'gone'"), ": column hold_id"),
        (on("place_hold", "hold_id = NULL"), ": column kind"),
        (
            "UPDATE requests SET rejection = 'no JSON' WHERE rejection IS NOT NULL".to_owned(),
            ": column rejection",
        ),
        (
            "UPDATE holds SET labels = '[]'".to_owned(),
            "hold h: unreadable row: hold h: column labels",
        ),
        (
            "UPDATE holds SET amount = '1.001'".to_owned(),
            "hold h: unreadable row: hold h: column amount",
        ),
        ("UPDATE holds SET request_id = ''".to_owned(), "hold h: column request_id"),
        (
            "UPDATE holds SET expire_time_us = 9223372036854775807".to_owned(),
            "hold h: column expire_time_us",
        ),
        ("UPDATE holds SET placed = '{\"amount\":\"-3.00\"}'".to_owned(), "hold h: column placed"),
        (on("deposit", "hold_id = 'h'"), ": column hold_id"),
        (
            "UPDATE requests SET create_time_us = 9223372036854775807 WHERE rejection IS NOT NULL"
                .to_owned(),
            ": column create_time_us",
        ),
        (
            "UPDATE commits SET create_time_us = 9223372036854775807".to_owned(),
            "commit 1: column create_time_us",
        ),
        (on("deposit", "details = '{\"forced\":true}'"), ": column details"),
        (on("deposit", "details = '{\"reversed\":{\"count\":7}}'"), ": column details"),
        (
            on(
                "release_hold",
                "details = '{\"hold\":{\"terms\":{\"amount\":\"1.00\"},\"update_time_us\":1}}'",
            ),
            ": column details",
        ),
        (on("deposit", "description = ''"), ": column description"),
        (
            "UPDATE holds SET hold_id = 'h\n'; UPDATE requests SET hold_id = 'h\n' \
             WHERE hold_id = 'h'"
                .to_owned(),
            "hold h\\n: column hold_id",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

async fn texts_that_no_server_writes_are_found(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let (long, limit) = ("a".repeat(300), "unlimited_overdraft");
    let attributes = |label: &str| {
        format!(
            "'{{\"state\":\"open\",\"overdraft_limit\":\"0\",\"{limit}\":false,\"labels\":{{{label}}}}}'"
        )
    };
    let labels = |label: &str| format!("labels = '{{{label}}}'");
    let (on_account, on_deposit) =
        ("WHERE account_id = 'bob'", "WHERE kind = 'deposit' AND rejection IS NULL");
    let cases = [
        (format!("accounts SET {} {on_account}", labels(r#""":"x""#)), "bob: column labels"),
        (format!("accounts SET {} {on_account}", labels(r#""a":"\u001b""#)), "bob: column labels"),
        (format!("accounts SET caller = ' ' {on_account}"), "bob: column caller"),
        (
            format!(
                r#"accounts SET opening_attributes = '{{"labels":{{"a b":""}}}}' {on_account}"#
            ),
            "bob: column opening_attributes",
        ),
        (format!("requests SET {} {on_deposit}", labels(r#""a b":"""#)), ": column labels"),
        (
            format!("requests SET {} {on_deposit}", labels(&format!("\"a\":\"{long}\""))),
            ": column labels",
        ),
        (format!("requests SET description = 'a\u{1b}' {on_deposit}"), ": column description"),
        (format!("requests SET description = 'a\u{1f}b' {on_deposit}"), ": column description"),
        (format!("requests SET caller = 'a\u{1b}' {on_deposit}"), ": column caller"),
        ("holds SET description = 'a\nb'".to_owned(), "hold h: column description"),
        (format!("holds SET {}", labels(r#""ä":"""#)), "hold h: column labels"),
        ("holds SET caller = ' '".to_owned(), "hold h: column caller"),
        ("holds SET end_caller = 'a\n'".to_owned(), "hold h: column end_caller"),
        ("account_changes SET reason = 'a\n'".to_owned(), "of account alice: column reason"),
        ("account_changes SET caller = 'ä'".to_owned(), "of account alice: column caller"),
        (
            format!("account_changes SET attributes_before = {}", attributes(r#"" ":"""#)),
            "of account alice: column attributes_before",
        ),
    ];
    let cases = cases.map(|(change, words)| (format!("UPDATE {change}"), words));
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

async fn invisible_characters_of_earlier_versions_are_right(kind: Kind) {
    let (database, _server, _client) = ledger(kind).await;
    let tampering = Tampering::begin(&database).await;
    let text = "a\u{202e}b\u{2028}";
    let fingerprint = fingerprint_of_hold(kind, "h", "alice", "1", text);
    let change = format!(
        "UPDATE requests SET description = '{text}', labels = '{{\"a\":\"{text}\"}}' \
         WHERE kind = 'deposit'; UPDATE holds SET description = '{text}'; \
         UPDATE requests SET description = '{text}', fingerprint = {fingerprint} \
         WHERE kind = 'place_hold'"
    );
    database.execute(&change).await;
    database.passbook(&["verify"]).await.must_succeed();
    let export = database.passbook(&["export"]).await.must_succeed().stdout;
    tampering.undo().await;

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), export).expect("written");
    let target = database.create_beside(kind).await;
    target.passbook(&["import", "--input", &file.path().to_string_lossy()]).await.must_succeed();
}

/// SQLite stores any value in any column.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_text_in_place_of_null_is_found() {
    let (database, _server, _client) = ledger(Kind::Sqlite).await;
    let cases = [
        ("requests SET labels = '' WHERE kind = 'deposit'", ": its column labels cannot be read"),
        ("requests SET details = '' WHERE kind = 'deposit'", ": its column details cannot be read"),
        ("requests SET rejection = '' WHERE kind = 'deposit'", "but names 1 entries"),
        ("requests SET hold_id = '' WHERE kind = 'deposit'", ": column hold_id"),
        (
            "requests SET reverses_transaction_id = '' WHERE kind = 'release_hold'",
            ": its column reverses_transaction_id cannot be read",
        ),
        ("entries SET effective_time_us = ''", "column effective_time_us cannot be read"),
        ("holds SET labels = ''", "hold h: its column labels cannot be read"),
        ("holds SET placed = ''", "hold h: its column placed cannot be read"),
        ("holds SET captured_amount = '', transaction_id = ''", "hold h: it is captured, but"),
        ("holds SET expire_time_us = ''", "hold h: its column expire_time_us cannot be read"),
        ("commits SET other_events = ''", ": column other_events"),
    ];
    let cases = cases.map(|(change, words)| (format!("UPDATE {change}"), words));
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

/// Also if all hashes are right.
async fn effective_times_that_no_server_writes_are_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "bob", "50").await;
    open(&client, "alice").await;
    let effective_time = Some(from_now(seconds(3600)));
    let request = TransferRequest { effective_time, ..transfer("bob", "alice", "7") };
    client.transfer(request).await.expect("applied");
    let different = ": its entries have different effective times";
    let tampering = Tampering::begin(&database).await;
    for (time_us, words) in [
        ("effective_time_us + 1", different),
        ("NULL", different),
        ("9223372036854775807", "account alice, entry 1: its create_time is "),
        ("create_time_us", "account alice, entry 1: its create_time is "),
    ] {
        let of_alice =
            "account_key = (SELECT account_key FROM accounts WHERE account_id = 'alice')";
        let change = format!("UPDATE entries SET effective_time_us = {time_us} WHERE {of_alice}");
        database.execute(&change).await;
        rehash(&database, "alice").await;
        let outcome = database.passbook(&["verify"]).await;
        assert_eq!(outcome.code, Some(1), "{time_us}: {}", outcome.stdout);
        assert!(outcome.stdout.contains(words), "{time_us}: {}", outcome.stdout);
        tampering.undo().await;
    }
    database.passbook(&["verify"]).await.must_succeed();
}

async fn an_account_without_room_for_changes_is_an_error_and_no_panic(kind: Kind) {
    let (database, server, client) = ledger(kind).await;
    for (column, account_id) in [("version", "alice"), ("sequence", "bob")] {
        let update = format!("UPDATE accounts SET {column} = 9223372036854775807");
        database.execute(&format!("{update} WHERE account_id = '{account_id}'")).await;
        must_fail(client.deposit(deposit(account_id, "1")).await, Reason::Internal);
        must_fail(client.get_account(account_named(account_id)).await, Reason::Internal);
    }
    let log = server.log();
    assert!(log.contains("unreadable row: see `passbook verify`"), "{log}");
    assert!(!log.contains("panic"), "{log}");
    open_funded(&client, "carol", "5").await;
}

async fn values_that_no_server_reads_are_not_imported(kind: Kind) {
    let (source, _server, _client) = ledger(kind).await;
    let export = source.passbook(&["export"]).await.must_succeed().stdout;
    let target = source.create_beside(kind).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("export");
    let cases = [
        ("account", "account_id", "\"a\\n\\u001b[31m\"", "has a character outside [A-Za-z0-9._:-]"),
        ("account", "labels", "[]", "must be an object of strings"),
        ("account", "currency_scale", "30", "must be from 0 to 27"),
        ("account", "currency_code", "\"usd\"", "must match [A-Z][A-Z0-9]{2,11}, e.g. USD"),
        ("currency", "currency_scale", "-5", "must be from 0 to 27"),
        ("currency", "currency_code", "\"US\"", "must match [A-Z][A-Z0-9]{2,11}, e.g. USD"),
        ("account", "version", "9223372036854775807", "must be from 1 to 4611686018427387903"),
        ("entry", "sequence", "9223372036854775807", "must be from 0 to 4611686018427387903"),
        ("entry", "hash", "\"\"", "must be 64 hexadecimal digits"),
        ("request", "fingerprint", "\"\"", "must be 32 or 64 hexadecimal digits"),
        ("request", "rejection", "\"no JSON\"", "must be a rejection, as JSON in a string"),
        ("request", "request_id", "\"ä\"", "has a character outside printable ASCII"),
        ("request", "entry_names", "[1]", "must be a list of account ids and sequences"),
        ("hold", "hold_id", "\"\"", "is required"),
        ("account_change", "attributes_after", "[]", "must be the attributes of an account"),
        ("account", "opening_attributes", r#"{"a":1}"#, "must be the attributes of an account at"),
        ("account", "labels", r#"{"":"x"}"#, "must be at most 32, with keys of 1-63 characters"),
        ("request", "labels", r#"{"a":"\u001b"}"#, "must be at most 32, with keys of 1-63"),
        ("request", "description", "\"a\\nb\"", "must be a text of at most 1024 bytes"),
        ("request", "caller", "\" \"", "must be empty or an identity"),
        ("hold", "end_caller", "\"a\\u001b\"", "must be empty or an identity"),
        ("account_change", "reason", "\"a\\u007f\"", "must be a text of at most 1024 bytes"),
        (
            "account_change",
            "attributes_before",
            r#"{"state":"open","overdraft_limit":"0","unlimited_overdraft":false,"labels":{"ä":""}}"#,
            "its labels must be at most 32",
        ),
    ];
    for (row_name, field, value, words) in cases {
        let begin = format!("{{\"type\":\"{row_name}\",");
        let number = export.lines().position(|line| line.starts_with(&begin)).expect(row_name);
        let line = export.lines().nth(number).expect("a line");
        let mut object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        object[field] = serde_json::from_str(value).expect("JSON");
        std::fs::write(&file, export.replacen(line, &object.to_string(), 1)).expect("written");

        let path = file.to_string_lossy();
        let outcome = target.passbook(&["import", "--input", &path]).await;

        outcome.must_fail_with(1, &format!("line {}, field {field}: {words}", number + 1));
    }
    std::fs::write(&file, export).expect("written");
    target.passbook(&["import", "--input", &file.to_string_lossy()]).await.must_succeed();
}
