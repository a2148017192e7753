//! `validate_only`: the same checks under the same lock, and nothing is recorded.

use crate::harness::{checker, *};

on_both_databases! {
    validate_only_shows_the_effect_and_records_nothing,
    validate_only_shows_the_rejection_and_records_nothing,
    the_real_request_may_follow_under_the_same_id,
}

async fn validate_only_shows_the_effect_and_records_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let before = (open_funded(&client, "a", "10").await, open(&client, "b").await);

    let request = TransferRequest { validate_only: true, ..transfer("a", "b", "4") };
    let transferred = client.transfer(request).await.expect("valid");
    let request = DepositRequest { validate_only: true, ..deposit("a", "4") };
    client.deposit(request).await.expect("valid");
    let request = WithdrawRequest { validate_only: true, ..withdrawal("a", "10") };
    client.withdraw(request).await.expect("valid");

    assert!(!transferred.replayed);
    let transaction = transferred.transaction.expect("a transaction");
    assert_eq!((transaction.transaction_id.as_str(), transaction.create_time), ("", None));
    assert_eq!(transaction.entries.len(), 2);
    for (entry, (sequence, after)) in transaction.entries.iter().zip([(2, "6.00"), (1, "4.00")]) {
        assert_eq!((entry.sequence, value(&entry.balance_after)), (sequence, after));
        assert!(
            entry.hash.is_empty() && entry.transaction_id.is_empty() && entry.create_time.is_none()
        );
    }
    assert_eq!((get(&client, "a").await, get(&client, "b").await), before);
    assert_eq!((database.count("entries").await, database.count("requests").await), (1, 1));
}

async fn validate_only_shows_the_rejection_and_records_nothing(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    let request = WithdrawRequest { validate_only: true, ..withdrawal("a", "11") };

    let status = must_fail(client.withdraw(request.clone()).await, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "available"), "10.00");
    assert_eq!(database.count("requests").await, 1);
    client.deposit(deposit("a", "5")).await.expect("applied");
    client.withdraw(request).await.expect("now it is applied: the rejection was not stored");
}

async fn the_real_request_may_follow_under_the_same_id(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    let real = deposit("a", "1");

    let dry = DepositRequest { validate_only: true, ..real.clone() };
    client.deposit(dry.clone()).await.expect("valid");
    let made = client.deposit(real.clone()).await.expect("applied");
    let dry = client.deposit(dry).await.expect("applied");

    assert!(!made.replayed && dry.replayed);
    assert_eq!(made.transaction, dry.transaction);
    assert_eq!(balance(&client, "a").await, "11.00");
    checker::assert_consistent(&database).await;
}
