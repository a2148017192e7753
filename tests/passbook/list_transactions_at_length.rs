//! ListTransactions where there are more of them than a page looks at, and few that match.

use passbook::proto::{
    BatchPostTransactionsRequest, Leg, ListTransactionsRequest, PostTransactionRequest,
    Transaction, TransactionKind,
};

use crate::harness::*;

on_both_databases! {
    a_page_that_looks_at_much_and_finds_little_is_not_the_last,
}

fn of_account(account_id: &str) -> ListTransactionsRequest {
    ListTransactionsRequest { account_id: account_id.to_owned(), ..Default::default() }
}

fn posting(amount: &str) -> PostTransactionRequest {
    let leg = Leg { account_id: "alice".to_owned(), amount: money(amount), condition: None };
    PostTransactionRequest { request_id: new_request_id(), legs: vec![leg], ..Default::default() }
}

async fn all_pages(client: &Client, first: ListTransactionsRequest) -> Vec<Vec<Transaction>> {
    let mut request = first;
    let mut pages = Vec::new();
    loop {
        let answer = client.clone().list_transactions(request.clone()).await.expect("a page");
        let answer = answer.into_inner();
        pages.push(answer.transactions);
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
        assert!(pages.len() < 100, "paging does not end");
    }
}

async fn a_page_that_looks_at_much_and_finds_little_is_not_the_last(kind: Kind) {
    let database = TestDatabase::create_for(kind, Weight::Heavy).await;
    let server = Server::start(&database).await;
    let mut client = server.client();
    open(&client, "alice").await;
    let rare = || [("rare".to_owned(), String::new())].into();
    let mut expected = Vec::new();
    for number in 0..23 {
        if [0, 1, 12].contains(&number) {
            let labels = rare();
            let request = PostTransactionRequest { labels, ..posting("2") };
            expected.push({
                let answer = client.post_transaction(request).await.expect("it is made");
                answer.into_inner().transaction.expect("a transaction")
            });
        }
        let requests = (0..1000).map(|_| posting("1")).collect();
        let request = BatchPostTransactionsRequest { requests };
        client.batch_post_transactions(request).await.expect("they are posted");
    }

    expected.reverse();
    for account_id in ["", "alice"] {
        for page_size in [1, 100] {
            let labels = rare();
            let request = ListTransactionsRequest { labels, page_size, ..of_account(account_id) };
            let pages = all_pages(&client, request).await;
            assert_eq!(pages.concat(), expected);
            assert!(pages[0].is_empty(), "the last 10,000 have none of them");
            assert!((3..=6).contains(&pages.len()), "{} pages", pages.len());
        }
        // Where nothing matches, there is an end all the same.
        let kind = TransactionKind::Transfer.into();
        let request = ListTransactionsRequest { kind, ..of_account(account_id) };
        assert_eq!(all_pages(&client, request).await, [[], [], []]);
    }
}
