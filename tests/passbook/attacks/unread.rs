//! Peers that do not read: what is kept for them is bounded, and dropped in time although they stay.

use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

use crate::{
    attacks::*,
    harness::{
        credentials::bearer,
        http2::{self, Raw},
    },
};

const PAGES: usize = 240;
/// The size of a page: 30 transactions of 20 legs and 32 labels, in bytes.
const PAGE_SIZE: usize = 180_000;

/// Transactions of which 30 have [`PAGE_SIZE`] bytes.
async fn fill(client: &Client) {
    open(client, "alice").await;
    let labels = (0..32).map(|it| (format!("label-{it}-{}", "k".repeat(40)), "v".repeat(60)));
    let labels: std::collections::BTreeMap<_, _> = labels.collect();
    let legs = vec![leg("alice", "1"); 20];
    let requests =
        (0..30).map(|_| PostTransactionRequest { labels: labels.clone(), ..post(&legs) }).collect();
    let batch = BatchPostTransactionsRequest { requests };
    let results = client.batch_post_transactions(batch).await.expect("an answer").results;
    for result in &results {
        made(result);
    }
    let pages = client.list_transactions(page()).await.expect("a page");
    let size = prost::Message::encoded_len(&pages);
    assert!((PAGE_SIZE..2 * PAGE_SIZE).contains(&size), "{size} bytes");
}

fn page() -> ListTransactionsRequest {
    ListTransactionsRequest { account_id: "alice".to_owned(), page_size: 30, ..Default::default() }
}

/// Sends this many calls for pages, and waits until some are shed, or until the server reads no further
/// because nobody reads its responses.
async fn ask_for_pages(target: &Target, raw: &mut Raw) {
    let before = target.shed("response_bytes", "identity").await;
    for _ in 0..PAGES {
        ask_for_a_page(raw).await;
    }
    let mut in_flight = 0.0;
    // A busy machine sheds some for the readers instead.
    eventually("more pages are asked for than may be unread", async || {
        // Fails if the server does not read on.
        let call = raw.unary(LIST_TRANSACTIONS, &page());
        let _ = raw.write(&call).await;
        tokio::time::sleep(ms(500)).await;
        let (had, has) = (in_flight, target.in_flight().await);
        in_flight = has;
        target.shed("response_bytes", "identity").await > before || (has > 0.0 && had == has)
    })
    .await;
}

async fn ask_for_a_page(raw: &mut Raw) {
    let call = raw.unary(LIST_TRANSACTIONS, &page());
    raw.write(&call).await.expect("written");
}

/// How many connections the server has closed because they were not read.
fn closed(target: &Target) -> usize {
    let message = "closing connections that do not read their responses";
    let lines = target.server.log_lines();
    let of_them = lines.iter().filter(|line| line["message"] == message);
    of_them.map(|line| line["connections"].as_u64().expect("a number") as usize).sum()
}

/// Waits until the server has closed so many connections.
async fn closes(target: &Target, count: usize) {
    eventually("the connections are closed", async || closed(target) >= count).await;
    target.in_flight_falls_to(0.0).await;
}

/// With flow control, and by not reading the socket.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_are_bounded_and_dropped_in_time() {
    let target = Target::start(&[]).await;
    fill(&target.client("a")).await;
    let address = target.server.address;
    let mut windowless = Raw::without_window(address, "Bearer a-token").await.expect("connected");
    ask_for_pages(&target, &mut windowless).await;
    let started = Instant::now();
    target.withstands("240 pages without a window", IDENTITY_MIB_MAX / 2).await;
    // Others have a budget of their own.
    target.client("b").list_transactions(page()).await.expect("served");
    let mut unread = Raw::never_reading(address, "Bearer b-token").await.expect("connected");
    ask_for_pages(&target, &mut unread).await;
    target.assert_memory("pages in a socket that is not read as well", IDENTITY_MIB_MAX);
    closes(&target, 2).await;
    times::promise("unread pages are dropped", started.elapsed(), seconds(40));
    target.client("a").list_transactions(page()).await.expect("the budget is returned");
}

/// The budget is the identity's, however many connections it has.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_on_many_connections_are_bounded() {
    const CONNECTIONS: usize = 9;
    let target = Target::start(&[]).await;
    fill(&target.client("a")).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let address = target.server.address;
        let mut raw = Raw::without_window(address, "Bearer a-token").await.expect("connected");
        for _ in 0..PAGES / 4 {
            ask_for_a_page(&mut raw).await;
        }
        connections.push(raw);
    }
    eventually("more pages are asked for than may be unread", async || {
        ask_for_a_page(&mut connections[0]).await;
        target.shed("response_bytes", "identity").await > 0.0
    })
    .await;
    target.withstands("9 x 60 pages on 9 connections", IDENTITY_MIB_MAX / 2).await;
    target.client("b").list_transactions(page()).await.expect("served");
}

/// Errors have no body, so no flow control bounds them.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_its_socket_is_not_read() {
    const CALLS: usize = 500;
    let target = Target::start(&[]).await;
    let mut raw = Raw::never_reading(target.server.address, "").await.expect("connected");
    let mut written = 0;
    let mut write = async || {
        let is_written = raw.write_calls(GET_ACCOUNT, &missing_account(), CALLS).await.is_ok();
        written += CALLS;
        is_written && written < 400 * CALLS
    };
    while write().await {}
    println!("{written} calls were written");
    assert!(written < 400 * CALLS, "the server reads on");
    target.withstands("errors that nobody reads", NOBODY_MIB_MAX / 4).await;
    let status = target.client("a").get_account(missing_account()).await.expect_err("not found");
    assert_eq!(status.code(), Code::NotFound, "others are served");
    // For its responses, or for its age if h2 has taken all of them.
    eventually("the connection is closed", async || raw.is_closed()).await;
    target.in_flight_falls_to(0.0).await;
}

/// h2 keeps room for as many calls as a connection ever had at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_denied_at_once_take_no_memory() {
    const CONNECTIONS: usize = 16;
    const CALLS: usize = 8192;
    let target = Target::start(&[]).await;
    let denied = async || target.admin.metrics().await.handled("GetAccount", "Unauthenticated");
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::connect(target.server.address, "").await.expect("connected");
        for _ in 0..CALLS / 512 {
            raw.write_calls(GET_ACCOUNT, &missing_account(), 512).await.expect("written");
        }
        connections.push(raw);
        let sent = (connections.len() * CALLS) as f64;
        eventually("all are denied", async || denied().await >= sent).await;
    }
    target.withstands("16 x 8192 calls that are denied", 32).await;
}

/// Most results of this stream are errors, which take no time and no queue.
#[tokio::test(flavor = "multi_thread")]
async fn unread_results_of_streams_are_bounded() {
    const STREAMS: usize = 64;
    /// What the streams of one identity may have: a quarter of the default of `queue_capacity`.
    const RESULTS_MAX: f64 = 2048.0;
    let target = Target::start(&[]).await;
    let address = target.server.address;
    let mut raw = Raw::without_window(address, "Bearer a-token").await.expect("connected");
    let requests = http2::framed(&StreamTransactionsRequest::default()).repeat(1024);
    for _ in 0..STREAMS {
        let stream = raw.open();
        let call = [raw.call(stream, STREAM), http2::data(stream, &requests)].concat();
        raw.write_data(&call, requests.len()).await.expect("written");
    }
    let results = async || target.admin.metrics().await.requests("rejected", "invalid_requests");
    eventually("results are there", async || results().await >= RESULTS_MAX).await;
    tokio::time::sleep(seconds(1)).await;
    let count = results().await;
    println!("{count} results of {}", STREAMS * 1024);
    // HTTP/2 has taken some of them before it knew the window.
    assert!(count < 6.0 * RESULTS_MAX, "{count} results");
    target.withstands("64 streams with unread results", 32).await;
    // The streams of others go on.
    open(&target.client("b"), "bob").await;
    let request = one_posting(post(&[leg("bob", "1")]));
    let requests = tokio_stream::iter([request]);
    let mut results = target.client("b").stream_transactions(requests).await.expect("a stream");
    let result = results.message().await.expect("no error").expect("a result");
    made(&result.result.expect("a result"));
    assert_eq!(closed(&target), 0, "the stream of b has waited for the end of those of a");
}

/// A large result counts as several.
#[tokio::test(flavor = "multi_thread")]
async fn unread_results_with_many_entries_are_fewer() {
    const STREAMS: usize = 16;
    const REQUESTS: usize = 150;
    let target = Target::start(&[]).await;
    open(&target.client("a"), "alice").await;
    let endpoint = Endpoint::from_shared(format!("http://{}", target.server.address));
    let endpoint = endpoint.expect("an address").initial_stream_window_size(1);
    let client = Client::over(endpoint.connect_lazy(), bearer("a-token"));
    let request = || {
        let posting = post(&vec![leg("alice", "1"); 100]);
        one_posting(PostTransactionRequest { labels: largest_labels(), ..posting })
    };
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        let requests: Vec<_> = (0..REQUESTS).map(|_| request()).collect();
        let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
        unread.push(client.stream_transactions(requests).await.expect("a stream"));
    }
    let mut version = 1;
    eventually("no more requests are applied", async || {
        let before = version;
        tokio::time::sleep(seconds(1)).await;
        version = get(&target.client("a"), "alice").await.version;
        version > 1 && version == before
    })
    .await;
    let applied = version - 1;
    println!("{applied} of {} requests were applied", STREAMS * REQUESTS);
    assert!(applied < 400, "{applied} of {} requests were applied", STREAMS * REQUESTS);
    target.withstands("16 streams with large unread results", 48).await;
    target.assert_memory("16 streams with large unread results", 64);
    drop(unread);
}

/// A batch with one request that waits, and errors that wait with it.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_batches_that_wait_are_bounded() {
    const BATCHES: usize = 100;
    let target = Target::start(&[]).await;
    open(&target.client("a"), "alice").await;
    let foreign = target.database.lock_account("alice").await;
    let mut batches = tokio::task::JoinSet::new();
    for _ in 0..BATCHES {
        let client = target.client("a");
        let mut requests = vec![PostTransactionRequest::default(); 999];
        requests.push(post(&[leg("alice", "1")]));
        let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
        batches.spawn(async move { client.batch_post_transactions(batch).await });
    }
    for _ in 0..=BATCHES / 2 {
        let answer = batches.join_next().await.expect("a batch");
        let status = answer.expect("no panic").expect_err("it is shed");
        assert_eq!(metadata(&status, "limit"), "response_bytes", "{status:?}");
        assert_eq!(outcome(&status), "not_applied");
    }
    let shed = async || target.shed("response_bytes", "identity").await;
    eventually("the others wait", async || {
        shed().await + target.in_flight().await == BATCHES as f64
    })
    .await;
    assert!(target.in_flight().await > 0.0, "all are shed");
    println!("{} of {BATCHES} batches were shed", shed().await);
    target.assert_memory("batches of errors", 96);
    drop(foreign);
}
