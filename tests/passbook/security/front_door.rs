//! Only gRPC calls with one credential pass.

use http::{Method, Request, StatusCode};
use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
use tonic::body::Body;

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
