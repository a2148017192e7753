use prost_types::Timestamp;

use crate::harness::*;

on_both_databases! {
    transactions_are_listed_latest_first_a_page_at_a_time,
    transactions_of_one_account_are_listed_in_the_order_of_its_entries,
    a_transaction_with_several_legs_on_an_account_is_listed_once,
    transactions_are_filtered_by_kind,
    transactions_are_filtered_by_labels,
    transactions_are_filtered_by_time,
    all_filters_together_must_match,
    requests_without_a_transaction_are_never_listed,
    reversed_transactions_name_their_reversal,
    a_page_token_of_another_query_is_invalid,
}

/// Labels, or accounts with amounts.
type Pairs = &'static [(&'static str, &'static str)];

async fn all_pages(client: &Client, first: ListTransactionsRequest) -> Vec<Vec<Transaction>> {
    all_pages!(client.list_transactions(first).transactions)
}

/// All transactions, asserted equal for every page size.
async fn list(client: &Client, request: ListTransactionsRequest) -> Vec<Transaction> {
    let all = all_pages(client, request.clone()).await;
    assert_eq!(all.len(), 1, "fewer than a page");
    for page_size in [1, 2, 3] {
        let pages = all_pages(client, ListTransactionsRequest { page_size, ..request.clone() });
        let pages = pages.await;
        let lengths: Vec<_> = pages.iter().map(Vec::len).collect();
        let (last, full) = lengths.split_last().expect("a page");
        assert!(full.iter().all(|length| *length == page_size as usize), "{lengths:?}");
        assert!(*last > 0 || all[0].is_empty(), "{lengths:?}");
        assert_eq!(pages.concat(), all[0]);
    }
    all.concat()
}

/// Accounts "alice" and "bob" with transactions of every kind, oldest first, as they were answered,
/// or as they are now if they were reversed.
async fn some_of_every_kind(client: &Client) -> Vec<Transaction> {
    let mut made = Vec::new();
    for account_id in ["alice", "bob"] {
        open(client, account_id).await;
        let request = DepositRequest {
            description: format!("for {account_id}"),
            labels: labels(&[("to", account_id), ("first", "yes")]),
            ..deposit(account_id, "100")
        };
        made.push(client.deposit(request).await.expect("applied").transaction);
    }
    let withdrawn = client.withdraw(withdrawal("alice", "1")).await.expect("applied");
    made.push(withdrawn.transaction);
    let moved = client.transfer(transfer("bob", "alice", "2")).await.expect("applied");
    made.push(moved.transaction);
    let request = PostTransactionRequest {
        labels: labels(&[("to", "alice")]),
        ..posting(&[("alice", "3"), ("bob", "-3"), ("alice", "-1")])
    };
    made.push(Some(posted(client, request).await));
    place(client, hold_named("h", "alice", "5")).await;
    made.push(captured(client, capture("h")).await.transaction);
    let mut made: Vec<_> = made.into_iter().map(|it| it.expect("a transaction")).collect();
    let undone = reversed(client, reversal(&made[2].transaction_id)).await;
    made[2].reversed_by_transaction_id = undone.transaction_id.clone();
    made.push(undone);
    made
}

fn reverse(mut transactions: Vec<Transaction>) -> Vec<Transaction> {
    transactions.reverse();
    transactions
}

fn on_account(transactions: &[Transaction], account_id: &str) -> Vec<Transaction> {
    let is_on = |it: &&Transaction| it.entries.iter().any(|it| it.account_id == account_id);
    transactions.iter().filter(is_on).cloned().collect()
}

async fn transactions_are_listed_latest_first_a_page_at_a_time(kind: Kind) {
    let (_database, servers, client) = start_two_servers(kind).await;
    assert!(list(&client, transactions_of("")).await.is_empty());
    let made = some_of_every_kind(&client).await;
    let kinds: std::collections::BTreeSet<_> = made.iter().map(|it| it.kind).collect();
    assert_eq!(kinds.len(), 6, "there is one of every kind");

    // The list has each transaction as it was answered, with all fields.
    assert_eq!(list(&servers[1].client(), transactions_of("")).await, reverse(made));
}

async fn transactions_of_one_account_are_listed_in_the_order_of_its_entries(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let made = some_of_every_kind(&client).await;
    open(&client, "empty").await;

    for account_id in ["alice", "bob"] {
        let expected = reverse(on_account(&made, account_id));
        assert!(expected.len() < made.len());
        assert_eq!(list(&client, transactions_of(account_id)).await, expected);
    }
    assert!(list(&client, transactions_of("empty")).await.is_empty());
}

async fn a_transaction_with_several_legs_on_an_account_is_listed_once(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_all(&client, &["alice", "bob"]).await;
    let mut made = Vec::new();
    let cases: [Pairs; 6] = [
        &[("alice", "1"), ("alice", "2"), ("alice", "3")],
        &[("bob", "1"), ("alice", "1"), ("bob", "1"), ("alice", "1")],
        &[("alice", "1")],
        &[("alice", "1"), ("alice", "1")],
        &[("bob", "1")],
        &[("alice", "1"), ("bob", "2"), ("alice", "3"), ("bob", "4"), ("alice", "5")],
    ];
    for legs in cases {
        made.push(posted(&client, posting(legs)).await);
    }

    for account_id in ["alice", "bob"] {
        let expected = reverse(on_account(&made, account_id));
        assert_eq!(list(&client, transactions_of(account_id)).await, expected);
    }
    assert_eq!(list(&client, transactions_of("")).await, reverse(made));
}

async fn transactions_are_filtered_by_kind(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let made = some_of_every_kind(&client).await;

    for kind in [
        TransactionKind::Deposit,
        TransactionKind::Withdrawal,
        TransactionKind::Transfer,
        TransactionKind::Posting,
        TransactionKind::Capture,
        TransactionKind::Reversal,
    ] {
        let of_kind: Vec<_> = made.iter().filter(|it| it.kind() == kind).cloned().collect();
        for account_id in ["", "alice"] {
            let request =
                ListTransactionsRequest { kind: kind.into(), ..transactions_of(account_id) };
            let expected = match account_id {
                "" => of_kind.clone(),
                _ => on_account(&of_kind, account_id),
            };
            assert!(!expected.is_empty(), "{kind:?}");
            assert_eq!(list(&client, request).await, reverse(expected));
        }
    }
}

async fn transactions_are_filtered_by_labels(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let sets: [Pairs; 6] = [
        &[],
        &[("a", "1")],
        &[("a", "1"), ("b", "2")],
        &[("a", "2")],
        &[("b", "1")],
        &[("a", ""), ("x.y/z", "it's \"1\" $1 ? \\ ä")],
    ];
    let mut made = Vec::new();
    for set in sets {
        let labels = labels(set);
        let request = PostTransactionRequest { labels, ..posting(&[("alice", "1")]) };
        made.push(posted(&client, request).await);
    }

    let cases: [(Pairs, &[usize]); 9] = [
        (&[], &[0, 1, 2, 3, 4, 5]),
        (&[("a", "1")], &[1, 2]),
        (&[("a", "1"), ("b", "2")], &[2]),
        (&[("b", "2"), ("a", "2")], &[]),
        (&[("a", "2")], &[3]),
        (&[("a", "")], &[5]),
        (&[("x.y/z", "it's \"1\" $1 ? \\ ä")], &[5]),
        (&[("A", "1")], &[]),
        (&[("1", "a")], &[]),
    ];
    for (wanted, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|index| made[*index].clone()).collect();
        for account_id in ["", "alice"] {
            let labels = labels(wanted);
            let request = ListTransactionsRequest { labels, ..transactions_of(account_id) };
            assert_eq!(list(&client, request).await, reverse(expected.clone()), "{wanted:?}");
        }
    }
}

/// Whether the time of a transaction is in this range.
fn is_within(it: &Transaction, start: Option<Timestamp>, end: Option<Timestamp>) -> bool {
    let key = |time: Timestamp| (time.seconds, time.nanos);
    let at = key(it.create_time.expect("a time"));
    start.is_none_or(|start| at >= key(start)) && end.is_none_or(|end| at < key(end))
}

async fn transactions_are_filtered_by_time(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let mut made = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            made.push(posted(&client, posting(&[("alice", "1"), ("alice", "2")])).await);
        }
        tokio::time::sleep(ms(5)).await;
    }
    let time = |index: usize| made[index].create_time;
    let moved = |index: usize, nanos: i32| {
        let time = time(index).expect("a time");
        Some(Timestamp { nanos: time.nanos.saturating_add(nanos).clamp(0, 999_999_999), ..time })
    };
    let far = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let (first, last) = (-62_135_596_800, 253_402_300_799);
    let ranges = [
        (None, None),
        (time(2), None),
        (None, time(2)),
        (time(2), time(4)),
        (time(4), time(2)),
        (time(3), time(3)),
        (moved(2, 1), None),
        (moved(2, -1), None),
        (None, moved(4, 1)),
        (None, moved(4, 1000)),
        (far(first), far(last)),
        (far(0), far(0)),
        (far(last), None),
        (None, far(first)),
        (None, far(1)),
    ];

    for (start_time, end_time) in ranges {
        let within: Vec<_> =
            made.iter().filter(|it| is_within(it, start_time, end_time)).cloned().collect();
        for account_id in ["", "alice"] {
            let request =
                ListTransactionsRequest { start_time, end_time, ..transactions_of(account_id) };
            let expected = reverse(within.clone());
            assert_eq!(list(&client, request).await, expected, "{start_time:?} {end_time:?}");
        }
    }
}

async fn all_filters_together_must_match(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let made = some_of_every_kind(&client).await;
    // A deposit to alice with these labels in this range. Each of the others differs in one filter.
    let right = made[0].clone();
    let end_time = Some(from_now(seconds(60)));
    let request = ListTransactionsRequest {
        kind: TransactionKind::Deposit.into(),
        start_time: right.create_time,
        end_time,
        labels: labels(&[("first", "yes"), ("to", "alice")]),
        ..transactions_of("alice")
    };
    let others = [
        ListTransactionsRequest { account_id: "bob".to_owned(), ..request.clone() },
        ListTransactionsRequest { kind: TransactionKind::Posting.into(), ..request.clone() },
        ListTransactionsRequest { start_time: end_time, end_time: None, ..request.clone() },
        ListTransactionsRequest { end_time: right.create_time, ..request.clone() },
        ListTransactionsRequest { labels: labels(&[("to", "bob")]), ..request.clone() },
    ];

    assert_eq!(list(&client, request.clone()).await, std::slice::from_ref(&right));
    let everyone = ListTransactionsRequest { account_id: String::new(), ..request };
    assert_eq!(list(&client, everyone).await, [right]);
    for other in others {
        assert!(list(&client, other.clone()).await.is_empty(), "{other:?}");
    }
}

async fn requests_without_a_transaction_are_never_listed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let made = deposited(&client, "alice", "1").await;
    place(&client, hold_named("h", "alice", "1")).await;
    released(&client, release("h")).await;
    must_fail(client.withdraw(withdrawal("alice", "2")).await, Reason::InsufficientFunds);
    must_fail(client.capture_hold(capture("h")).await, Reason::HoldNotOpen);
    fence(&client, "never").await;
    let dry = DepositRequest { validate_only: true, ..deposit("alice", "1") };
    client.deposit(dry).await.expect("valid");
    assert_eq!(database.count("requests").await, 6);

    for account_id in ["", "alice"] {
        assert_eq!(list(&client, transactions_of(account_id)).await, std::slice::from_ref(&made));
    }
}

async fn reversed_transactions_name_their_reversal(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let first = posted(&client, posting(&[("alice", "1"), ("alice", "2")])).await;
    let second = reversed(&client, reversal(&first.transaction_id)).await;
    let third = reversed(&client, reversal(&second.transaction_id)).await;

    for account_id in ["", "alice"] {
        let listed = list(&client, transactions_of(account_id)).await;
        let said: Vec<_> = listed
            .iter()
            .map(|it| {
                [&it.transaction_id, &it.reverses_transaction_id, &it.reversed_by_transaction_id]
            })
            .collect();
        let [first, second, third] = [&first, &second, &third].map(|it| &it.transaction_id);
        let none = &String::new();
        let expected = [[third, second, none], [second, first, third], [first, none, second]];
        assert_eq!(said, expected);
    }
}

async fn a_page_token_of_another_query_is_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    some_of_every_kind(&client).await;
    let time = Some(Timestamp { seconds: 1, nanos: 0 });

    for account_id in ["", "alice"] {
        let first = ListTransactionsRequest { page_size: 1, ..transactions_of(account_id) };
        let other_account = if account_id.is_empty() { "alice" } else { "" };
        let others = |same: ListTransactionsRequest| {
            [
                ListTransactionsRequest { account_id: other_account.to_owned(), ..same.clone() },
                ListTransactionsRequest { account_id: "bob".to_owned(), ..same.clone() },
                ListTransactionsRequest { kind: 1, ..same.clone() },
                ListTransactionsRequest { start_time: time, ..same.clone() },
                ListTransactionsRequest { end_time: time, ..same.clone() },
                ListTransactionsRequest { labels: labels(&[("a", "b")]), ..same.clone() },
                ListTransactionsRequest { page_token: "made up".to_owned(), ..same },
            ]
        };
        rest_of_the_only_query!(client.list_transactions(first).transactions, others);
    }
}
