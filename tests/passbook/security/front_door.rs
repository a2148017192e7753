//! Only gRPC calls with one credential pass, and every error has a reason.

use http::{Method, Request, StatusCode};
use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
use tonic::{body::Body, client::Grpc};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

const GRPC: &str = "application/grpc";

/// The status of HTTP and of gRPC.
async fn call(
    server: &Server,
    method: Method,
    content_type: &str,
    authorizations: &[&str],
) -> (StatusCode, Option<i32>) {
    let uri = format!("http://{}/passbook.v1.AccountService/GetAccount", server.address);
    let mut request = Request::builder().method(method).uri(uri).header("te", "trailers");
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    for authorization in authorizations {
        request = request.header("authorization", *authorization);
    }
    let http = Http::builder(TokioExecutor::new()).http2_only(true).build_http();
    let response = http.request(request.body(Body::empty()).expect("a request")).await;
    let response = response.expect("a response");
    let code = response.headers().get("grpc-status").and_then(|it| it.to_str().ok()?.parse().ok());
    (response.status(), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_grpc_calls_with_one_credential_pass() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let callers = Callers::new(&[("a", "a-token")], &identity("a", &["read"], &[""]));
    let server = callers.serve(&database, &[]).await;
    let own = ["Bearer a-token"];
    // Without a message the call is malformed, after it has passed.
    let passed = (StatusCode::OK, Some(Code::InvalidArgument as i32));
    for content_type in [GRPC, "application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(call(&server, Method::POST, content_type, &own).await, passed, "{content_type}");
    }
    for content_type in ["", "application/json", "application/grpc+json", "application/grpc-web"] {
        let answer = call(&server, Method::POST, content_type, &own).await;
        assert_eq!(answer, (StatusCode::UNSUPPORTED_MEDIA_TYPE, None), "{content_type:?}");
    }
    for method in [Method::GET, Method::PUT, Method::OPTIONS] {
        let answer = call(&server, method.clone(), GRPC, &own).await;
        assert_eq!(answer, (StatusCode::METHOD_NOT_ALLOWED, None), "{method}");
    }
    let unauthenticated = (StatusCode::OK, Some(Code::Unauthenticated as i32));
    for two in [["Bearer a-token", "Bearer a-token"], ["Bearer a-token", "Bearer other"]] {
        assert_eq!(call(&server, Method::POST, GRPC, &two).await, unauthenticated, "{two:?}");
    }
    assert!(!server.log().contains("call failed"), "no fault of the server: {}", server.log());
}

/// tonic would go on without a deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_timeout_is_an_error() {
    let (_database, _server, client) = start_server(Kind::Sqlite).await;
    open(&client, "a").await;
    let with_timeouts = |timeouts: &[&str]| {
        let mut request = tonic::Request::new(deposit("a", "1"));
        for timeout in timeouts {
            request.metadata_mut().append("grpc-timeout", timeout.parse().expect("a header"));
        }
        request
    };
    for timeouts in [&["5s"][..], &["5"], &["-5S"], &["S"], &[""], &["5S", "5S"]] {
        let status =
            must_fail(client.deposit(with_timeouts(timeouts)).await, Reason::InvalidMessage);
        assert_eq!(status.code(), Code::InvalidArgument, "{timeouts:?}");
        assert_eq!(metadata(&status, "field"), "grpc-timeout", "{timeouts:?}");
    }
    assert_eq!(balance(&client, "a").await, "0.00");
    client.deposit(with_timeouts(&["5S"])).await.expect("applied");
}

/// What tonic rejects, and its services for health and reflection.
#[tokio::test(flavor = "multi_thread")]
async fn errors_that_no_rpc_of_passbook_returns_have_a_reason() {
    let (_database, server, client) = start_server(Kind::Sqlite).await;
    for path in ["/passbook.v1.AccountService/None", "/none.v1.None/None"] {
        let mut grpc = Grpc::new(server.channel());
        grpc.ready().await.expect("connected");
        let codec = ProstCodec::<DepositRequest, DepositResponse>::default();
        let request = tonic::Request::new(deposit("a", "1"));
        let answer = grpc.unary(request, path.parse().expect("a path"), codec).await;
        must_fail(answer, Reason::Unimplemented);
    }
    let unknown = HealthCheckRequest { service: "none".to_owned() };
    let mut health = HealthClient::new(server.channel());
    must_fail(health.check(unknown.clone()).await, Reason::NameNotFound);
    must_fail(health.watch(unknown).await, Reason::NameNotFound);
    // Streams end with an error in their trailers.
    let symbol = MessageRequest::FileContainingSymbol("none.v1.None".to_owned());
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let mut reflection = ServerReflectionClient::new(server.channel());
    let answers = reflection.server_reflection_info(tokio_stream::iter([question])).await;
    let end = answers.expect("a stream").into_inner().message().await;
    must_fail(end, Reason::NameNotFound);
    let mut compressed = tonic::Request::new(tokio_stream::empty());
    compressed.metadata_mut().insert("grpc-encoding", "none".parse().expect("ASCII"));
    must_fail(client.stream_transactions(compressed).await, Reason::Unimplemented);
    let mut raw = Grpc::new(server.channel());
    raw.ready().await.expect("connected");
    // A message of another type, whose bytes are none of this one.
    let codec = ProstCodec::<GetAccountRequest, StreamTransactionsResponse>::default();
    let message = tokio_stream::iter([account_named("no message")]);
    let path = "/passbook.v1.AccountService/StreamTransactions".parse().expect("a path");
    let results = raw.streaming(tonic::Request::new(message), path, codec).await;
    let end = results.expect("a stream").into_inner().message().await;
    must_fail(end, Reason::InvalidMessage);
}
