//! `passbook verify` finds and names every change to the tables.

use tokio::sync::watch;

use crate::harness::{
    ring::{RingLoad, Stop, open_ring},
    *,
};

on_both_databases! {
    a_correct_ledger_verifies_with_a_table_of_totals,
    a_tampered_account_is_found,
    entries_and_requests_without_each_other_are_found,
    transactions_that_contradict_their_kind_are_found,
    transfers_that_share_an_id_are_found,
    inconsistent_holds_are_found,
    events_that_are_not_in_one_commit_are_found,
    what_was_forced_or_reversed_in_parts_is_checked,
    verify_runs_beside_servers_under_load,
    a_schema_that_is_not_this_program_s_is_an_error,
}

async fn verify(database: &TestDatabase) -> Outcome {
    database.passbook(&["verify"]).await
}

/// Two accounts in dollars and one in yen, with deposits, a withdrawal, a transfer and a rejection.
async fn ledger(kind: Kind) -> TestDatabase {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    open_funded(&client, "bob", "50.05").await;
    open_with(&client, account_of("yen", "JPY")).await;
    let yen = DepositRequest { amount: money_of("JPY", "700"), ..deposit("yen", "1") };
    client.deposit(yen).await.expect("applied");
    client.withdraw(withdrawal("bob", "0.05")).await.expect("applied");
    client.transfer(transfer("alice", "bob", "30")).await.expect("applied");
    client.withdraw(withdrawal("alice", "71")).await.expect_err("she has 70");
    database
}

/// Applies each change, expects these words, and reverts it.
pub async fn assert_found(database: &TestDatabase, cases: &[(&str, &str)]) {
    let tampering = Tampering::begin(database).await;
    for (change, words) in cases {
        database.execute(change).await;

        let outcome = verify(database).await;

        assert_eq!(outcome.code, Some(1), "{change}: {}{}", outcome.stdout, outcome.stderr);
        let said = outcome.stdout.trim_end();
        assert!(said.starts_with("fault: ") && said.lines().count() == 1, "{change}: {said}");
        assert!(said.contains(words), "{change}:\n{said}\ndoes not contain\n{words}");
        tampering.undo().await;
    }
    verify(database).await.must_succeed();
}

async fn a_correct_ledger_verifies_with_a_table_of_totals(kind: Kind) {
    let database = ledger(kind).await;

    let outcome = verify(&database).await.must_succeed();

    let rows: Vec<Vec<&str>> =
        outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let head =
        "currency accounts entries deposit withdrawal transfer posting capture reversal balances";
    assert_eq!(rows[0].join(" "), head);
    assert_eq!(rows[1].join(" "), "JPY 1 1 700 0 0 0 0 0 700");
    assert_eq!(rows[2].join(" "), "USD 2 5 150.05 -0.05 0.00 0.00 0.00 0.00 150.00");
    assert!(
        outcome.stdout.contains("verified: 3 accounts, 6 entries, 6 requests, in "),
        "{}",
        outcome.stdout
    );
    assert_eq!(outcome.stderr, "", "a progress bar is for terminals");
}

async fn a_tampered_account_is_found(kind: Kind) {
    let database = ledger(kind).await;
    let (bobs, of_yen) = (of_account("bob"), of_account("yen"));
    let columns = "create_time_us, transaction_id, amount, balance_after, hash";
    let doubled = format!(
        "INSERT INTO entries (account_key, sequence, {columns}) \
         SELECT account_key, 4, {columns} FROM entries WHERE {bobs} AND sequence = 3"
    );
    let reordered = format!(
        "UPDATE entries SET sequence = 9 WHERE {bobs} AND sequence = 1; \
         UPDATE entries SET sequence = 1 WHERE {bobs} AND sequence = 2; \
         UPDATE entries SET sequence = 2 WHERE {bobs} AND sequence = 9"
    );
    let swapped = format!(
        "UPDATE entries SET amount = '40.00', balance_after = '40.00' \
         WHERE {bobs} AND sequence = 1; \
         UPDATE entries SET amount = '10.00' WHERE {bobs} AND sequence = 2"
    );
    let stray = format!(
        "UPDATE entries SET account_key = 999 WHERE {of_yen}; \
         UPDATE accounts SET sequence = 0, balance = '0' WHERE account_id = 'yen'"
    );
    let missing = format!("DELETE FROM entries WHERE {bobs} AND sequence = 2");
    let all_missing = format!("DELETE FROM entries WHERE {of_yen}");
    let changed = format!("UPDATE entries SET amount = '31.00' WHERE {bobs} AND sequence = 3");
    let earlier = format!(
        "UPDATE entries SET create_time_us = create_time_us - 1 WHERE {bobs} AND sequence = 2"
    );
    let dated = format!("UPDATE entries SET effective_time_us = 1 WHERE {bobs} AND sequence = 2");
    assert_found(
        &database,
        &[
            (
                "UPDATE accounts SET balance = '80.01' WHERE account_id = 'bob'",
                "account bob: its balance is 80.01; its 3 entries sum to 80.00",
            ),
            (&missing, "account bob, entry 2: it is missing"),
            (&all_missing, "account yen, entry 1: it is missing: the account's sequence is 1"),
            (&doubled, "account bob, entry 4: it is surplus"),
            (
                &changed,
                "account bob, entry 3: its balance_after is 80.00; 50.00 before it and its amount \
                 of 31.00 are 81.00",
            ),
            (&earlier, "account bob, entry 2: its hash is "),
            (&dated, "account bob, entry 2: its hash is "),
            (&reordered, "account bob, entry 1: its balance_after is 50.00"),
            (&swapped, "account bob, entry 1: its hash is "),
            (&stray, "account yen: its last_hash is "),
            (
                "DELETE FROM accounts WHERE account_id = 'yen'",
                "account with key 3, entry 1: its account does not exist",
            ),
            (
                "DELETE FROM accounts WHERE account_id = 'alice'",
                "account with key 1, entry 1: its account does not exist",
            ),
            (
                "UPDATE accounts SET held = '0.01' WHERE account_id = 'alice'",
                "account alice: its held is 0.01; its open holds sum to 0.00",
            ),
        ],
    )
    .await;
}

async fn entries_and_requests_without_each_other_are_found(kind: Kind) {
    let database = ledger(kind).await;
    let request_of = |which: &str| {
        format!("transaction_id = (SELECT transaction_id FROM entries WHERE {which})")
    };
    let entry_of = |account_id: &str, sequence: i64| {
        let key = format!("(SELECT account_key FROM accounts WHERE account_id = '{account_id}')");
        format!("{key} || ':{sequence}'")
    };
    let bobs = of_account("bob");
    let bobs_deposit = request_of(&format!("{bobs} AND sequence = 1"));
    let orphan = format!("DELETE FROM requests WHERE {bobs_deposit}");
    let other =
        format!("UPDATE requests SET entry_keys = {} WHERE {bobs_deposit}", entry_of("alice", 1));
    let twice = format!(
        "UPDATE requests SET entry_keys = entry_keys || ' ' || entry_keys WHERE {bobs_deposit}"
    );
    let transfer = request_of(&format!("{bobs} AND sequence = 3"));
    let unnamed = format!(
        "UPDATE requests SET kind = 'posting', entry_keys = {} WHERE {transfer}",
        entry_of("bob", 3)
    );
    // The rest of bob's chain is correct. Only the transfer shows the missing leg.
    let leg_missing = format!(
        "DELETE FROM entries WHERE {bobs} AND sequence = 3; \
         UPDATE accounts SET sequence = 2, balance = '50.00', last_hash = \
            (SELECT hash FROM entries WHERE {bobs} AND sequence = 2) WHERE account_id = 'bob'"
    );
    let doubled = format!(
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys, \
            create_time_us) \
         SELECT caller, 'again', fingerprint, transaction_id, kind, entry_keys, \
            create_time_us FROM requests WHERE {bobs_deposit}"
    );
    let rejected = format!("UPDATE requests SET rejection = '{{}}' WHERE {bobs_deposit}");
    assert_found(
        &database,
        &[
            (&orphan, "account bob, entry 1: it belongs to transaction "),
            (&other, "account alice, entry 1: it belongs to transaction "),
            (&twice, ": it names an entry twice"),
            (&unnamed, "account alice, entry 2: it belongs to transaction "),
            (&leg_missing, "account bob, entry 3: it is missing, but transaction "),
            (&doubled, ": two requests have this id and name the same entries"),
            (&rejected, ": it is rejected but names 1 entries"),
        ],
    )
    .await;
}

async fn transactions_that_contradict_their_kind_are_found(kind: Kind) {
    let database = ledger(kind).await;
    assert_found(
        &database,
        &[
            (
                "UPDATE requests SET kind = 'deposit' WHERE kind = 'withdrawal' AND rejection IS NULL",
                ": it is a deposit with the entries -0.05 USD; it should have one above zero",
            ),
            (
                "UPDATE requests SET kind = 'deposit' WHERE kind = 'transfer'",
                ": it is a deposit with the entries -30.00 USD, 30.00 USD; it should have one above",
            ),
            (
                "UPDATE requests SET kind = 'transfer' WHERE kind = 'withdrawal' AND rejection IS NULL",
                ": it is a transfer with the entries -0.05 USD; it should have two that sum to zero",
            ),
            ("UPDATE requests SET kind = 'gift' WHERE kind = 'transfer'", "\"gift\", which is no kind of request"),
            (
                "UPDATE requests SET kind = 'fence' WHERE kind = 'transfer'",
                ": it is fence but names 2 entries",
            ),
            (
                "UPDATE requests SET rejection = NULL WHERE rejection IS NOT NULL",
                ": it is a withdrawal with the entries none; it should have one below zero",
            ),
        ],
    )
    .await;
}

async fn events_that_are_not_in_one_commit_are_found(kind: Kind) {
    let database = ledger(kind).await;
    let opening = "other_events LIKE '%alice%'";
    let again = "INSERT INTO commits (create_time_us, transaction_ids, other_events) \
        SELECT create_time_us, transaction_ids, other_events FROM commits WHERE";
    assert_found(
        &database,
        &[
            (
                &format!("DELETE FROM commits WHERE {opening}"),
                "event {\"account_opened\":\"alice\"}: it is in no commit",
            ),
            ("DELETE FROM commits WHERE other_events IS NULL", "\"}: it is in no commit"),
            (
                &format!("{again} {opening}"),
                "event {\"account_opened\":\"alice\"}: it is in a commit more often than it has",
            ),
            (&format!("{again} other_events IS NULL"), "\"}: it is in a commit more often than it"),
        ],
    )
    .await;
}

/// Neither of them is a transfer, but their amounts make up for each other.
async fn transfers_that_share_an_id_are_found(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    for account_id in ["a", "b", "c", "d"] {
        open_funded(&client, account_id, "10").await;
    }
    let legs = [leg("a", "-1"), leg("b", "2"), leg("c", "-2"), leg("d", "1")];
    client.post_transaction(post(&legs)).await.expect("applied");
    let keys = |from, to| {
        let key = |id| format!("(SELECT account_key FROM accounts WHERE account_id = '{id}')");
        format!("{} || ':2 ' || {} || ':2'", key(from), key(to))
    };
    let second = format!(
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys, \
            create_time_us) \
        SELECT caller, 'second', fingerprint, transaction_id, 'transfer', {}, create_time_us \
        FROM requests WHERE kind = 'posting'; \
        UPDATE requests SET kind = 'transfer', entry_keys = {} WHERE kind = 'posting'",
        keys("c", "d"),
        keys("a", "b")
    );
    assert_found(&database, &[(&second, ": two requests have this id")]).await;
}

async fn inconsistent_holds_are_found(kind: Kind) {
    let database = ledger(kind).await;
    let columns = "hold_id, account_key, amount, state, captured_amount, transaction_id, \
        request_id, create_time_us, update_time_us";
    let bob = "(SELECT account_key FROM accounts WHERE account_id = 'bob')";
    let hold = |account_key: &str, state: &str, captured: &str, transaction_id: &str| {
        format!(
            "INSERT INTO holds ({columns}) SELECT 'h', {account_key}, '5.00', '{state}', \
             {captured}, {transaction_id}, 'r', 0, 0 FROM requests \
             WHERE kind = 'withdrawal' AND rejection IS NULL"
        )
    };
    let nobody = hold("0", "released", "NULL", "NULL");
    let not_captured = hold(bob, "captured", "0.05", "transaction_id");
    let open = hold(bob, "open", "NULL", "NULL");
    let captured = "UPDATE requests SET kind = 'capture', hold_id = 'h' \
        WHERE kind = 'withdrawal' AND rejection IS NULL";
    let by_nobody = format!("{not_captured}; {captured}");
    assert_found(
        &database,
        &[
            (&by_nobody, "hold h: no request placed it: its row names request r, but"),
            (&nobody, "hold h: its account does not exist"),
            (&not_captured, "hold h: it is captured, but its transaction"),
            (&open, "account bob: its held is 0.00; its open holds sum to 5.00"),
        ],
    )
    .await;
    let digits = "01990000000070008000000000000007";
    let (id, ids) = match kind {
        Kind::Sqlite => (format!("unhex('{digits}')"), format!("unhex('{digits}')")),
        Kind::Postgres => (format!("'{digits}'::uuid"), format!("'\\x{digits}'::bytea")),
    };
    let fingerprint = fingerprint_of_hold(kind, "", "bob", "5", "");
    let placed = format!(
        "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys, \
            create_time_us, hold_id) \
         SELECT caller, 'r', {fingerprint}, {id}, 'place_hold', '', create_time_us, 'h' \
         FROM requests WHERE kind = 'withdrawal' AND rejection IS NULL; \
         INSERT INTO commits (create_time_us, transaction_ids) VALUES (1, {ids})"
    );

    database.execute(&format!("{placed}; {by_nobody}")).await;

    let outcome = verify(&database).await.must_succeed();
    assert!(outcome.stdout.contains("-0.05"), "{}", outcome.stdout);
}

async fn what_was_forced_or_reversed_in_parts_is_checked(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let forced = WithdrawRequest { force: true, ..withdrawal("alice", "12") };
    client.withdraw(forced).await.expect("applied");
    open(&client, "bob").await;
    let transaction_id = deposited(&client, "bob", "7").await.transaction_id;
    for (request_id, amount) in [("part-1", "2"), ("part-2", "3")] {
        let request_id = request_id.to_owned();
        let amount = money(amount);
        let part = ReverseTransactionRequest { request_id, amount, ..reversal(&transaction_id) };
        reversed(&client, part).await;
    }
    let details = |details: &str| {
        format!("UPDATE requests SET details = '{details}' WHERE request_id = 'part-2'")
    };
    let mut cases = vec![
        (
            "UPDATE requests SET details = NULL WHERE kind = 'withdrawal'".to_owned(),
            "account alice: it is below its limit, but no forced transaction has taken",
        ),
        (
            details(r#"{"reversed":{"count":3,"amount":"5.00"}}"#),
            ": it is reversal 3 of its transaction, not 2",
        ),
        (
            details(r#"{"reversed":{"count":2,"amount":"4.00"}}"#),
            ": with it, 5.00 of its transaction are reversed, but its details say 4.00",
        ),
        (details(r#"{"reversed":{"count":2}}"#), "5.00 of its transaction are reversed, but its"),
        (details(r#"{"reversed":{"count":2,"sum":"5.00"}}"#), "column details"),
    ];
    if kind == Kind::Sqlite {
        // PostgreSQL refuses that.
        let unmarked = "UPDATE accounts SET below_limit = false WHERE account_id = 'alice'";
        let words = "account alice: its available amount is -2.00, but it is not marked";
        cases.push((unmarked.to_owned(), words));
    }
    let cases: Vec<_> = cases.iter().map(|(change, words)| (change.as_str(), *words)).collect();
    assert_found(&database, &cases).await;
}

async fn verify_runs_beside_servers_under_load(kind: Kind) {
    let (database, _servers, clients) = start_loaded(kind, 2).await;
    let (accounts, _) = open_ring(&clients[0], 4).await;
    let (stop, stopped) = watch::channel(false);
    let load = RingLoad::on(&accounts, 16, Stop::When(stopped), seed());
    let verifying = async {
        let mut entries = Vec::new();
        let end = tokio::time::Instant::now() + PATIENCE;
        while entries.len() < 6 || database.count("requests").await < 100 {
            assert!(tokio::time::Instant::now() < end, "{} times", entries.len());
            let outcome = verify(&database).await.must_succeed();
            let words: Vec<_> = outcome.stdout.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "entries,").expect("a summary");
            entries.push(words[at - 1].parse::<u64>().expect("a number"));
        }
        stop.send(true).expect("the load listens");
        entries
    };

    let (history, entries) = tokio::join!(load.run(&clients), verifying);

    println!("{kind:?}: verified {} times during {} changes", entries.len(), history.len());
    assert!(
        entries.is_sorted() && entries.first() < entries.last(),
        "it was changed meanwhile: {entries:?}"
    );
}

async fn a_schema_that_is_not_this_program_s_is_an_error(kind: Kind) {
    let empty = TestDatabase::create_empty(kind).await;
    // On SQLite this makes the file.
    empty.execute("CREATE TABLE other (id int)").await;
    let ahead = empty.create_beside(kind).await;
    let insert = "INSERT INTO passbook_migrations (version, applied_at) VALUES ('m29990101_000001_future', 0)";
    ahead.execute(insert).await;

    for (database, words) in [(&empty, "no schema"), (&ahead, "m29990101_000001_future")] {
        let outcome = verify(database).await;
        assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}
