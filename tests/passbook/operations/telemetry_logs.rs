//! The log: one line per failed call, with a call id that is in the answer as well, and no
//! confidential data.

use serde_json::Value;
use tonic::{Request, metadata::MetadataMap};

use crate::harness::*;

on_both_databases! {
    every_response_has_a_call_id,
    errors_of_callers_are_not_logged_at_info,
    at_info_there_is_no_amount_and_no_id,
    the_log_of_an_unreadable_row_has_no_account_id,
    a_token_is_in_no_log_whatever_the_level,
}

const DEBUG: [&str; 4] = ["--log", "passbook=debug", NO_CALL_IS_SLOW[0], NO_CALL_IS_SLOW[1]];
/// No call counts as slow, even on a busy machine.
const NO_CALL_IS_SLOW: [&str; 2] = ["--slow-request-threshold", "5m"];

fn get_account(account_id: &str) -> Request<GetAccountRequest> {
    Request::new(account_named(account_id))
}

fn call_id(metadata: &MetadataMap) -> String {
    let value = metadata.get("x-request-id").expect("every answer has one");
    value.to_str().expect("a text").to_owned()
}

/// The lines that report finished calls of this method.
fn lines_of(server: &Server, method: &str) -> Vec<Value> {
    let is_of = |line: &Value| {
        line["method"] == format!("passbook.v1.AccountService/{method}") && line["code"].is_string()
    };
    server.log_lines().into_iter().filter(is_of).collect()
}

async fn every_response_has_a_call_id(kind: Kind) {
    let (_database, server, mut client) = start_server_with(kind, &DEBUG).await;
    open(&client, "a").await;

    let mut named = get_account("a");
    named.metadata_mut().insert("x-request-id", "checkout 7/a".parse().expect("a value"));
    let answer = client.raw.get_account(named).await.expect("it exists");
    assert_eq!(call_id(answer.metadata()), "checkout 7/a");

    let mut named = get_account("b");
    named.metadata_mut().insert("x-request-id", "checkout-8".parse().expect("a value"));
    let status = client.get_account(named).await.expect_err("it is missing");
    assert_eq!(call_id(status.metadata()), "checkout-8");
    assert_eq!(reason(&status), "ACCOUNT_NOT_FOUND");

    let first = client.raw.get_account(get_account("a")).await.expect("it exists");
    let second = client.raw.get_account(get_account("a")).await.expect("it exists");
    let (first, second) = (call_id(first.metadata()), call_id(second.metadata()));
    assert_ne!(first, second);
    assert!(uuid::Uuid::parse_str(&first).is_ok(), "{first}");

    let mut long = get_account("a");
    long.metadata_mut().insert("x-request-id", "x".repeat(129).parse().expect("a value"));
    let answer = client.raw.get_account(long).await.expect("it exists");
    assert!(uuid::Uuid::parse_str(&call_id(answer.metadata())).is_ok(), "it was too long");

    let lines = lines_of(&server, "GetAccount");
    let logged: Vec<_> = lines.iter().map(|line| (&line["call_id"], &line["code"])).collect();
    assert_eq!(logged.len(), 5, "{logged:?}");
    assert_eq!(logged[0], (&Value::from("checkout 7/a"), &Value::from("OK")));
    assert_eq!(logged[1], (&Value::from("checkout-8"), &Value::from("NotFound")));
    assert_eq!(logged[2].0, &Value::from(first));
    for line in &lines {
        let duration_ms = line["duration_ms"].as_f64().expect("a number");
        assert!(duration_ms > 0.0 && line["peer"].is_string(), "{line}");
        assert_eq!(line["level"], "DEBUG");
    }
}

async fn errors_of_callers_are_not_logged_at_info(kind: Kind) {
    let (_database, server, client) = start_server_with(kind, &NO_CALL_IS_SLOW).await;
    open(&client, "a").await;
    client.deposit(deposit("a", "1")).await.expect("applied");
    client.deposit(deposit("a", "x")).await.expect_err("it is malformed");
    client.withdraw(withdrawal("a", "5")).await.expect_err("too much");
    client.get_account(get_account("b")).await.expect_err("it is missing");
    let lines = server.log_lines();
    let of_calls: Vec<_> = lines.iter().filter(|line| line["message"] != "serving").collect();
    assert!(of_calls.is_empty(), "at info: {of_calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn database_failures_are_warned_of_at_a_limited_rate() {
    let (database, server, client) = start_server(Kind::Postgres).await;
    open(&client, "a").await;
    let (name, beside) = (database.name(), database.create_empty_beside(Kind::Postgres).await);
    beside.execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname =";
    beside.execute(&format!("{end} '{name}'")).await;
    let failed = join_all((0..100).map(|_| client.get_account(get_account("a")))).await;
    let unavailable = |answer: &Result<_, Status>| {
        answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
    };
    let unavailable = failed.iter().filter(|answer| unavailable(answer)).count();
    assert!(unavailable > 20, "{failed:?}");
    let lines = lines_of(&server, "GetAccount");
    assert!(!lines.is_empty() && lines.len() < unavailable, "{} lines", lines.len());
    let warned = lines.iter().filter(|line| line["code"] == "Unavailable");
    for line in warned {
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"call failed".into()));
    }
    // A line of the handler has the call's id.
    let is_of_a_call =
        |line: &Value| line["message"] == "read failed" && line["call_id"].as_str().is_some();
    assert!(server.log_lines().iter().any(is_of_a_call), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_warned_of() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let arguments = ["--slow-request-threshold", "100ms"];
    let (server, admin) = Server::start_with_admin(&database, &arguments).await;
    let client = server.client();
    open(&client, "a").await;
    database.execute("BEGIN IMMEDIATE").await;
    let mut named = Request::new(deposit("a", "1"));
    named.metadata_mut().insert("x-request-id", "slow-one".parse().expect("a value"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    named.metadata_mut().insert("traceparent", trace.parse().expect("a value"));
    let slow = tokio::spawn(async move { client.deposit(named).await });
    let waits = async || admin.metrics().await.value("passbook_queue_length") == 1.0;
    eventually("the deposit waits", waits).await;
    tokio::time::sleep(ms(150)).await;
    database.execute("COMMIT").await;
    slow.await.expect("the call").expect("applied");
    let lines = lines_of(&server, "Deposit");
    let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
    assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"slow call".into()));
    assert_eq!((&line["code"], &line["call_id"]), (&"OK".into(), &"slow-one".into()));
    // The caller's trace id, even without a collector.
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert!(line["duration_ms"].as_f64().expect("a number") >= 100.0, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_log_format_is_readable() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let arguments = ["--log-format", "console", "--log", "passbook=debug"];
    let server = Server::start_with(&database, &arguments).await;
    open(&server.client(), "a").await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("call ended")).expect("a line");
    assert!(
        line.contains("DEBUG")
            && line.contains("method=\"passbook.v1.AccountService/CreateAccount\""),
        "{line}"
    );
    assert!(!log.contains('\u{1b}'), "colors are for terminals");
}

async fn at_info_there_is_no_amount_and_no_id(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start_with(&database, &["--slow-request-threshold", "1us"]).await;
    let request_ids = serve_secrets(&server).await;
    let lines = server.log_lines();
    let slow = lines.iter().filter(|line| line["message"] == "slow call").count();
    assert!(slow > 3, "{slow} lines of what was done: {}", server.log());
    let secrets = ["zebra", "7391.73", "hush-"].into_iter().map(str::to_owned);
    for secret in secrets.chain(request_ids) {
        assert!(!server.log().contains(&secret), "{secret} in:\n{}", server.log());
    }
}

/// An unreadable row has an id that the database operator may see and the log may not.
async fn the_log_of_an_unreadable_row_has_no_account_id(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "zebra-77", "5").await;
    database.execute("UPDATE accounts SET labels = '[7]' WHERE account_id = 'zebra-77'").await;
    let read = client.get_account(get_account("zebra-77")).await;
    must_fail(read, Reason::Internal);
    must_fail(client.deposit(deposit("zebra-77", "1")).await, Reason::Internal);
    let lines = server.log_lines();
    for message in ["read failed", "database refused a batch", "call failed"] {
        let line = lines.iter().find(|line| line["message"] == message);
        assert_eq!(line.unwrap_or_else(|| panic!("{message} in {lines:?}"))["level"], "ERROR");
    }
    assert!(!server.log().contains("zebra"), "{}", server.log());
}

/// At level trace, h2, hyper, tonic and all others log as well.
async fn a_token_is_in_no_log_whatever_the_level(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start_with(&database, &["--log", "trace"]).await;
    serve_secrets(&server).await;
    let log = server.log();
    assert!(log.contains("\"TRACE\"") && log.contains("\"h2::"), "the libraries log:\n{log}");
    // As text, hexadecimal, a list of numbers, and base64.
    for secret in ["hush-hush", "68757368", "104, 117, 115, 104", "aHVzaC"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

/// Makes calls with confidential values, and returns the request ids.
async fn serve_secrets(server: &Server) -> Vec<String> {
    let client = server.client();
    open(&client, "zebra-77").await;
    let mut request_ids = Vec::new();
    let amounts = ["7391.73", "7391.73", "7391.731"];
    for amount in amounts {
        let message: DepositRequest = deposit("zebra-77", amount);
        request_ids.push(message.request_id.clone());
        let mut request = Request::new(message);
        let token = "Bearer hush-hush-0123456789-hush".parse().expect("a value");
        request.metadata_mut().insert("authorization", token);
        let answer = client.deposit(request).await;
        assert_eq!(answer.is_ok(), amount.len() == 7, "{answer:?}");
    }
    client.withdraw(withdrawal("zebra-77", "73917.3")).await.expect_err("too much");
    client.get_account(get_account("zebra-78")).await.expect_err("it is missing");
    request_ids
}
