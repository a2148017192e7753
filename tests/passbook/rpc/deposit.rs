use crate::harness::{checker, ledger_dump::LedgerDump, *};

on_both_databases! {
    a_deposit_adds_to_the_balance_and_is_one_entry,
    amounts_come_out_in_the_currency_s_own_decimals,
    description_and_labels_are_stored_as_sent,
    a_frozen_account_takes_deposits_and_a_closed_one_does_not,
    a_deposit_in_another_currency_is_rejected,
    a_deposit_to_a_missing_account_is_rejected,
    a_balance_beyond_the_limit_is_rejected_and_exact_up_to_it,
    an_account_overdrawn_beyond_its_limit_accepts_deposits,
    each_hash_covers_the_entry_before,
}

async fn a_deposit_adds_to_the_balance_and_is_one_entry(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "0.01").await;
    let request = deposit("alice", "100");

    let answer = client.deposit(request.clone()).await.expect("applied");

    assert!(!answer.replayed);
    let transaction = answer.transaction.expect("a transaction");
    let id = uuid::Uuid::parse_str(&transaction.transaction_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(transaction.request_id, request.request_id);
    assert_eq!(transaction.kind(), TransactionKind::Deposit);
    assert_eq!(transaction.entries.len(), 1);
    let entry = &transaction.entries[0];
    assert_eq!((entry.account_id.as_str(), entry.sequence), ("alice", 2));
    assert_eq!(entry.transaction_id, transaction.transaction_id);
    assert_eq!(
        (entry.amount.clone(), entry.balance_after.clone()),
        (money("100.00"), money("100.01"))
    );
    assert_eq!(entry.create_time, transaction.create_time);
    assert!(transaction.create_time.is_some_and(|time| time.seconds > 1_700_000_000));
    assert_eq!(entry.hash.len(), 32);
    assert_eq!(balance(&client, "alice").await, "100.01");
    checker::assert_consistent(&database).await;
}

async fn amounts_come_out_in_the_currency_s_own_decimals(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let cases = [
        ("USD", "7", "7.00"),
        ("USD", "7.5", "7.50"),
        ("USD", "007.50", "7.50"),
        ("JPY", "7", "7"),
        ("KWD", "7.5", "7.500"),
        ("CLF", "0.0001", "0.0001"),
    ];
    for (number, (currency_code, sent, expected)) in cases.into_iter().enumerate() {
        let account_id = format!("account-{number}");
        open_with(&client, account_of(&account_id, currency_code)).await;
        let request = deposit_in(&account_id, currency_code, sent);

        let answer = client.deposit(request).await.expect("applied");

        let entry = &answer.transaction.expect("a transaction").entries[0];
        assert_eq!(entry.amount, money_of(currency_code, expected));
        assert_eq!(entry.balance_after, money_of(currency_code, expected));
        assert_eq!(get(&client, &account_id).await.balance, money_of(currency_code, expected));
    }
}

async fn description_and_labels_are_stored_as_sent(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let request = DepositRequest {
        description: "für Robert'); DROP TABLE entries;-- \"$1\" %s ?".to_owned(),
        labels: labels(&[("a/b.c_d-1", ""), ("z", "{\"x\": [1]}")]),
        ..deposit("alice", "1")
    };

    let made = client.deposit(request.clone()).await.expect("applied");
    let again = client.deposit(request.clone()).await.expect("it is replayed");

    for transaction in [made.transaction.expect("one"), again.transaction.expect("one")] {
        assert_eq!(transaction.description, request.description);
        assert_eq!(transaction.labels, request.labels);
    }
}

async fn a_frozen_account_takes_deposits_and_a_closed_one_does_not(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_all(&client, &["frozen", "closed"]).await;
    database.execute("UPDATE accounts SET state = account_id").await;

    client.deposit(deposit("frozen", "1")).await.expect("a deposit is accepted");
    let status = must_fail(client.deposit(deposit("closed", "1")).await, Reason::AccountClosed);
    assert_eq!(metadata(&status, "account_id"), "closed");
    assert_eq!(balance(&client, "frozen").await, "1.00");
    assert_eq!(balance(&client, "closed").await, "0.00");
}

async fn a_deposit_in_another_currency_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let request = deposit_in("alice", "EUR", "1");

    let status = must_fail(client.deposit(request).await, Reason::CurrencyMismatch);
    let names = ["account_id", "currency_code", "account_currency_code"];
    assert_eq!(names.map(|name| metadata(&status, name)), ["alice", "EUR", "USD"]);
}

async fn a_deposit_to_a_missing_account_is_rejected(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let request = deposit("nobody", "1");

    let status = must_fail(client.deposit(request.clone()).await, Reason::AccountNotFound);
    assert_eq!(metadata(&status, "account_id"), "nobody");

    // The rejection is final, although the account exists now.
    open(&client, "nobody").await;
    must_fail(client.deposit(request).await, Reason::AccountNotFound);
    assert_eq!(balance(&client, "nobody").await, "0.00");
}

async fn a_balance_beyond_the_limit_is_rejected_and_exact_up_to_it(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    client.deposit(deposit("alice", LARGEST)).await.expect("the largest amount");
    assert_eq!(balance(&client, "alice").await, LARGEST);

    let status =
        must_fail(client.deposit(deposit("alice", "0.01")).await, Reason::BalanceOutOfRange);

    let names = ["account_id", "currency_code", "balance", "amount"];
    assert_eq!(names.map(|name| metadata(&status, name)), ["alice", "USD", LARGEST, "0.01"]);
    client.withdraw(withdrawal("alice", LARGEST)).await.expect("to the last cent");
    assert_eq!(balance(&client, "alice").await, "0.00");
    checker::assert_consistent(&database).await;
}

async fn an_account_overdrawn_beyond_its_limit_accepts_deposits(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    if kind == Kind::Postgres {
        // The database rejects such an account now; old data may have one.
        let drop = "ALTER TABLE accounts DROP CONSTRAINT accounts_available_is_not_negative";
        database.execute(drop).await;
    }
    open(&client, "alice").await;
    database.execute("UPDATE accounts SET balance = '-50' WHERE account_id = 'alice'").await;

    client.deposit(deposit("alice", "20")).await.expect("a deposit is accepted");

    assert_eq!(balance(&client, "alice").await, "-30.00");
    let answer = client.withdraw(withdrawal("alice", "0.01")).await;
    let status = must_fail(answer, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "available"), "-30.00");
}

async fn each_hash_covers_the_entry_before(kind: Kind) {
    let (database, _server, client) = start_server_with(kind, &["--currency", "ETH=18"]).await;
    open(&client, "alice").await;
    open_with(&client, account_of("ether", "ETH")).await;
    for amount in ["100", "0.5", "10.10", "99999"] {
        client.deposit(deposit("alice", amount)).await.expect("applied");
        let ether = deposit_in("ether", "ETH", amount);
        client.deposit(ether).await.expect("applied");
    }

    // The checker computes the hashes from the documented format.
    checker::assert_consistent(&database).await;
    let dump = LedgerDump::read(&database).await;
    assert_eq!(dump.entries_count(), 8);
    let first = &dump.entries["alice"][0];
    let other = checker::entry_hash(&"1".repeat(64), "alice", "USD", first);
    assert_ne!(other, first.hash, "the hash depends on the entry before");
}
