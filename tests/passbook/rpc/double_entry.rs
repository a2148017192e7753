//! Double entry: `require_balanced` on PostTransaction.

use crate::harness::*;

on_both_databases! {
    a_posting_that_must_be_balanced_is_rejected_if_it_is_not,
}

fn is_unbalanced<Answer: std::fmt::Debug>(answer: Result<Answer, Status>, sum: Option<&str>) {
    let status = must_fail(answer, Reason::Unbalanced);
    assert_eq!(metadata(&status, "sum"), sum.unwrap_or_default(), "{status:?}");
    assert_eq!(outcome(&status), "", "it is a result: {status:?}");
}

async fn a_posting_that_must_be_balanced_is_rejected_if_it_is_not(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_all(&client, &["bob"]).await;
    open_with(&client, account_of("carol", "EUR")).await;
    let demand = |legs: &[Leg]| PostTransactionRequest { require_balanced: true, ..post(legs) };
    let unbalanced = demand(&[leg("alice", "-5"), leg("bob", "4.99")]);

    is_unbalanced(client.post_transaction(unbalanced.clone()).await, Some("-0.01"));

    is_unbalanced(client.post_transaction(unbalanced.clone()).await, Some("-0.01"));
    let relaxed = PostTransactionRequest { require_balanced: false, ..unbalanced };
    must_fail(client.post_transaction(relaxed).await, Reason::RequestIdReused);
    let two_currencies = demand(&[leg("alice", "-5"), leg_in("carol", "EUR", "5")]);
    is_unbalanced(client.post_transaction(two_currencies).await, Some("5.00"));
    let missing = demand(&[leg("nobody", "1")]);
    is_unbalanced(client.post_transaction(missing).await, Some("1.00"));
    let balanced = demand(&[leg("alice", "-5"), leg("bob", "2"), leg("bob", "3")]);
    posted(&client, balanced).await;
    assert_eq!(balance(&client, "bob").await, "5.00");
    let output = database.passbook(&["verify", "--require-balanced"]).await;
    output.must_fail_with(1, "the ledger has a fault");
}
