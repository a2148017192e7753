//! Malformed queries, and the sizes of pages.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use crate::harness::{malformed::*, *};

on_both_databases! {
    malformed_ids_are_invalid_in_every_query,
    malformed_filters_of_accounts_are_invalid,
    malformed_filters_of_statements_are_invalid,
    malformed_filters_of_transactions_are_invalid,
    malformed_filters_of_holds_and_changes_are_invalid,
    forged_page_tokens_cause_no_error_of_the_database,
    impossible_times_are_invalid,
    a_missing_account_is_not_found_by_any_query,
    a_page_size_is_capped_and_not_negative,
    a_page_has_100_rows_by_default_and_1000_at_most,
}

async fn malformed_ids_are_invalid_in_every_query(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let (invalid, field) = (Reason::InvalidAccountId, "account_id");

    for id in &bad_account_ids() {
        let request = GetHoldRequest { hold_id: id.clone() };
        must_be_invalid(client.get_hold(request).await, Reason::InvalidHoldId, "hold_id", id);
        let request = account_named(id);
        must_be_invalid(client.get_account(request).await, invalid, field, id);
        let request = BatchGetAccountsRequest { account_ids: vec!["a".to_owned(), id.clone()] };
        must_be_invalid(client.batch_get_accounts(request).await, invalid, "account_ids[1]", id);
        let request =
            GetBalanceRequest { account_id: id.clone(), at_time: None, ..Default::default() };
        must_be_invalid(client.get_balance(request).await, invalid, field, id);
        must_be_invalid(client.list_entries(entries_of(id)).await, invalid, field, id);
        must_be_invalid(client.list_holds(holds_of(id)).await, invalid, field, id);
        must_be_invalid(client.list_account_changes(changes_of(id)).await, invalid, field, id);
        // An empty value is no filter.
        if !id.is_empty() {
            let answer = client.list_transactions(transactions_of(id)).await;
            must_be_invalid(answer, invalid, field, id);
        }
    }
}

async fn malformed_filters_of_accounts_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let any = ListAccountsRequest::default;
    let of_currency = |code: &str| ListAccountsRequest { currency_code: code.to_owned(), ..any() };
    let (currency, filter, label) =
        (Reason::InvalidCurrencyCode, Reason::InvalidFilter, Reason::InvalidLabels);
    let cases = [
        (of_currency("usd"), currency, "currency_code"),
        (of_currency("' OR 1=1"), currency, "currency_code"),
        (ListAccountsRequest { state: 99, ..any() }, filter, "state"),
        (ListAccountsRequest { state: -1, ..any() }, filter, "state"),
        (ListAccountsRequest { labels: labels(&[("a b", "")]), ..any() }, label, "labels"),
        (ListAccountsRequest { labels: labels(&[("a", "\u{0}")]), ..any() }, label, "labels[a]"),
        (ListAccountsRequest { page_size: -1, ..any() }, Reason::InvalidPageSize, "page_size"),
    ];

    for (request, expected, field) in cases {
        must_be_invalid(client.list_accounts(request.clone()).await, expected, field, request);
    }
}

async fn malformed_filters_of_statements_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;
    let any = || entries_of("a");
    let filter = Reason::InvalidFilter;
    let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let cases = [
        (ListEntriesRequest { after_sequence: -1, ..any() }, filter, "after_sequence"),
        (ListEntriesRequest { after_sequence: i64::MIN, ..any() }, filter, "after_sequence"),
        (ListEntriesRequest { order: 3, ..any() }, filter, "order"),
        (ListEntriesRequest { start_time: time(0, -1), ..any() }, filter, "start_time"),
        (ListEntriesRequest { start_time: time(i64::MAX, 0), ..any() }, filter, "start_time"),
        (ListEntriesRequest { end_time: time(0, 1_000_000_000), ..any() }, filter, "end_time"),
        (ListEntriesRequest { end_time: time(i64::MIN, 0), ..any() }, filter, "end_time"),
        (ListEntriesRequest { page_size: i32::MIN, ..any() }, Reason::InvalidPageSize, "page_size"),
    ];

    for (request, expected, field) in cases {
        must_be_invalid(client.list_entries(request.clone()).await, expected, field, request);
    }
    let descending = ListEntriesRequest { order: EntryOrder::Descending.into(), ..any() };
    client.list_entries(descending).await.expect("well-formed");
}

async fn malformed_filters_of_transactions_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    let many = (0..33).map(|number| (format!("key-{number}"), String::new())).collect();
    let of_kind = |kind| ListTransactionsRequest { kind, ..transactions_of("") };
    let with = |labels| ListTransactionsRequest { labels, ..transactions_of("") };
    let cases = [
        (of_kind(7), Reason::InvalidFilter, "kind"),
        (of_kind(-1), Reason::InvalidFilter, "kind"),
        (of_kind(i32::MAX), Reason::InvalidFilter, "kind"),
        (with(labels(&[("a b", "")])), Reason::InvalidLabels, "labels"),
        (with(labels(&[("a", "\u{0}")])), Reason::InvalidLabels, "labels[a]"),
        (with(many), Reason::InvalidLabels, "labels"),
    ];

    for (request, expected, field) in cases {
        // For all accounts and for one.
        let of_one = ListTransactionsRequest { account_id: "a".to_owned(), ..request.clone() };
        for request in [request, of_one] {
            let answer = client.list_transactions(request.clone()).await;
            must_be_invalid(answer, expected, field, request);
        }
    }
}

async fn malformed_filters_of_holds_and_changes_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;

    for state in [5, -1, i32::MIN] {
        let request = ListHoldsRequest { state, ..holds_of("a") };
        must_be_invalid(client.list_holds(request).await, Reason::InvalidFilter, "state", state);
    }
    let long = "A".repeat(100_000);
    let tokens =
        ["x", "a", " ", "\u{0}", "٣", "////", "AAAA", "AAAAAAAAAAAAAAAA", "' OR 1=1 --", &long];
    for token in tokens {
        let (invalid, field, page_token) =
            (Reason::InvalidPageToken, "page_token", || token.to_owned());
        let request = ListAccountsRequest { page_token: page_token(), ..Default::default() };
        let status = must_fail(client.list_accounts(request).await, invalid);
        assert_eq!(fields(&status), [field], "{token:?}");
        let request = ListHoldsRequest { page_token: page_token(), ..holds_of("a") };
        must_be_invalid(client.list_holds(request).await, invalid, field, token);
        let request = ListAccountChangesRequest { page_token: page_token(), ..changes_of("a") };
        must_be_invalid(client.list_account_changes(request).await, invalid, field, token);
        for account_id in ["", "a"] {
            let page_token = page_token();
            let request = ListTransactionsRequest { page_token, ..transactions_of(account_id) };
            must_be_invalid(client.list_transactions(request).await, invalid, field, token);
        }
    }
}

/// The token of another page of the same query: its digest with another cursor.
fn forged(token: &str, cursor: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let token = URL_SAFE_NO_PAD.decode(token).expect("base64");
    URL_SAFE_NO_PAD.encode([&token[..8], cursor.as_bytes()].concat())
}

async fn forged_page_tokens_cause_no_error_of_the_database(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let dated = DepositRequest { effective_time: Some(yesterday.into()), ..deposit("a", "1") };
    client.deposit(dated).await.expect("applied");
    freeze(&client, "a").await;
    unfreeze(&client, "a").await;
    let (min, max) = (i64::MIN, i64::MAX);
    let positions = [
        (format!("{min}:0"), false),
        (format!("{max}:0"), false),
        ("253402300800000000:1".to_owned(), false),
        (format!("0:{min}"), false),
        ("0:-1".to_owned(), false),
        (format!("0:{max}"), true),
        ("-62135596800000000:0".to_owned(), true),
        (format!("253402300799999999:{max}"), true),
    ];
    let numbers = [min, -1, 0, max].map(|number| (number.to_string(), true));
    let (create, effective) = (TimeBasis::CreateTime, TimeBasis::EffectiveTime);

    for (basis, cursors) in [(create, &numbers[..]), (effective, &positions)] {
        let time_basis = basis.into();
        for order in [EntryOrder::Ascending, EntryOrder::Descending] {
            let first = ListEntriesRequest {
                order: order.into(),
                time_basis,
                page_size: 1,
                ..entries_of("a")
            };
            let page = client.list_entries(first.clone()).await.expect("a page");
            for (cursor, is_possible) in cursors {
                let page_token = forged(&page.next_page_token, cursor);
                let answer =
                    client.list_entries(ListEntriesRequest { page_token, ..first.clone() });
                must_be_a_page_if(*is_possible, answer.await, cursor);
            }
        }
        let first = ListTransactionsRequest { time_basis, page_size: 1, ..transactions_of("a") };
        let page = client.list_transactions(first.clone()).await.expect("a page");
        for (cursor, is_possible) in cursors {
            let page_token = forged(&page.next_page_token, cursor);
            let request = ListTransactionsRequest { page_token, ..first.clone() };
            must_be_a_page_if(*is_possible, client.list_transactions(request).await, cursor);
        }
    }
    let first = ListAccountChangesRequest { page_size: 1, ..changes_of("a") };
    let page = client.list_account_changes(first.clone()).await.expect("a page");
    for (cursor, is_possible) in &numbers {
        let page_token = forged(&page.next_page_token, cursor);
        let request = ListAccountChangesRequest { page_token, ..first.clone() };
        must_be_a_page_if(*is_possible, client.list_account_changes(request).await, cursor);
    }
}

#[track_caller]
fn must_be_a_page_if<T: std::fmt::Debug>(
    is_possible: bool,
    answer: Result<T, Status>,
    cursor: &str,
) {
    match is_possible {
        true => drop(answer.unwrap_or_else(|status| panic!("{cursor}: {status:?}"))),
        false => must_be_invalid(answer, Reason::InvalidPageToken, "page_token", cursor),
    }
}

async fn impossible_times_are_invalid(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    let (first, last) = (-62_135_596_800, 253_402_300_799);
    let nanoseconds = [-1, -999, -1000, i32::MIN, 1_000_000_000, i32::MAX].map(|nanos| (0, nanos));
    let seconds = [first - 1, last + 1, i64::MIN, i64::MAX].map(|seconds| (seconds, 0));

    for (seconds, nanos) in nanoseconds.into_iter().chain(seconds) {
        let (invalid, time) = (Reason::InvalidFilter, Some(Timestamp { seconds, nanos }));
        let request =
            GetBalanceRequest { account_id: "a".to_owned(), at_time: time, ..Default::default() };
        must_be_invalid(client.get_balance(request).await, invalid, "at_time", time);
        for account_id in ["", "a"] {
            let any = || transactions_of(account_id);
            let request = ListTransactionsRequest { start_time: time, ..any() };
            must_be_invalid(client.list_transactions(request).await, invalid, "start_time", time);
            let request = ListTransactionsRequest { end_time: time, ..any() };
            must_be_invalid(client.list_transactions(request).await, invalid, "end_time", time);
        }
    }
}

async fn a_missing_account_is_not_found_by_any_query(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "empty").await;
    let of = |account_id: &str, at_time| {
        client.get_balance(GetBalanceRequest {
            account_id: account_id.to_owned(),
            at_time,
            ..Default::default()
        })
    };

    let answers = [
        ("list_entries", client.list_entries(entries_of("nobody")).await.map(drop)),
        ("list_holds", client.list_holds(holds_of("nobody")).await.map(drop)),
        ("list_account_changes", client.list_account_changes(changes_of("nobody")).await.map(drop)),
        ("list_transactions", client.list_transactions(transactions_of("nobody")).await.map(drop)),
        ("get_balance", of("nobody", None).await.map(drop)),
        ("get_balance at a time", of("nobody", Some(timestamp(0))).await.map(drop)),
    ];
    for (query, answer) in answers {
        let status = must_fail(answer.map(|()| query), Reason::AccountNotFound);
        assert_eq!(metadata(&status, "account_id"), "nobody", "{query}");
    }
    // An account without rows is there.
    assert_eq!(client.list_entries(entries_of("empty")).await.expect("a page").entries, []);
    assert_eq!(client.list_holds(holds_of("empty")).await.expect("a page").holds, []);
    let changes = client.list_account_changes(changes_of("empty")).await.expect("a page").changes;
    assert_eq!(changes, []);
}

async fn a_page_size_is_capped_and_not_negative(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "a", "10").await;
    place(&client, hold("a", "1")).await;
    freeze(&client, "a").await;
    let accounts = |page_size| ListAccountsRequest { page_size, ..Default::default() };
    let entries = |page_size| ListEntriesRequest { page_size, ..entries_of("a") };
    let holds = |page_size| ListHoldsRequest { page_size, ..holds_of("a") };
    let changes = |page_size| ListAccountChangesRequest { page_size, ..changes_of("a") };
    let transactions =
        |id: &str, page_size| ListTransactionsRequest { page_size, ..transactions_of(id) };

    for size in [0, 1, 1000, 1001, i32::MAX] {
        assert_eq!(client.list_accounts(accounts(size)).await.expect("a page").accounts.len(), 1);
        assert_eq!(client.list_entries(entries(size)).await.expect("a page").entries.len(), 1);
        assert_eq!(client.list_holds(holds(size)).await.expect("a page").holds.len(), 1);
        let page = client.list_account_changes(changes(size)).await.expect("a page");
        assert_eq!(page.changes.len(), 1);
        for account_id in ["", "a"] {
            let page = client.list_transactions(transactions(account_id, size)).await;
            assert_eq!(page.expect("a page").transactions.len(), 1);
        }
    }
    for size in [-1, i32::MIN] {
        let (invalid, field) = (Reason::InvalidPageSize, "page_size");
        must_be_invalid(client.list_holds(holds(size)).await, invalid, field, size);
        must_be_invalid(client.list_account_changes(changes(size)).await, invalid, field, size);
        must_be_invalid(
            client.list_transactions(transactions("", size)).await,
            invalid,
            field,
            size,
        );
    }
}

async fn a_page_has_100_rows_by_default_and_1000_at_most(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "a").await;
    post_many(&client, "a", 1003).await;

    for account_id in ["", "a"] {
        for (page_size, expected) in [(0, 100), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
            let request = ListTransactionsRequest { page_size, ..transactions_of(account_id) };
            let page = client.list_transactions(request).await.expect("a page");
            assert_eq!(page.transactions.len(), expected);
            assert!(!page.next_page_token.is_empty());
        }
    }
}
