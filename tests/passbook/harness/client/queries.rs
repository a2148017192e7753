//! Queries, and what tests assert of every list.

use passbook::proto::{get_transaction_request::Lookup, *};

pub fn transaction_by_id(transaction_id: &str) -> GetTransactionRequest {
    GetTransactionRequest { lookup: Some(Lookup::TransactionId(transaction_id.to_owned())) }
}

pub fn transaction_by_request_id(request_id: &str) -> GetTransactionRequest {
    GetTransactionRequest { lookup: Some(Lookup::RequestId(request_id.to_owned())) }
}

pub fn entries_of(account_id: &str) -> ListEntriesRequest {
    ListEntriesRequest { account_id: account_id.to_owned(), ..Default::default() }
}

pub fn holds_of(account_id: &str) -> ListHoldsRequest {
    ListHoldsRequest { account_id: account_id.to_owned(), ..Default::default() }
}

pub fn changes_of(account_id: &str) -> ListAccountChangesRequest {
    ListAccountChangesRequest { account_id: account_id.to_owned(), ..Default::default() }
}

/// The transactions of this account, or of all accounts if the id is empty.
pub fn transactions_of(account_id: &str) -> ListTransactionsRequest {
    ListTransactionsRequest { account_id: account_id.to_owned(), ..Default::default() }
}

/// Reads a list to its end. Returns a Vec of pages.
macro_rules! all_pages {
    ($client:ident.$rpc:ident($request:expr).$items:ident) => {{
        let mut request = $request;
        let mut pages = Vec::new();
        loop {
            let page = $client.clone().$rpc(request.clone()).await.expect("a page");
            pages.push(page.$items);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break pages;
            }
            assert!(pages.len() < 100, "paging does not end");
        }
    }};
}
pub(crate) use all_pages;

/// Sends another query with the page token of the first, which is an error. Returns the rows that
/// the token leads to: the page size is not part of the query.
macro_rules! rest_of_the_only_query {
    ($client:ident.$rpc:ident($first:expr).$items:ident, $others:expr) => {{
        let first = $first;
        let page = $client.$rpc(first.clone()).await.expect("a page");
        let mut same = first;
        same.page_token = page.next_page_token;
        for other in $others(same.clone()) {
            let answer = $client.$rpc(other.clone()).await;
            let status = must_fail(answer, Reason::InvalidPageToken);
            assert_eq!(fields(&status), ["page_token"], "{other:?}");
        }
        same.page_size = 9;
        $client.$rpc(same).await.expect("the rest").$items
    }};
}
pub(crate) use rest_of_the_only_query;
