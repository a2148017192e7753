//! Calls whose server or response is missing, and the exit codes that say so.

use std::{future::pending, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream},
};

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    a_lost_response_is_asked_for_under_the_same_id,
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, format!("http://{address}"))
}

/// Carries requests to the server and no response back, until it is dropped.
async fn carry_requests_only(client: TcpStream, server: SocketAddr) {
    let server = TcpStream::connect(server).await.expect("the server");
    let (mut requests, _responses) = client.into_split();
    let (mut ignored, mut to_server) = server.into_split();
    let ignore = async { copy(&mut ignored, &mut sink()).await };
    let _ = tokio::join!(copy(&mut requests, &mut to_server), ignore);
}

async fn a_lost_response_is_asked_for_under_the_same_id(kind: Kind) {
    let (_database, server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let (listener, target) = listen().await;
    let proxy = async {
        let (first, _) = listener.accept().await.expect("a connection");
        tokio::select! {
            () = carry_requests_only(first, server.address) => {}
            () = eventually("it is applied", async || {
                balance(&client, "alice").await == "10.00"
            }) => {}
        }
        let (mut second, _) = listener.accept().await.expect("another connection");
        let mut server = TcpStream::connect(server.address).await.expect("the server");
        let _ = copy_bidirectional(&mut second, &mut server).await;
        pending::<()>().await;
    };
    let arguments = ["deposit", "alice", "10.00", "USD", "--json", "--target", &target];

    let outcome = tokio::select! {
        outcome = passbook(&arguments) => outcome.must_succeed(),
        () = proxy => unreachable!("the proxy has no end"),
    };

    let response: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let announced: Value = serde_json::from_str(&outcome.stderr).expect("JSON");
    assert_eq!(response["replayed"], true, "{response}");
    assert_eq!(response["transaction"]["requestId"], announced["requestId"], "{response}");
    assert_eq!(balance(&client, "alice").await, "10.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_a_response_is_unknown_and_says_how_to_go_on() {
    let (listener, target) = listen().await;
    let silent = async {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let _ = connection.read_to_end(&mut Vec::new()).await;
    };
    let arguments = |rest: &[&'static str]| {
        let all = [&["deposit", "a", "1.00", "USD", "--timeout", "300ms"], rest].concat();
        all.into_iter().map(str::to_owned).chain([format!("--target={target}")])
    };
    let run = async |rest| {
        let arguments: Vec<String> = arguments(rest).collect();
        passbook(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };

    let (outcome, ()) = tokio::join!(run(&["--request-id", "r1"]), silent);

    assert_eq!(outcome.code, Some(7), "{}", outcome.stderr);
    let flags = format!("--target={target}");
    for line in [
        "request_id: r1",
        "error: no response within 300ms",
        "outcome     unknown",
        &format!(
            "next        to complete it, repeat it: passbook deposit a 1.00 USD --timeout 300ms \
             --request-id r1 {flags}"
        ),
        &format!("next        to ask: passbook request outcome r1 {flags}"),
        &format!("next        to give it up: passbook request fence r1 {flags}"),
    ] {
        assert!(outcome.stderr.lines().any(|it| it == line), "{line}\n{}", outcome.stderr);
    }
    // A repeat of the same words would open a second account.
    let open = ["account", "open", "--currency", "USD", "--timeout", "300ms", &flags];
    let outcome = passbook(&open).await;
    assert_eq!(outcome.code, Some(7), "{}", outcome.stderr);
    let (created, _) = outcome.stderr.split_once('\n').expect("the id");
    let account_id = created.strip_prefix("account_id: ").expect("the id");
    for line in [
        format!("next        repeat it: passbook {} {account_id}", open.join(" ")),
        format!("account_id  {account_id}"),
    ] {
        assert!(outcome.stderr.lines().any(|it| it == line), "{line}\n{}", outcome.stderr);
    }

    drop(listener);
    let outcome = run(&["--request-id", "r1"]).await;
    assert_eq!(outcome.code, Some(6), "{}", outcome.stderr);
    for words in
        ["cannot be reached: ", "passbook serve", "outcome     not_applied", "request_id  r1"]
    {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    let outcome = run(&["--request-id", "r1", "--json"]).await;
    let error = outcome.stderr.lines().last().expect("an error");
    let error: Value = serde_json::from_str(error).expect("JSON");
    assert_eq!(error["error"]["outcome"], "not_applied", "{error}");
    assert_eq!(error["error"]["requestId"], "r1", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_is_given_twice_is_an_error() {
    let (_database, server, client) = start_server(Kind::Sqlite).await;
    open(&client, "a").await;
    let target = format!("--target=http://{}", server.address);
    let deposit = ["deposit", "a", "1", "USD", "--label", "k=1", "--label", "k=2", &target];
    passbook(&deposit).await.must_fail_with(2, "--label k is given twice");
    let list = ["account", "list", "--label", "k=1", "--label", "k=2", &target];
    passbook(&list).await.must_fail_with(2, "--label k is given twice");
    assert_eq!(balance(&client, "a").await, "0.00");
    let dry = passbook(&["deposit", "a", "1", "USD", "--validate-only", &target]).await;
    assert!(dry.must_succeed().stdout.starts_with("validated: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_credential_or_a_right_is_denied() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let callers = Callers::new(&[("ann", "a-token")], &identity("ann", &["GetAccount"], &["x"]));
    let server = callers.serve(&database, &[]).await;
    let target = format!("http://{}", server.address);
    let token_file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token_file.path(), "a-token").expect("written");
    let token_file = token_file.path().to_str().expect("a plain path");

    let get = ["account", "get", "a", "--target", &target];
    let nobody = passbook(&get).await;
    let ann = passbook(&[&get[..], &["--token-file", token_file]].concat()).await;

    assert_eq!(nobody.code, Some(5), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("--token-file"), "{}", nobody.stderr);
    assert_eq!(ann.code, Some(5), "{}", ann.stderr);
    assert!(ann.stderr.contains("PERMISSION_DENIED"), "{}", ann.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_tables_and_json() {
    let (_database, server, client) = start_server(Kind::Sqlite).await;
    open(&client, "alice").await;
    let target = format!("http://{}", server.address);
    let table = passbook(&["stats", "write-path", "--target", &target]).await.must_succeed();
    assert!(table.stdout.contains("\ncommit_time (s)            1  0.0"), "{}", table.stdout);
    let json = passbook(&["stats", "write-path", "--json", "--target", &target]).await;
    let json: Value = serde_json::from_str(&json.must_succeed().stdout).expect("JSON");
    assert_eq!(json["commitTime"]["count"], "1", "{json}");
    let contended = ["stats", "contended-accounts", "--target", &target];
    let table = passbook(&contended).await.must_succeed();
    assert_eq!(table.stdout, "account_id  waits  waits_error  seconds_waited\n");
}
