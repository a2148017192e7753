//! Limits on calls and connections: excess is shed unread, with the name of the limit, and
//! callers within the limits are served.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use passbook::proto::admin_service_client::AdminServiceClient;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tonic::{Streaming, transport::Endpoint};
use tonic_types::StatusExt;
use tower::service_fn;

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    calls_beyond_an_identity_s_concurrency_limit_are_shed,
    throughput_holds_under_ten_times_the_load,
}

fn two_callers() -> Callers {
    let policy =
        [identity("east", &["read", "write"], &[""]), identity("west", &["read", "write"], &[""])];
    Callers::new(&[("east", "east-token"), ("west", "west-token")], &policy.concat())
}

/// A call that is in flight until this value is dropped.
async fn stay(client: &Client) -> Result<Streaming<WatchEntriesResponse>, Status> {
    client.watch_entries(watch("alice", 0)).await
}

pub fn assert_shed(status: &Status, limit: &str, scope: &str, max: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(reason(status), "OVERLOADED");
    assert_eq!(outcome(status), "not_applied");
    let names = ["limit", "scope", "max"].map(|name| metadata(status, name));
    assert_eq!(names, [limit, scope, max].map(str::to_owned), "{status:?}");
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay < seconds(1)), "{delay:?}");
}

async fn calls_beyond_an_identity_s_concurrency_limit_are_shed(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = two_callers();
    let arguments = ["--identity-calls-max", "2", "--calls-max", "3"];
    let server = callers.serve(&database, &arguments).await;
    let (east, west) = (server.client_of("east-token"), server.client_of("west-token"));
    east.create_account(account_of("alice", "USD")).await.expect("opened");

    let held = [stay(&east).await.expect("one"), stay(&east).await.expect("two")];
    let refused = deposit("alice", "1");
    let status = east.deposit(refused.clone()).await.expect_err("a third");
    assert_shed(&status, "calls", "identity", "2");
    let other = stay(&west).await.expect("another identity has calls of its own");
    let status = west.get_account(missing_account()).await.expect_err("a fourth in all");
    assert_shed(&status, "calls", "server", "3");
    // The operator still gets in.
    serving_status(&server, "").await;
    let admin = AdminServiceClient::new(server.channel());
    let status = admin.clone().get_write_path_stats(GetWritePathStatsRequest {}).await;
    assert_eq!(status.expect_err("without a token").code(), Code::Unauthenticated);

    drop(held);
    let end = Instant::now() + PATIENCE;
    let request_id = refused.request_id.clone();
    let resolve = GetRequestOutcomeRequest { request_id };
    let answer = loop {
        match east.get_request_outcome(resolve.clone()).await {
            Ok(answer) => break answer,
            Err(status) => assert!(Instant::now() < end, "the places are given back: {status:?}"),
        }
        tokio::time::sleep(ms(10)).await;
    };
    assert_eq!(answer.outcome(), RequestOutcome::NotSeen, "rejected requests have no effect");
    east.deposit(refused).await.expect("made now");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_an_identity_s_rate_are_shed() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = two_callers().serve(&database, &["--identity-rate-max", "10"]).await;
    let (east, west) = (server.client_of("east-token"), server.client_of("west-token"));

    let start = Instant::now();
    let mut served = 0;
    for _ in 0..40 {
        match east.get_account(missing_account()).await.expect_err("the account is missing") {
            status if status.code() == Code::NotFound => served += 1,
            status => assert_shed(&status, "call_rate", "identity", "10"),
        }
    }
    // A burst of ten, and ten more each second.
    let allowed = 10 + (start.elapsed().as_secs_f64() * 10.0).ceil() as u32;
    assert!((10..=allowed).contains(&served), "{served} were served, {allowed} allowed");
    let status = west.get_account(missing_account()).await.expect_err("the account is missing");
    assert_eq!(status.code(), Code::NotFound, "another identity has a rate of its own");
    tokio::time::sleep(ms(300)).await;
    let status = east.get_account(missing_account()).await.expect_err("the account is missing");
    assert_eq!(status.code(), Code::NotFound, "time brings new calls");
}

/// At ten a second, a thousand requests are as many as the calls of a hundred seconds.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_batch_counts_as_a_call_for_the_rate_of_calls() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = two_callers().serve(&database, &["--identity-rate-max", "10"]).await;
    let (east, west) = (server.client_of("east-token"), server.client_of("west-token"));
    let requests = vec![PostTransactionRequest::default(); 1000];
    let batch = BatchPostTransactionsRequest { requests };
    let answer = east.batch_post_transactions(batch.clone()).await.expect("one call is left");
    assert_eq!(answer.results.len(), 1000);
    let status = must_fail(east.batch_post_transactions(batch.clone()).await, Reason::Overloaded);
    assert_metadata(&status, &[("limit", "call_rate"), ("scope", "identity"), ("max", "10")]);
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > seconds(50)), "{delay:?}");
    west.batch_post_transactions(batch).await.expect("another identity has a rate of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_headers_beyond_their_limits_are_an_error() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let arguments = ["--message-size-max", "2048", "--header-size-max", "4096"];
    let server = Server::start_with(&database, &arguments).await;
    let client = server.client();
    open(&client, "alice").await;

    let mut long = deposit("alice", "1");
    long.description = "x".repeat(4000);
    let status = client.deposit(long).await.expect_err("too long");
    assert_too_large(&status, "message_size_max", "2048");

    for length in [4097, 8000, 64 * 1024, 120 * 1024] {
        let mut request = tonic::Request::new(deposit("alice", "1"));
        request.metadata_mut().insert("x-long", "x".repeat(length).parse().expect("ASCII"));
        let status = client.deposit(request).await.expect_err("too long a header");
        assert_too_large(&status, "header_size_max", "4096");
    }
    let mut request = tonic::Request::new(deposit("alice", "1"));
    request.metadata_mut().insert("x-long", "x".repeat(3000).parse().expect("ASCII"));
    client.deposit(request).await.expect("within the limit");
    assert_eq!(balance(&client, "alice").await, "1.00");
}

/// Streams beyond the limit of a connection wait at the client.
#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_connection_limit_wait_at_the_client() {
    let (_database, server, client) =
        start_server_with(Kind::Sqlite, &["--streams-per-connection-max", "2"]).await;
    open(&client, "alice").await;
    let watch = || async { client.watch_entries(watch("alice", 0)).await.expect("watched") };
    let (first, second) = (watch().await, watch().await);

    let third = client.clone();
    let waiting = tokio::spawn(async move { balance(&third, "alice").await });
    tokio::time::sleep(ms(500)).await;
    assert!(!waiting.is_finished(), "the connection has no more streams");
    assert_eq!(balance(&server.client(), "alice").await, "0.00", "another connection has");
    drop(first);

    let balance = tokio::time::timeout(PATIENCE, waiting).await.expect("a stream is free");
    assert_eq!(balance.expect("no panic"), "0.00");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_closed_without_cutting_calls() {
    const LIVES: usize = 5;
    let database = TestDatabase::create(Kind::Sqlite).await;
    let server = Server::start_with(&database, &["--connection-age-max", "700ms"]).await;
    let (client, connections) = counting_client(&server);
    open(&client, "alice").await;
    let mut entries = client.watch_entries(watch("alice", 0)).await.expect("watched");

    // Several lifetimes of a connection, with calls at every moment.
    let end = Instant::now() + PATIENCE;
    let (mut deposits, mut unsent) = (0, 0);
    while connections.load(Ordering::Relaxed) < LIVES {
        assert!(Instant::now() < end, "no new connection");
        let change = deposit("alice", "1");
        match client.deposit(change.clone()).await {
            Ok(_) => deposits += 1,
            // tonic's client does not retry calls that meet a closing connection; other gRPC
            // clients do.
            Err(status) => {
                assert!(std::error::Error::source(&status).is_some(), "cut by us: {status:?}");
                let kept = request_outcome(&server.client(), &change.request_id).await;
                assert_eq!(kept, not_seen(false));
                unsent += 1;
            }
        }
    }
    let connections = connections.load(Ordering::Relaxed);
    println!("{deposits} deposits on {connections} connections, {unsent} not sent");
    assert!(unsent <= connections, "more than one call met the end of one connection");
    assert!(deposits > LIVES, "{deposits} deposits");
    let mut received = 0;
    while received < deposits {
        let message = tokio::time::timeout(PATIENCE, entries.message()).await.expect("in time");
        received += message.expect("the stream continues").expect("and on").entries.len();
    }
}

/// A client that counts its connections.
fn counting_client(server: &Server) -> (Client, Arc<AtomicUsize>) {
    let (address, count) = (server.address, Arc::new(AtomicUsize::new(0)));
    let connections = count.clone();
    let connector = service_fn(move |_: Uri| {
        connections.fetch_add(1, Ordering::Relaxed);
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    (Client::anonymous(endpoint.connect_with_connector_lazy(connector)), count)
}

/// Ten times as many callers as there are permits. They retry after the delay that the error asks
/// for.
async fn throughput_holds_under_ten_times_the_load(kind: Kind) {
    const PLACES: usize = 40;
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let places = PLACES.to_string();
    let server = Server::start_with(&database, &["--queue-capacity", &places]).await;
    let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    open(&clients[0], "hot").await;
    let warm = drive(&clients, PLACES, seconds(1)).await;

    let best = drive(&clients, PLACES, seconds(2)).await;
    let much = drive(&clients, 10 * PLACES, seconds(2)).await;

    assert!(much.refused > 0, "more was asked than could be taken on");
    assert!(much.done > PLACES, "no place was used twice: {much:?}");
    let made = warm.done + best.done + much.done;
    assert_eq!(balance(&clients[0], "hot").await, format!("{made}.00"), "what was answered");
    let figure = format!("{kind:?}: {best:?} at best, {much:?} of ten times the load");
    // The callers use more of two cores than the server.
    times::figure(&figure, much.done * 10 >= best.done * 4);
    times::figure(&figure, much.p99 <= best.p99 * 5 + ms(100));
}

#[derive(Debug)]
struct Driven {
    done: usize,
    refused: usize,
    p99: std::time::Duration,
}

async fn drive(clients: &[Client], callers: usize, time: std::time::Duration) -> Driven {
    let end = Instant::now() + time;
    let mut calls = JoinSet::new();
    for caller in 0..callers {
        let client = clients[caller % clients.len()].clone();
        calls.spawn(async move {
            let (mut took, mut refused) = (Vec::new(), 0);
            while Instant::now() < end {
                let start = Instant::now();
                match client.deposit(within(PATIENCE, deposit("hot", "1"))).await {
                    Ok(_) => took.push(start.elapsed()),
                    Err(status) => {
                        assert_eq!(reason(&status), "OVERLOADED", "{status:?}");
                        refused += 1;
                        let info = status.get_details_retry_info();
                        let delay = info.and_then(|info| info.retry_delay).expect("a delay");
                        tokio::time::sleep(delay).await;
                    }
                }
            }
            (took, refused)
        });
    }
    let (mut took, mut refused) = (Vec::new(), 0);
    for (its, others) in calls.join_all().await {
        took.extend(its);
        refused += others;
    }
    took.sort();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    Driven { done: took.len(), refused, p99 }
}
