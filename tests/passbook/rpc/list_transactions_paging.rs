//! ListTransactions over more rows than one page scans, with few matches; and with a wrong clock.

use crate::harness::{checker, *};

on_both_databases! {
    a_page_that_scans_many_rows_and_matches_few_is_not_the_last,
    a_transaction_with_a_future_time_is_listed,
}

async fn all_pages(client: &Client, first: ListTransactionsRequest) -> Vec<Vec<Transaction>> {
    all_pages!(client.list_transactions(first).transactions)
}

async fn a_page_that_scans_many_rows_and_matches_few_is_not_the_last(kind: Kind) {
    let (_database, _server, client) = start_loaded_server(kind).await;
    open(&client, "alice").await;
    let rare = || labels(&[("rare", "")]);
    let mut expected = Vec::new();
    for number in 0..23 {
        if [0, 1, 12].contains(&number) {
            let labels = rare();
            let request = PostTransactionRequest { labels, ..posting(&[("alice", "2")]) };
            expected.push(posted(&client, request).await);
        }
        post_many(&client, "alice", 1000).await;
    }

    expected.reverse();
    for account_id in ["", "alice"] {
        for page_size in [1, 100] {
            let labels = rare();
            let request =
                ListTransactionsRequest { labels, page_size, ..transactions_of(account_id) };
            let pages = all_pages(&client, request).await;
            assert_eq!(pages.concat(), expected);
            assert!(pages[0].is_empty(), "the last 10,000 have none of them");
            assert!((3..=6).contains(&pages.len()), "{} pages", pages.len());
        }
        // A list without matches ends as well.
        let kind = TransactionKind::Transfer.into();
        let request = ListTransactionsRequest { kind, ..transactions_of(account_id) };
        assert_eq!(all_pages(&client, request).await, [[], [], []]);
    }
}

/// A wrong clock: the account's time is three hours ahead.
async fn a_transaction_with_a_future_time_is_listed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    open_funded(&client, "bob", "10").await;
    place(&client, hold_named("h", "alice", "2")).await;
    let now_us = microseconds(&Some(from_now(ms(0))));
    let ahead_us = now_us + 3 * 60 * 60 * 1_000_000;
    let update = format!("UPDATE accounts SET update_time_us = {ahead_us}");
    database.execute(&format!("{update} WHERE account_id = 'alice'")).await;

    let request = transfer("alice", "bob", "1");
    let made = client.transfer(request.clone()).await.expect("applied");
    let made = made.transaction.expect("a transaction");
    assert_eq!(microseconds(&made.create_time), ahead_us, "times of an account never go back");
    let capturing = captured(&client, capture("h")).await;
    let capturing = capturing.transaction.expect("a transaction");
    let reversal = reversed(&client, reversal(&made.transaction_id)).await;

    let expected = [&reversal, &capturing, &made].map(|it| it.transaction_id.clone());
    for account_id in ["", "alice", "bob"] {
        let request = ListTransactionsRequest {
            account_id: account_id.to_owned(),
            start_time: Some(from_now(seconds(2 * 60 * 60 + 1800))),
            end_time: Some(from_now(seconds(4 * 60 * 60))),
            ..Default::default()
        };
        let listed = client.list_transactions(request).await.expect("a page");
        let mut listed: Vec<_> =
            listed.transactions.into_iter().map(|it| it.transaction_id).collect();
        let mut expected = expected.to_vec();
        expected.retain(|id| account_id != "bob" || *id != capturing.transaction_id);
        // Both have the same time.
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "of {account_id:?}");
    }
    let again = client.transfer(request).await.expect("applied");
    assert!(again.replayed, "it is another call");
    assert_eq!(again.transaction.map(|it| it.transaction_id), Some(made.transaction_id));
    checker::assert_consistent(&database).await;
}
