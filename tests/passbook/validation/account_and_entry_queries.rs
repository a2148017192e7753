//! Malformed queries of accounts and entries.

use crate::harness::{malformed::*, *};
use passbook::proto::{
    BatchGetAccountsRequest, EntryOrder, GetAccountRequest, ListAccountsRequest, ListEntriesRequest,
};
use prost_types::Timestamp;

on_both_databases! {
    malformed_account_ids_are_refused_in_every_query,
    malformed_filters_of_accounts_are_refused,
    malformed_filters_of_statements_are_refused,
    a_page_size_is_capped_and_not_negative,
}

async fn malformed_account_ids_are_refused_in_every_query(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;

    for account_id in bad_account_ids() {
        let request = GetAccountRequest { account_id: account_id.clone() };
        assert_field_refused(client.get_account(request).await, "INVALID_ACCOUNT_ID", "account_id");
        let request = ListEntriesRequest { account_id: account_id.clone(), ..Default::default() };
        assert_field_refused(
            client.list_entries(request).await,
            "INVALID_ACCOUNT_ID",
            "account_id",
        );
        let request = BatchGetAccountsRequest { account_ids: vec!["a".to_owned(), account_id] };
        assert_field_refused(
            client.batch_get_accounts(request).await,
            "INVALID_ACCOUNT_ID",
            "account_ids[1]",
        );
    }
}

async fn malformed_filters_of_accounts_are_refused(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    let any = ListAccountsRequest::default;
    let cases = [
        (
            ListAccountsRequest { currency_code: "usd".into(), ..any() },
            "INVALID_CURRENCY_CODE",
            "currency_code",
        ),
        (
            ListAccountsRequest { currency_code: "' OR 1=1".into(), ..any() },
            "INVALID_CURRENCY_CODE",
            "currency_code",
        ),
        (ListAccountsRequest { state: 99, ..any() }, "INVALID_FILTER", "state"),
        (ListAccountsRequest { state: -1, ..any() }, "INVALID_FILTER", "state"),
        (
            ListAccountsRequest { labels: [("a b".to_owned(), String::new())].into(), ..any() },
            "INVALID_LABELS",
            "labels",
        ),
        (
            ListAccountsRequest { labels: [("a".to_owned(), "\u{0}".to_owned())].into(), ..any() },
            "INVALID_LABELS",
            "labels[a]",
        ),
        (ListAccountsRequest { page_size: -1, ..any() }, "INVALID_PAGE_SIZE", "page_size"),
        (
            ListAccountsRequest { page_token: "x".into(), ..any() },
            "INVALID_PAGE_TOKEN",
            "page_token",
        ),
    ];

    for (request, expected_reason, field) in cases {
        assert_field_refused(client.list_accounts(request).await, expected_reason, field);
    }
}

async fn malformed_filters_of_statements_are_refused(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;
    let any = || ListEntriesRequest { account_id: "a".to_owned(), ..Default::default() };
    let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let cases = [
        (ListEntriesRequest { after_sequence: -1, ..any() }, "INVALID_FILTER", "after_sequence"),
        (
            ListEntriesRequest { after_sequence: i64::MIN, ..any() },
            "INVALID_FILTER",
            "after_sequence",
        ),
        (ListEntriesRequest { order: 3, ..any() }, "INVALID_FILTER", "order"),
        (ListEntriesRequest { start_time: time(0, -1), ..any() }, "INVALID_FILTER", "start_time"),
        (
            ListEntriesRequest { start_time: time(i64::MAX, 0), ..any() },
            "INVALID_FILTER",
            "start_time",
        ),
        (
            ListEntriesRequest { end_time: time(0, 1_000_000_000), ..any() },
            "INVALID_FILTER",
            "end_time",
        ),
        (ListEntriesRequest { end_time: time(i64::MIN, 0), ..any() }, "INVALID_FILTER", "end_time"),
        (ListEntriesRequest { page_size: i32::MIN, ..any() }, "INVALID_PAGE_SIZE", "page_size"),
    ];

    for (request, expected_reason, field) in cases {
        assert_field_refused(client.list_entries(request).await, expected_reason, field);
    }
    let descending = ListEntriesRequest { order: EntryOrder::Descending.into(), ..any() };
    client.list_entries(descending).await.expect("well-formed");
}

async fn a_page_size_is_capped_and_not_negative(kind: Kind) {
    let (_database, _server, mut client) = start_server(kind).await;
    open_funded(&client, "a", "1").await;

    for page_size in [0, 1, 1000, 1001, i32::MAX] {
        let accounts = ListAccountsRequest { page_size, ..Default::default() };
        assert_eq!(
            client.list_accounts(accounts).await.expect("a page").into_inner().accounts.len(),
            1
        );
        let entries =
            ListEntriesRequest { account_id: "a".to_owned(), page_size, ..Default::default() };
        assert_eq!(
            client.list_entries(entries).await.expect("a page").into_inner().entries.len(),
            1
        );
    }
}
