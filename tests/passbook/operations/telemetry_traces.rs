//! Traces: a call is a span of its caller's trace. The call and the database transaction that
//! executed it link to each other.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use tokio::{net::TcpListener, time::Instant};
use tonic::Request;

use crate::harness::{
    checker::hex,
    credentials::{Callers, authorization, bearer, identity},
    trace_collector::{Collector, attribute},
    *,
};

on_both_databases! {
    a_call_is_part_of_its_callers_trace,
    a_transaction_and_the_calls_that_it_served_are_linked_both_ways,
    a_call_whose_parent_is_not_sampled_is_not_traced,
}

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const DEPOSIT: &str = "passbook.v1.AccountService/Deposit";

/// A request with its caller's trace context and sampling decision.
fn traced<Message>(message: Message, is_sampled: bool) -> Request<Message> {
    let mut request = Request::new(message);
    let flags = if is_sampled { "01" } else { "00" };
    let parent = format!("00-{TRACE_ID}-{PARENT}-{flags}").parse().expect("a value");
    request.metadata_mut().insert("traceparent", parent);
    request.metadata_mut().insert("tracestate", "vendor=opaque".parse().expect("a value"));
    request
}

async fn start(database: &TestDatabase, collector: &Collector, arguments: &[&str]) -> Server {
    let endpoint = collector.endpoint();
    let mut all = vec!["--otlp-endpoint", &endpoint, "--log", "passbook=debug"];
    all.extend(arguments);
    Server::start_with(database, &all).await
}

/// Shuts the server down, which flushes its spans, and returns all spans.
async fn spans(mut server: Server, collector: &Collector) -> Vec<Span> {
    server.terminate();
    let status = server.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    collector.spans()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn id(span: &Span) -> (Vec<u8>, Vec<u8>) {
    (span.trace_id.clone(), span.span_id.clone())
}

fn links(span: &Span) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    span.links.iter().map(|link| (link.trace_id.clone(), link.span_id.clone())).collect()
}

async fn a_call_is_part_of_its_callers_trace(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let collector = Collector::start().await;
    let server = start(&database, &collector, &["--trace-sample-ratio", "0"]).await;
    let mut client = server.client();
    open(&client, "zebra-77").await;
    let answer = client.raw.deposit(traced(deposit("zebra-77", "7391.73"), true)).await;
    let answer = answer.expect("applied");
    let nobody = account_named("zebra-78");
    client.get_account(traced(nobody, true)).await.expect_err("it is missing");
    let lines = server.log_lines();

    let spans = spans(server, &collector).await;
    assert_eq!(collector.resource("service.name"), "passbook");
    assert_eq!(named(&spans, "passbook.v1.AccountService/CreateAccount").len(), 0, "ratio 0");
    let [call] = named(&spans, DEPOSIT)[..] else { panic!("one: {spans:?}") };
    assert_eq!((hex(&call.trace_id), hex(&call.parent_span_id)), (TRACE_ID.into(), PARENT.into()));
    assert_eq!(call.trace_state, "vendor=opaque");
    assert_eq!(call.kind(), SpanKind::Server);
    assert_eq!(attribute(call, "rpc.system.name"), "grpc");
    assert_eq!(attribute(call, "rpc.method"), DEPOSIT);
    assert_eq!(attribute(call, "rpc.response.status_code"), "OK");
    assert_eq!(attribute(call, "client.address"), "127.0.0.1");
    let call_id = answer.metadata().get("x-request-id").expect("an id").to_str().expect("text");
    assert_eq!(attribute(call, "rpc.response.metadata.x-request-id"), call_id);
    assert!(call.end_time_unix_nano > call.start_time_unix_nano);
    let [transaction] = named(&spans, "transaction")[..] else { panic!("one: {spans:?}") };
    assert_eq!(links(transaction), BTreeSet::from([id(call)]), "of the call that is recorded");
    assert_eq!(links(call), BTreeSet::from([id(transaction)]));
    // A rejection by the caller's fault is no error of the span.
    let [failed] = named(&spans, "passbook.v1.AccountService/GetAccount")[..] else {
        panic!("one: {spans:?}")
    };
    assert_eq!(attribute(failed, "rpc.response.status_code"), "NOT_FOUND");
    let status = failed.status.clone().unwrap_or_default();
    assert_eq!(status.code(), StatusCode::Unset, "{failed:?}");
    let text = format!("{spans:?}");
    assert!(!text.contains("zebra") && !text.contains("7391.73"), "{text}");

    let line = lines.iter().find(|line| line["call_id"] == call_id);
    assert_eq!(line.expect("a line")["trace_id"], TRACE_ID);
}

async fn a_transaction_and_the_calls_that_it_served_are_linked_both_ways(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let collector = Collector::start().await;
    let server = start(&database, &collector, &[]).await;
    let client = server.client();
    open(&client, "a").await;
    deposit_at_once(&client, "a", 60).await;

    let requests = (0..5).map(|_| one_posting(post(&[leg("a", "1")])));
    let results = client.stream_transactions(tokio_stream::iter(requests)).await;
    let mut results = results.expect("results");
    while results.message().await.expect("a result").is_some() {}

    let spans = spans(server, &collector).await;
    let stream = named(&spans, "passbook.v1.AccountService/StreamTransactions");
    let calls = [named(&spans, DEPOSIT), stream].concat();
    assert_eq!(calls.len(), 61);
    let transactions = named(&spans, "transaction");
    assert!(transactions.len() > 1 && transactions.len() < 61, "{}", transactions.len());
    let mut served = BTreeSet::new();
    for transaction in &transactions {
        assert!(transaction.parent_span_id.is_empty(), "it has no parent");
        let size: usize = attribute(transaction, "passbook.batch_size").parse().expect("a number");
        // A stream may have several requests in the transaction, each with a link.
        assert_eq!(transaction.links.len(), size, "{transaction:?}");
        assert_eq!(attribute(transaction, "passbook.attempts"), "1");
        assert!(
            ["sqlite", "postgresql"].contains(&attribute(transaction, "db.system.name").as_str())
        );
        served.extend(links(transaction));
    }
    for call in calls {
        assert!(served.contains(&id(call)), "no transaction has a link to {call:?}");
        let of_call = links(call);
        assert!(!of_call.is_empty(), "{call:?}");
        for link in of_call {
            let transaction =
                transactions.iter().find(|it| id(it) == link).expect("its transaction");
            assert!(links(transaction).contains(&id(call)), "not both ways: {call:?}");
        }
    }
}

async fn a_call_whose_parent_is_not_sampled_is_not_traced(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let collector = Collector::start().await;
    let server = start(&database, &collector, &[]).await;
    let client = server.client();
    open(&client, "a").await;
    client.deposit(traced(deposit("a", "1"), false)).await.expect("applied");
    let lines = server.log_lines();
    let spans = spans(server, &collector).await;
    assert_eq!(named(&spans, DEPOSIT).len(), 0);
    assert_eq!(named(&spans, "transaction").len(), 1, "of the account");
    let is_deposit = |line: &&serde_json::Value| line["method"] == DEPOSIT;
    let line = lines.iter().find(is_deposit).expect("a line");
    assert_eq!(line["trace_id"], TRACE_ID, "in the log nevertheless");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_hanging_collector_delays_no_call() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    // A collector that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("a bound port"));
    for endpoint in [silent.as_str(), "http://127.0.0.1:9"] {
        let mut server = Server::start_with(&database, &["--otlp-endpoint", endpoint]).await;
        let client = server.client();
        let start = Instant::now();
        for number in 0..50 {
            open(&client, &format!("{}-{number}", endpoint.len())).await;
        }
        times::promise("fifty calls", start.elapsed(), seconds(5));
        server.terminate();
        let start = Instant::now();
        let status = server.wait(PATIENCE).await.expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", server.log());
        times::promise("the end", start.elapsed(), seconds(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_trace_endpoint_is_a_startup_error() {
    for wrong in ["localhost:4317", "ftp://127.0.0.1:1", "http://", "not a url"] {
        let outcome = passbook(&["serve", "--otlp-endpoint", wrong]).await;
        assert_eq!(outcome.code, Some(2), "{wrong}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("otlp-endpoint"), "{}", outcome.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_not_known_does_not_decide_what_is_traced() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let collector = Collector::start().await;
    let callers = Callers::new(&[("a", "a-token")], &identity("a", &["*"], &[""]));
    let endpoint = collector.endpoint();
    let arguments = ["--otlp-endpoint", endpoint.as_str(), "--trace-sample-ratio", "0"];
    let server = callers.serve(&database, &arguments).await;
    for credential in [authorization(None), bearer("wrong")] {
        let mut client = Client::over(server.channel(), credential);
        let denied = client.raw.get_account(traced(account_named("a"), true)).await;
        assert_eq!(denied.expect_err("denied").code(), Code::Unauthenticated);
    }
    let mut client = server.client_of("a-token");
    client
        .raw
        .list_holds(traced(
            ListHoldsRequest { account_id: "a".to_owned(), ..Default::default() },
            true,
        ))
        .await
        .expect_err("it is missing");

    let spans = spans(server, &collector).await;
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["passbook.v1.AccountService/ListHolds"], "of the known caller");
}
