use tonic_types::StatusExt;

use crate::harness::{checker, *};

on_both_databases! {
    a_withdrawal_takes_from_the_balance_and_its_entry_is_negative,
    an_account_can_be_emptied_to_the_cent_and_not_beyond,
    a_rejection_for_lack_of_funds_says_what_was_available_and_what_was_required,
    an_overdraft_limit_is_honored_to_the_cent,
    an_unlimited_overdraft_ends_at_the_limit_of_money,
    a_frozen_account_rejects_withdrawals,
    a_rejected_withdrawal_changes_nothing,
}

async fn a_withdrawal_takes_from_the_balance_and_its_entry_is_negative(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;

    let transaction = withdrawn(&client, "alice", "0.5").await;
    assert_eq!(transaction.kind(), TransactionKind::Withdrawal);
    let entry = &transaction.entries[0];
    assert_eq!(
        (entry.amount.clone(), entry.balance_after.clone()),
        (money("-0.50"), money("9.50"))
    );
    assert_eq!(entry.sequence, 2);
    checker::assert_consistent(&database).await;
}

async fn an_account_can_be_emptied_to_the_cent_and_not_beyond(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "0.30").await;
    client.withdraw(withdrawal("alice", "0.1")).await.expect("applied");
    client.withdraw(withdrawal("alice", "0.20")).await.expect("no float makes this 0.19999");

    must_fail(client.withdraw(withdrawal("alice", "0.01")).await, Reason::InsufficientFunds);
    assert_eq!(balance(&client, "alice").await, "0.00");
}

async fn a_rejection_for_lack_of_funds_says_what_was_available_and_what_was_required(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "5").await;
    client.deposit(deposit("alice", "10")).await.expect("applied");

    let answer = client.withdraw(withdrawal("alice", "15.01")).await;

    let status = must_fail(answer, Reason::InsufficientFunds);
    let names = ["account_id", "currency_code", "available", "required", "version"];
    let said = names.map(|name| metadata(&status, name));
    assert_eq!(said, ["alice", "USD", "15.00", "15.01", "2"]);
    for word in ["alice", "15.00", "15.01"] {
        assert!(status.message().contains(word), "{}", status.message());
    }
    let violations =
        status.get_details_precondition_failure().expect("PreconditionFailure").violations;
    assert_eq!(violations.len(), 1);
}

async fn an_overdraft_limit_is_honored_to_the_cent(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "100.50").await;

    client.withdraw(withdrawal("alice", "100.5")).await.expect("down to the limit");
    must_fail(client.withdraw(withdrawal("alice", "0.01")).await, Reason::InsufficientFunds);
    let account = get(&client, "alice").await;
    assert_eq!((value(&account.balance), value(&account.available)), ("-100.50", "0.00"));
    checker::assert_consistent(&database).await;
}

async fn an_unlimited_overdraft_ends_at_the_limit_of_money(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let request = CreateAccountRequest { unlimited_overdraft: true, ..account_of("bank", "USD") };
    open_with(&client, request).await;

    client.withdraw(withdrawal("bank", LARGEST)).await.expect("no limit of its own");
    must_fail(client.withdraw(withdrawal("bank", "0.01")).await, Reason::BalanceOutOfRange);
    assert_eq!(balance(&client, "bank").await, format!("-{LARGEST}"));
    checker::assert_consistent(&database).await;
}

async fn a_frozen_account_rejects_withdrawals(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    database.execute("UPDATE accounts SET state = 'frozen'").await;

    let status = must_fail(client.withdraw(withdrawal("alice", "1")).await, Reason::AccountFrozen);
    assert_eq!(metadata(&status, "account_id"), "alice");
    assert_eq!(balance(&client, "alice").await, "10.00");
}

async fn a_rejected_withdrawal_changes_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let before = open_funded(&client, "alice", "10").await;

    for amount in ["10.01", "11", LARGEST] {
        let request =
            WithdrawRequest { description: "too much".to_owned(), ..withdrawal("alice", amount) };
        must_fail(client.withdraw(request).await, Reason::InsufficientFunds);
    }

    assert_eq!(get(&client, "alice").await, before);
    assert_eq!(database.count("entries").await, 1);
    checker::assert_consistent(&database).await;
}
