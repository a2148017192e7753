//! ISO 4217 changes the decimals of a currency, and a newer program follows: existing accounts keep
//! their decimals and work as before.

use sea_orm::ConnectionTrait;

use crate::harness::{checker, *};

on_both_databases! {
    a_ledger_keeps_its_first_currency_decimals,
    an_account_keeps_the_decimals_of_its_creation,
    a_migration_records_the_decimals_of_an_older_ledger,
}

/// As if the program that began this ledger had given the dollar three decimals.
async fn begun_with_three_decimals(kind: Kind) -> TestDatabase {
    let database = TestDatabase::create(kind).await;
    database.passbook(&["migrate", "up"]).await.must_succeed();
    let sql = "INSERT INTO currencies (currency_code, currency_scale) VALUES ('USD', 3)";
    database.connect().await.execute_unprepared(sql).await.expect("written");
    database
}

async fn a_ledger_keeps_its_first_currency_decimals(kind: Kind) {
    let database = begun_with_three_decimals(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();

    let request =
        CreateAccountRequest { overdraft_limit: money("0.125"), ..account_of("alice", "USD") };
    let account = open_with(&client, request.clone()).await;
    assert_eq!(value(&account.overdraft_limit), "0.125");
    client.deposit(deposit("alice", "1.005")).await.expect("three decimals");
    client.deposit(deposit("alice", "1")).await.expect("none");
    assert_eq!(balance(&client, "alice").await, "2.005");
    assert_eq!(open_with(&client, request).await.version, 3, "a retry");
    must_fail(client.deposit(deposit("alice", "1.0005")).await, Reason::InvalidAmount);
    // Other currencies have ISO's decimals.
    open_with(&client, account_of("yen", "JPY")).await;
    assert_eq!(balance(&client, "yen").await, "0");
    database.passbook(&["verify"]).await.must_succeed();
    checker::assert_consistent(&database).await;
}

async fn an_account_keeps_the_decimals_of_its_creation(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with(&client, account_of("three", "USD")).await;
    open_all(&client, &["none", "two"]).await;
    let connection = database.connect().await;
    for (account_id, scale) in [("three", 3), ("none", 0)] {
        let sql = format!(
            "UPDATE accounts SET currency_scale = {scale} WHERE account_id = '{account_id}'"
        );
        connection.execute_unprepared(&sql).await.expect("opened so");
    }

    for account_id in ["three", "none", "two"] {
        client.deposit(deposit(account_id, "10.00")).await.expect("deposited");
        client.withdraw(withdrawal(account_id, "1")).await.expect("withdrawn");
        place(&client, hold_named(account_id, account_id, "2.00")).await;
        captured(&client, capture(account_id)).await;
        let update = limit_of(account_id, "3.00");
        client.update_account(update).await.expect("updated");
        let again = open_with(&client, account_of(account_id, "USD")).await;
        assert_eq!(again.account_id, account_id, "a retry");
    }
    assert_eq!(balance(&client, "three").await, "7.000");
    assert_eq!(balance(&client, "none").await, "7");
    client.transfer(transfer("three", "none", "4")).await.expect("between all of them");
    client.transfer(transfer("none", "two", "4.00")).await.expect("between all of them");
    assert_eq!(balance(&client, "two").await, "11.00");
    // Excess decimals are rejected, and never rounded.
    must_fail(client.deposit(deposit("none", "0.50")).await, Reason::CurrencyMismatch);
    assert_eq!(balance(&client, "none").await, "7");

    // A server that starts now reads them, and accepts all decimals in use.
    let server = Server::start(&database).await;
    let client = server.client();
    client.deposit(deposit("three", "0.005")).await.expect("three decimals");
    assert_eq!(balance(&client, "three").await, "3.005");
    must_fail(client.deposit(deposit("two", "0.005")).await, Reason::CurrencyMismatch);
    client.deposit(deposit("two", "0.05")).await.expect("two decimals");
    assert_eq!(balance(&client, "two").await, "11.05");
    database.passbook(&["verify"]).await.must_succeed();
}

async fn a_migration_records_the_decimals_of_an_older_ledger(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let mut server = Server::start(&database).await;
    let client = server.client();
    open(&client, "dollars").await;
    open_with(&client, account_of("yen", "JPY")).await;
    server.terminate();
    server.wait(PATIENCE).await.expect("it ends");
    // As in the previous version.
    database.migrate_down_before("scales_are_kept").await;
    database.connect().await.execute_unprepared("DELETE FROM currencies").await.expect("gone");

    database.passbook(&["migrate", "up"]).await.must_succeed();

    let count = async |rows: &str| database.count(&format!("currencies WHERE {rows}")).await;
    assert_eq!(count("currency_code = 'USD' AND currency_scale = 2").await, 1);
    assert_eq!(count("currency_code = 'JPY' AND currency_scale = 0").await, 1);
    // The decimals of new currencies are recorded as well.
    let server = Server::start(&database).await;
    open_with(&server.client(), account_of("dinar", "BHD")).await;
    open_with(&server.client(), account_of("more", "BHD")).await;
    assert_eq!(count("currency_code = 'BHD' AND currency_scale = 3").await, 1);
    assert_eq!(count("1 = 1").await, 3);
}
