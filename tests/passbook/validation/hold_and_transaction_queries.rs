//! Malformed queries of holds, transactions and changes.

use crate::harness::{malformed::*, *};
use passbook::proto::{
    GetBalanceRequest, GetHoldRequest, ListAccountChangesRequest, ListHoldsRequest,
    ListTransactionsRequest,
};
use prost_types::Timestamp;

on_both_databases! {
    malformed_ids_are_refused_in_every_query,
    malformed_filters_of_transactions_are_refused,
    malformed_filters_of_holds_and_changes_are_refused,
    invalid_timestamps_are_refused,
    a_page_size_is_capped_and_not_negative,
    a_page_has_100_rows_by_default_and_1000_at_most,
}

async fn with_an_account(kind: Kind) -> (TestDatabase, Server) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    open_funded(&server.client(), "a", "10").await;
    (database, server)
}

fn holds() -> ListHoldsRequest {
    ListHoldsRequest { account_id: "a".to_owned(), ..Default::default() }
}

fn changes() -> ListAccountChangesRequest {
    ListAccountChangesRequest { account_id: "a".to_owned(), ..Default::default() }
}

fn transactions() -> ListTransactionsRequest {
    ListTransactionsRequest::default()
}

async fn malformed_ids_are_refused_in_every_query(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();

    for name in bad_account_ids() {
        let request = GetHoldRequest { hold_id: name.clone() };
        assert_field_refused(client.get_hold(request).await, "INVALID_HOLD_ID", "hold_id");
        let (reason, field) = ("INVALID_ACCOUNT_ID", "account_id");
        let account_id = || name.clone();
        let request = ListHoldsRequest { account_id: account_id(), ..holds() };
        assert_field_refused(client.list_holds(request).await, reason, field);
        let request = ListAccountChangesRequest { account_id: account_id(), ..changes() };
        assert_field_refused(client.list_account_changes(request).await, reason, field);
        let request = GetBalanceRequest { account_id: account_id(), at_time: None };
        assert_field_refused(client.get_balance(request).await, reason, field);
        // An empty value is no filter.
        if !name.is_empty() {
            let request = ListTransactionsRequest { account_id: account_id(), ..transactions() };
            assert_field_refused(client.list_transactions(request).await, reason, field);
        }
    }
}

async fn malformed_filters_of_transactions_are_refused(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let many = (0..33).map(|number| (format!("key-{number}"), String::new())).collect();
    let cases = [
        (ListTransactionsRequest { kind: 7, ..transactions() }, "INVALID_FILTER", "kind"),
        (ListTransactionsRequest { kind: -1, ..transactions() }, "INVALID_FILTER", "kind"),
        (ListTransactionsRequest { kind: i32::MAX, ..transactions() }, "INVALID_FILTER", "kind"),
        (
            ListTransactionsRequest { labels: label("a b", ""), ..transactions() },
            "INVALID_LABELS",
            "labels",
        ),
        (
            ListTransactionsRequest { labels: label("a", "\u{0}"), ..transactions() },
            "INVALID_LABELS",
            "labels[a]",
        ),
        (ListTransactionsRequest { labels: many, ..transactions() }, "INVALID_LABELS", "labels"),
    ];

    for (request, reason, field) in cases {
        // For all accounts and for one.
        let of_one = ListTransactionsRequest { account_id: "a".to_owned(), ..request.clone() };
        for request in [request, of_one] {
            assert_field_refused(client.list_transactions(request).await, reason, field);
        }
    }
}

async fn malformed_filters_of_holds_and_changes_are_refused(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();

    for state in [5, -1, i32::MIN] {
        let request = ListHoldsRequest { state, ..holds() };
        assert_field_refused(client.list_holds(request).await, "INVALID_FILTER", "state");
    }
    let long = "A".repeat(100_000);
    for page_token in ["x", " ", "\u{0}", "AAAA", "' OR 1=1 --", "AAAAAAAAAAAAAAAA", &long] {
        let (reason, field, page_token) =
            ("INVALID_PAGE_TOKEN", "page_token", || page_token.to_owned());
        let request = ListHoldsRequest { page_token: page_token(), ..holds() };
        assert_field_refused(client.list_holds(request).await, reason, field);
        let request = ListAccountChangesRequest { page_token: page_token(), ..changes() };
        assert_field_refused(client.list_account_changes(request).await, reason, field);
        for account_id in ["", "a"] {
            let request = ListTransactionsRequest {
                account_id: account_id.to_owned(),
                page_token: page_token(),
                ..transactions()
            };
            assert_field_refused(client.list_transactions(request).await, reason, field);
        }
    }
}

async fn invalid_timestamps_are_refused(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();
    let (first, last) = (-62_135_596_800, 253_402_300_799);
    let cases = [
        (0, -1),
        (0, -999),
        (0, -1000),
        (0, i32::MIN),
        (0, 1_000_000_000),
        (0, i32::MAX),
        (first - 1, 0),
        (last + 1, 0),
        (i64::MIN, 0),
        (i64::MAX, 0),
    ];

    for (seconds, nanos) in cases {
        let (reason, time) = ("INVALID_FILTER", Some(Timestamp { seconds, nanos }));
        let request = GetBalanceRequest { account_id: "a".to_owned(), at_time: time };
        assert_field_refused(client.get_balance(request).await, reason, "at_time");
        for account_id in ["", "a"] {
            let any =
                || ListTransactionsRequest { account_id: account_id.to_owned(), ..transactions() };
            let request = ListTransactionsRequest { start_time: time, ..any() };
            assert_field_refused(client.list_transactions(request).await, reason, "start_time");
            let request = ListTransactionsRequest { end_time: time, ..any() };
            assert_field_refused(client.list_transactions(request).await, reason, "end_time");
        }
    }
}

async fn a_page_size_is_capped_and_not_negative(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();
    place(&client, hold("a", "1")).await;
    freeze(&client, "a").await;

    for page_size in [0, 1, 1000, 1001, i32::MAX] {
        let request = ListHoldsRequest { page_size, ..holds() };
        let page = client.list_holds(request).await.expect("a page").into_inner();
        assert_eq!(page.holds.len(), 1);
        let request = ListAccountChangesRequest { page_size, ..changes() };
        let page = client.list_account_changes(request).await.expect("a page").into_inner();
        assert_eq!(page.changes.len(), 1);
        for account_id in ["", "a"] {
            let account_id = account_id.to_owned();
            let request = ListTransactionsRequest { account_id, page_size, ..transactions() };
            let page = client.list_transactions(request).await.expect("a page").into_inner();
            assert_eq!(page.transactions.len(), 1);
        }
    }
    for page_size in [-1, i32::MIN] {
        let (reason, field) = ("INVALID_PAGE_SIZE", "page_size");
        let request = ListHoldsRequest { page_size, ..holds() };
        assert_field_refused(client.list_holds(request).await, reason, field);
        let request = ListAccountChangesRequest { page_size, ..changes() };
        assert_field_refused(client.list_account_changes(request).await, reason, field);
        let request = ListTransactionsRequest { page_size, ..transactions() };
        assert_field_refused(client.list_transactions(request).await, reason, field);
    }
}

async fn a_page_has_100_rows_by_default_and_1000_at_most(kind: Kind) {
    let (_database, server) = with_an_account(kind).await;
    let mut client = server.client();
    let leg =
        passbook::proto::Leg { account_id: "a".to_owned(), amount: money("1"), condition: None };
    for _ in 0..2 {
        let post = || passbook::proto::PostTransactionRequest {
            request_id: new_request_id(),
            legs: vec![leg.clone()],
            ..Default::default()
        };
        let requests = (0..501).map(|_| post()).collect();
        let request = passbook::proto::BatchPostTransactionsRequest { requests };
        client.batch_post_transactions(request).await.expect("all are posted");
    }

    for account_id in ["", "a"] {
        for (page_size, expected) in [(0, 100), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
            let account_id = account_id.to_owned();
            let request = ListTransactionsRequest { account_id, page_size, ..transactions() };
            let page = client.list_transactions(request).await.expect("a page").into_inner();
            assert_eq!(page.transactions.len(), expected);
            assert!(!page.next_page_token.is_empty());
        }
    }
}
