//! Oversized messages are an error with the limit, and no answer is larger than a stock client
//! accepts.

use passbook::proto::account_service_client::AccountServiceClient;
use tokio_stream::StreamExt;
use tonic::{codec::CompressionEncoding, transport::Channel};

use crate::harness::*;

on_both_databases! {
    a_page_ends_before_its_answer_gets_too_large,
    a_batch_of_accounts_too_large_for_one_answer_is_an_error,
}

type Labels = std::collections::BTreeMap<String, String>;

/// The largest labels: 9.7 KB.
fn large_labels() -> Labels {
    (0..32).map(|at| (format!("{at:0>50}"), "v".repeat(256))).collect()
}

/// Accounts `a-000` and so on, each with large labels.
async fn open_large(client: &Client, count: usize) -> Vec<String> {
    let account_ids: Vec<_> = (0..count).map(|number| format!("a-{number:0>3}")).collect();
    let calls = account_ids.iter().map(|account_id| {
        let labels = large_labels();
        open_with(client, CreateAccountRequest { labels, ..account_of(account_id, "USD") })
    });
    join_all(calls).await;
    account_ids
}

async fn a_batch_of_accounts_too_large_for_one_answer_is_an_error(kind: Kind) {
    let (_database, _server, client) = start_loaded_server(kind).await;
    let account_ids = open_large(&client, 500).await;

    let request = BatchGetAccountsRequest { account_ids: account_ids.clone() };
    let status = client.batch_get_accounts(request).await.expect_err("4.9 MB");
    assert_reason(&status, Reason::ResponseTooLarge);
    let limit = (metadata(&status, "limit"), metadata(&status, "max"));
    assert_eq!(limit, ("response_size".into(), "4128768".into()));
    let request = BatchGetAccountsRequest { account_ids: account_ids[..400].to_vec() };
    let answer = client.batch_get_accounts(request).await.expect("3.9 MB");
    assert_eq!(answer.accounts.len(), 400);
}

/// The rows of these pages, and their number. A page has 1 MiB at most.
fn rows<T: Clone>(pages: &[Vec<T>]) -> (Vec<T>, usize) {
    assert!(pages.iter().all(|page| !page.is_empty()), "no page is empty here");
    (pages.concat(), pages.len())
}

async fn a_page_ends_before_its_answer_gets_too_large(kind: Kind) {
    const COUNT: usize = 500;
    let (_database, _server, client) = start_loaded_server(kind).await;
    let account_ids = open_large(&client, COUNT).await;
    open_funded(&client, "hot", "1000000").await;
    let calls = (0..COUNT).map(async |number| {
        let labels = large_labels();
        // Several entries on the account.
        let legs = [leg("hot", "1"), leg("hot", "1"), leg("hot", "-1")];
        posted(&client, PostTransactionRequest { labels: labels.clone(), ..post(&legs) }).await;
        let request = hold_named(&format!("h-{number:0>3}"), "hot", "1");
        place(&client, PlaceHoldRequest { labels, ..request }).await;
    });
    join_all(calls).await;
    for _ in 0..COUNT / 4 {
        for state in [AccountState::Frozen, AccountState::Open] {
            let answer = set_state(&client, &account_ids[0], state, &"x".repeat(200), None).await;
            answer.expect("it is set");
        }
    }

    let page_size = 1000;
    let request = ListAccountsRequest { page_size, ..Default::default() };
    let (accounts, pages) = rows(&all_pages!(client.list_accounts(request).accounts));
    let listed: Vec<_> = accounts.into_iter().map(|it| it.account_id).collect();
    let expected: Vec<_> = account_ids.iter().cloned().chain(["hot".to_owned()]).collect();
    assert_eq!((listed, pages), (expected, 5), "accounts");

    let request = ListHoldsRequest { page_size, ..holds_of("hot") };
    let (holds, pages) = rows(&all_pages!(client.list_holds(request).holds));
    let listed: Vec<_> = holds.into_iter().map(|it| it.hold_id).collect();
    let expected: Vec<_> = (0..COUNT).map(|number| format!("h-{number:0>3}")).collect();
    assert_eq!((listed, pages), (expected, 5), "holds");

    for account_id in ["hot", ""] {
        let request = ListTransactionsRequest { page_size, ..transactions_of(account_id) };
        let pages = all_pages!(client.list_transactions(request).transactions);
        let (transactions, pages) = rows(&pages);
        let mut listed: Vec<_> = transactions.into_iter().map(|it| it.transaction_id).collect();
        listed.sort();
        listed.dedup();
        assert_eq!((listed.len(), pages), (COUNT + 1, 6), "transactions of {account_id:?}");
    }

    let request = ListAccountChangesRequest { page_size, ..changes_of(&account_ids[0]) };
    let (changes, pages) = rows(&all_pages!(client.list_account_changes(request).changes));
    let versions: Vec<_> = changes.into_iter().map(|it| it.version).collect();
    let expected: Vec<_> = (2..).take(COUNT / 4 * 2).collect();
    assert_eq!((versions, pages), (expected, 5), "changes of an account");
}

/// A response is compressed only in return. The limit on messages is that of the decompressed ones.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_have_compressed_responses() {
    let (_database, server, client) = start_server(Kind::Sqlite).await;
    open(&client, "alice").await;
    let plain = || AccountServiceClient::new(server.channel());
    for (encoding, name) in
        [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")]
    {
        let accepting = || plain().accept_compressed(encoding);
        let encoding_of = async |mut client: AccountServiceClient<Channel>| {
            let response = client.deposit(deposit("alice", "1")).await.expect("applied");
            let encoding = response.metadata().get("grpc-encoding").cloned();
            encoding.map(|it| it.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(encoding_of(accepting().send_compressed(encoding)).await.as_deref(), Some(name));
        assert_eq!(encoding_of(plain().send_compressed(encoding)).await, None);
        assert_eq!(encoding_of(accepting()).await, None);
        // Messages of watchers are encoded once for all.
        let mut watching = accepting().send_compressed(encoding);
        let watched = watching.watch_entries(watch("alice", 0)).await.expect("a stream");
        assert_eq!(watched.metadata().get("grpc-encoding"), None);
        let huge = DepositRequest { description: "x".repeat(2 << 20), ..deposit("alice", "1") };
        let status = plain().send_compressed(encoding).deposit(huge.clone()).await;
        assert_too_large(&status.expect_err("too large"), "message_size_max", "1048576");
        let huge = PostTransactionRequest { description: huge.description, ..post(&[]) };
        let messages =
            tokio_stream::iter([one_posting(post(&[leg("alice", "1")])), one_posting(huge)]);
        let results = plain().send_compressed(encoding).stream_transactions(messages).await;
        let mut results = results.expect("a stream").into_inner();
        let first = results.message().await.expect("a result").expect("a result");
        made(&first.result.expect("a result"));
        let status = results.message().await.expect_err("too large");
        assert_too_large(&status, "message_size_max", "1048576");
    }
}

/// Earlier requests of the stream have their results. The oversized one and later ones are not
/// applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_ends_a_stream_after_the_results_before_it() {
    let (_database, _server, client) = start_server(Kind::Sqlite).await;
    open(&client, "alice").await;
    let mut requests: Vec<_> = (0..4).map(|_| post(&[leg("alice", "1")])).collect();
    requests[2].description = "x".repeat(1_100_000);
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut results = client.stream_transactions(messages).await.expect("a stream");

    for (number, request) in requests.iter().cloned().enumerate() {
        let _ = sender.send(one_posting(request)).await;
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
    assert_eq!(request_outcome(&client, &requests[2].request_id).await, not_seen(false));
}

/// A batch within the limit of requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_in_bytes_is_an_error_with_the_limit() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &["--message-size-max", "33554432"]).await;
    let standard = Server::start(&database).await;
    let client = server.client();
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
    assert_eq!(answer.results.len(), 1000);

    // With a higher limit the answer could be too large for the caller.
    let status = client.batch_post_transactions(batch(&large_labels())).await;
    assert_too_large(&status.expect_err("10 MB of results"), "response_size", "4128768");
    assert_eq!(balance(&client, "alice").await, "1000.00", "nothing of it was applied");
}
