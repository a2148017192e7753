//! Two hundred withdrawals of 1.00 at once, against 50.00.

use crate::harness::{checker, *};

on_both_databases! {
    exactly_fifty_of_two_hundred_withdrawals_succeed_against_fifty,
    exactly_fifty_of_two_hundred_withdrawals_succeed_within_an_overdraft_limit_of_fifty,
    exactly_fifty_of_two_hundred_transfers_succeed_against_fifty,
}

async fn exactly_fifty_of_two_hundred_withdrawals_succeed_against_fifty(kind: Kind) {
    race(kind, "0", "50", "0.00", |_| Change::Withdraw(withdrawal("pot", "1.00"))).await;
}

async fn exactly_fifty_of_two_hundred_withdrawals_succeed_within_an_overdraft_limit_of_fifty(
    kind: Kind,
) {
    race(kind, "50", "0.01", "-49.99", |_| Change::Withdraw(withdrawal("pot", "1.00"))).await;
}

async fn exactly_fifty_of_two_hundred_transfers_succeed_against_fifty(kind: Kind) {
    race(kind, "0", "50", "0.00", |call| {
        Change::Transfer(transfer("pot", ["left", "right"][call % 2], "1.00"))
    })
    .await;
}

async fn race(
    kind: Kind,
    limit: &str,
    funds: &str,
    expected_balance: &str,
    change: impl Fn(usize) -> Change,
) {
    let (database, _servers, clients) = start_loaded(kind, 3).await;
    let request =
        CreateAccountRequest { overdraft_limit: money(limit), ..account_of("pot", "USD") };
    open_with(&clients[0], request).await;
    open(&clients[0], "left").await;
    open(&clients[0], "right").await;
    let first = Change::Deposit(deposit("pot", funds));
    let mut history = vec![(first.clone(), first.settle(&clients).await)];
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..200 {
        let (change, clients) = (change(call), clients.clone());
        calls.spawn(async move {
            let result = change.settle(&clients[call % 3..=call % 3]).await;
            (change, result)
        });
    }

    history.extend(calls.join_all().await);

    let mut applied = 0;
    for (_, result) in &history[1..] {
        match result {
            RequestResult::Applied(_) => applied += 1,
            RequestResult::Rejected(status) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                assert_eq!(reason(status), "INSUFFICIENT_FUNDS");
            }
        }
    }
    assert_eq!(applied, 50);
    assert_eq!(balance(&clients[0], "pot").await, expected_balance);
    checker::assert_sound(&database, &history).await;
}
