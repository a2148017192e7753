//! Pages of rows that have all labels that a row can have.

use crate::attacks::*;

const ROWS: usize = 1000;
/// Rows in a batch, whose message has at most 1 MiB.
const ROWS_IN_BATCH: usize = 50;
/// Calls at the same time, each for a page of all rows.
const CALLS: usize = 24;
/// All rows have 10 MiB, so a call that kept them all would take 30 MiB. 24 MiB are those of the pages.
const MIB_MAX: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_large_accounts_take_little_memory() {
    let target = Target::start(&[]).await;
    let a = target.client("a");
    let ids: Vec<String> = (0..ROWS).map(|it| format!("account-{it}")).collect();
    for part in ids.chunks(ROWS_IN_BATCH) {
        let account =
            |id| CreateAccountRequest { labels: largest_labels(), ..account_of(id, "USD") };
        let requests = part.iter().map(|id| account(id)).collect();
        a.batch_create_accounts(BatchCreateAccountsRequest { requests }).await.expect("results");
    }
    assert_eq!(target.database.count("accounts").await as usize, ROWS + 1);

    let page = || ListAccountsRequest { page_size: 1000, ..ListAccountsRequest::default() };
    let lists = (0..CALLS).map(|_| a.list_accounts(page()));
    for result in join_all(lists).await {
        let rows = result.expect("a page").accounts.len();
        assert!((50..ROWS).contains(&rows), "{rows} accounts");
    }
    let wanted = || BatchGetAccountsRequest { account_ids: ids.clone() };
    for result in join_all((0..CALLS).map(|_| a.batch_get_accounts(wanted()))).await {
        must_fail(result, Reason::ResponseTooLarge);
    }
    target.assert_memory("pages of large accounts", MIB_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_large_transactions_take_little_memory() {
    let target = Target::start(&[]).await;
    let a = target.client("a");
    for _ in 0..ROWS / ROWS_IN_BATCH {
        let posting =
            |_| PostTransactionRequest { labels: largest_labels(), ..posting(&[("of-b", "1")]) };
        let requests = (0..ROWS_IN_BATCH).map(posting).collect();
        let results = a.batch_post_transactions(BatchPostTransactionsRequest { requests }).await;
        assert!(results.expect("results").results.iter().all(|it| !made(it).entries.is_empty()));
    }
    let in_order_of = |time_basis: TimeBasis, account_id: &str| ListTransactionsRequest {
        account_id: account_id.to_owned(),
        page_size: 1000,
        time_basis: time_basis.into(),
        ..ListTransactionsRequest::default()
    };
    for request in [
        in_order_of(TimeBasis::Unspecified, ""),
        in_order_of(TimeBasis::Unspecified, "of-b"),
        in_order_of(TimeBasis::EffectiveTime, "of-b"),
    ] {
        let lists = (0..CALLS).map(|_| a.list_transactions(request.clone()));
        for result in join_all(lists).await {
            let rows = result.expect("a page").transactions.len();
            assert!((50..ROWS).contains(&rows), "{rows} transactions");
        }
    }
    target.assert_memory("pages of large transactions", MIB_MAX);
}
