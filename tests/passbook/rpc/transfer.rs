use crate::harness::{checker, *};

on_both_databases! {
    a_transfer_is_two_entries_that_sum_to_zero,
    a_transfer_that_is_rejected_changes_neither_account,
    a_transfer_to_the_same_account_is_invalid,
    the_error_names_the_source_when_both_accounts_are_wrong,
    transfers_in_opposite_directions_never_deadlock,
}

async fn a_transfer_is_two_entries_that_sum_to_zero(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    // The source's id sorts after the destination's, but entries keep the order of the request.
    open_funded(&client, "zoe", "100").await;
    open(&client, "adam").await;

    let answer = client.transfer(transfer("zoe", "adam", "30.1")).await.expect("applied");

    let transaction: Transaction = answer.transaction.expect("a transaction");
    assert_eq!(transaction.kind(), TransactionKind::Transfer);
    let said: Vec<_> = transaction
        .entries
        .iter()
        .map(|entry| (entry.account_id.as_str(), value(&entry.amount), value(&entry.balance_after)))
        .collect();
    assert_eq!(said, [("zoe", "-30.10", "69.90"), ("adam", "30.10", "30.10")]);
    let sequences: Vec<i64> = transaction.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, [2, 1]);
    checker::assert_consistent(&database).await;
}

async fn a_transfer_that_is_rejected_changes_neither_account(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    open(&client, "b").await;
    open_with(&client, account_of("euro", "EUR")).await;
    open(&client, "closed").await;
    database.execute("UPDATE accounts SET state = 'closed' WHERE account_id = 'closed'").await;
    let before = (get(&client, "a").await, get(&client, "b").await);
    let cases = [
        (transfer("a", "b", "10.01"), Reason::InsufficientFunds, "a"),
        (transfer("a", "nobody", "1"), Reason::AccountNotFound, "nobody"),
        (transfer("nobody", "b", "1"), Reason::AccountNotFound, "nobody"),
        (transfer("a", "euro", "1"), Reason::CurrencyMismatch, "euro"),
        (transfer("a", "closed", "1"), Reason::AccountClosed, "closed"),
    ];

    for (request, expected, account_id) in cases {
        let status = must_fail(client.transfer(request).await, expected);
        assert_eq!(metadata(&status, "account_id"), account_id);
    }

    assert_eq!((get(&client, "a").await, get(&client, "b").await), before);
    checker::assert_consistent(&database).await;
}

async fn a_transfer_to_the_same_account_is_invalid(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;

    let answer = client.transfer(transfer("a", "a", "1")).await;

    let status = must_fail(answer, Reason::InvalidAccountId);
    assert_eq!(fields(&status), ["destination_account_id"]);
    assert_eq!(database.count("requests").await, 1, "malformed requests are not recorded");
}

async fn the_error_names_the_source_when_both_accounts_are_wrong(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["x", "b"]).await;
    database.execute("UPDATE accounts SET state = 'closed'").await;

    let missing = client.transfer(transfer("z-missing", "a-missing", "1")).await;
    let closed = client.transfer(transfer("x", "b", "1")).await;

    let missing = must_fail(missing, Reason::AccountNotFound);
    assert_eq!(metadata(&missing, "account_id"), "z-missing");
    let closed = must_fail(closed, Reason::AccountClosed);
    assert_eq!(metadata(&closed, "account_id"), "x");
    let malformed = TransferRequest { source_account_id: "?".to_owned(), ..transfer("", "!", "1") };
    let malformed = client.transfer(malformed).await;
    let malformed = must_fail(malformed, Reason::InvalidAccountId);
    assert_eq!(fields(&malformed)[0], "source_account_id");
}

async fn transfers_in_opposite_directions_never_deadlock(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, 2).await;
    open_funded(&servers[0].client(), "a", "1000").await;
    open_funded(&servers[0].client(), "b", "1000").await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let client = servers[caller % 2].client();
        let (from, to) = if caller < 8 { ("a", "b") } else { ("b", "a") };
        callers.spawn(async move {
            for _ in 0..20 {
                client.transfer(transfer(from, to, "1")).await.expect("no lock is in the way");
            }
        });
    }

    callers.join_all().await;

    assert_eq!(balance(&servers[0].client(), "a").await, "1000.00");
    if kind == Kind::Postgres {
        let sql = "SELECT CAST(deadlocks AS TEXT) FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(database.text(sql).await, "0");
    }
    checker::assert_consistent(&database).await;
}
