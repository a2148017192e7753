//! Oversized messages are refused with the limit, and no answer is larger than a stock client
//! accepts.

use passbook::proto::{
    BatchGetAccountsRequest, BatchPostTransactionsRequest, CreateAccountRequest,
    FreezeAccountRequest, GetRequestOutcomeRequest, ListAccountChangesRequest, ListAccountsRequest,
    ListHoldsRequest, ListTransactionsRequest, PostTransactionRequest, RequestOutcome,
    StreamTransactionsRequest, UnfreezeAccountRequest,
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::harness::*;

on_both_databases! {
    a_page_ends_before_its_answer_gets_too_large,
    a_batch_of_accounts_too_large_for_one_answer_is_refused,
}

type Labels = std::collections::BTreeMap<String, String>;

/// The largest labels: 9.7 KB.
fn large_labels() -> Labels {
    (0..32).map(|at| (format!("{at:0>50}"), "v".repeat(256))).collect()
}

/// Accounts `a-000` and so on, each with large labels.
async fn open_large(client: &Client, count: usize) -> Vec<String> {
    let account_ids: Vec<_> = (0..count).map(|number| format!("a-{number:0>3}")).collect();
    let mut calls = JoinSet::new();
    for account_id in &account_ids {
        let request =
            CreateAccountRequest { labels: large_labels(), ..account_of(account_id, "USD") };
        let mut client = client.clone();
        calls.spawn(async move { client.create_account(request).await.expect("opened") });
    }
    calls.join_all().await;
    account_ids
}

async fn a_batch_of_accounts_too_large_for_one_answer_is_refused(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    let mut client = server.client();
    let account_ids = open_large(&client, 500).await;

    let request = BatchGetAccountsRequest { account_ids: account_ids.clone() };
    let status = client.batch_get_accounts(request).await.expect_err("4.9 MB");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "RESPONSE_TOO_LARGE",)
    );
    let limit = (metadata(&status, "limit"), metadata(&status, "max"));
    assert_eq!(limit, ("response_size".into(), "4128768".into()));
    let request = BatchGetAccountsRequest { account_ids: account_ids[..400].to_vec() };
    let answer = client.batch_get_accounts(request).await.expect("3.9 MB").into_inner();
    assert_eq!(answer.accounts.len(), 400);
}

/// Reads a list to its end. Returns the rows and the number of pages. No page exceeds the limit of
/// tonic's client.
async fn all<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> (Vec<T>, usize) {
    let (mut rows, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let (more, next) = page(token).await.expect("a page");
        assert!(!more.is_empty(), "no page is empty here");
        rows.extend(more);
        pages += 1;
        token = next;
        if token.is_empty() {
            return (rows, pages);
        }
    }
}

async fn a_page_ends_before_its_answer_gets_too_large(kind: Kind) {
    const COUNT: usize = 500;
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    let client = server.client();
    let account_ids = open_large(&client, COUNT).await;
    open_funded(&client, "hot", "1000000").await;
    let mut calls = JoinSet::new();
    for number in 0..COUNT {
        let mut client = client.clone();
        calls.spawn(async move {
            let labels = large_labels();
            // Several entries on the account.
            let legs = [leg("hot", "1"), leg("hot", "1"), leg("hot", "-1")];
            let posting = PostTransactionRequest { labels: labels.clone(), ..post(&legs) };
            client.post_transaction(posting).await.expect("posted");
            let mut request = hold("hot", "1");
            (request.hold_id, request.labels) = (format!("h-{number:0>3}"), labels);
            client.place_hold(request).await.expect("placed");
        });
    }
    calls.join_all().await;
    let mut operator = client.clone();
    for _ in 0..COUNT / 4 {
        let (account_id, reason) = (account_ids[0].clone(), "x".repeat(200));
        let request = FreezeAccountRequest { account_id, reason, ..Default::default() };
        operator.freeze_account(request.clone()).await.expect("frozen");
        let FreezeAccountRequest { account_id, reason, .. } = request;
        let request = UnfreezeAccountRequest { account_id, reason, ..Default::default() };
        operator.unfreeze_account(request).await.expect("unfrozen");
    }

    let page_size = 1000;
    let (accounts, pages) = all(async |page_token| {
        let request = ListAccountsRequest { page_size, page_token, ..Default::default() };
        let answer = client.clone().list_accounts(request).await?.into_inner();
        Ok((answer.accounts, answer.next_page_token))
    })
    .await;
    let listed: Vec<_> = accounts.into_iter().map(|it| it.account_id).collect();
    let expected: Vec<_> = account_ids.iter().cloned().chain(["hot".to_owned()]).collect();
    assert_eq!((listed, pages), (expected, 2), "accounts");

    let (holds, pages) = all(async |page_token| {
        let account_id = "hot".to_owned();
        let request = ListHoldsRequest { account_id, page_size, page_token, ..Default::default() };
        let answer = client.clone().list_holds(request).await?.into_inner();
        Ok((answer.holds, answer.next_page_token))
    })
    .await;
    let listed: Vec<_> = holds.into_iter().map(|it| it.hold_id).collect();
    let expected: Vec<_> = (0..COUNT).map(|number| format!("h-{number:0>3}")).collect();
    assert_eq!((listed, pages), (expected, 2), "holds");

    for account_id in ["hot", ""] {
        let (transactions, pages) = all(async |page_token| {
            let account_id = account_id.to_owned();
            let request =
                ListTransactionsRequest { account_id, page_size, page_token, ..Default::default() };
            let answer = client.clone().list_transactions(request).await?.into_inner();
            Ok((answer.transactions, answer.next_page_token))
        })
        .await;
        let mut listed: Vec<_> = transactions.into_iter().map(|it| it.transaction_id).collect();
        listed.sort();
        listed.dedup();
        assert_eq!((listed.len(), pages), (COUNT + 1, 2), "transactions of {account_id:?}");
    }

    let (changes, pages) = all(async |page_token| {
        let account_id = account_ids[0].clone();
        let request = ListAccountChangesRequest { account_id, page_size, page_token };
        let answer = client.clone().list_account_changes(request).await?.into_inner();
        Ok((answer.changes, answer.next_page_token))
    })
    .await;
    let versions: Vec<_> = changes.into_iter().map(|it| it.version).collect();
    let expected: Vec<_> = (2..).take(COUNT / 4 * 2).collect();
    assert_eq!((versions, pages), (expected, 2), "changes of an account");
}

/// Earlier requests of the stream have their results. The oversized one and later ones are not
/// applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_ends_a_stream_after_the_results_before_it() {
    let (_database, _server, mut client) = start_server(Kind::Sqlite).await;
    open(&client, "alice").await;
    let mut requests: Vec<_> = (0..4).map(|_| post(&[leg("alice", "1")])).collect();
    requests[2].description = "x".repeat(1_100_000);
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answer = client.stream_transactions(messages).await.expect("a stream");
    let mut results = answer.into_inner();

    for (number, request) in requests.iter().cloned().enumerate() {
        let _ = sender.send(StreamTransactionsRequest { request: Some(request) }).await;
        match results.next().await.expect("a result or the end") {
            Ok(_) => assert!(number < 2, "{number}"),
            Err(status) => {
                assert_too_large(&status, "message_size_max", "1048576");
                assert_eq!(number, 2);
                break;
            }
        }
    }

    assert_eq!(balance(&client, "alice").await, "2.00");
    let request_id = requests[2].request_id.clone();
    let resolve = GetRequestOutcomeRequest { request_id };
    let answer = client.get_request_outcome(resolve).await.expect("resolved").into_inner();
    assert_eq!(answer.outcome(), RequestOutcome::NotSeen);
}

/// A batch within the limit of requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_in_bytes_is_refused_with_the_limit() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &["--message-size-max", "33554432"]).await;
    let standard = Server::start(&database).await;
    let mut client = server.client();
    open(&client, "alice").await;
    let batch = |labels: &Labels| {
        let description = "x".repeat(1000);
        let request = PostTransactionRequest {
            description,
            labels: labels.clone(),
            ..post(&[leg("alice", "1")])
        };
        let again = |_| PostTransactionRequest { request_id: new_request_id(), ..request.clone() };
        BatchPostTransactionsRequest { requests: (0..1000).map(again).collect() }
    };
    let labels = (0..5).map(|at| (format!("label-{at}"), "v".repeat(200))).collect();

    let status = standard.client().batch_post_transactions(batch(&labels)).await;
    assert_too_large(&status.expect_err("2 MB"), "message_size_max", "1048576");
    let answer = client.batch_post_transactions(batch(&labels)).await.expect("within the limit");
    assert_eq!(answer.into_inner().results.len(), 1000);

    // With a higher limit the answer could be too large for the caller.
    let status = client.batch_post_transactions(batch(&large_labels())).await;
    assert_too_large(&status.expect_err("10 MB of results"), "response_size", "4128768");
    assert_eq!(balance(&client, "alice").await, "1000.00", "nothing of it was applied");
}
