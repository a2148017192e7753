//! An unusable database or file ends the start with one line that gives the reason. While the
//! database is late, the server listens and is not ready.

use std::net::SocketAddr;

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    admin::ADMIN,
    certificates::Authority,
    credentials::{Callers, bearer, entry, identity},
    servers::{PostgresServer, free_port},
    *,
};

/// Runs `serve` with this URL. Returns its exit code and output.
async fn serve(url: &str) -> (Option<i32>, String) {
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--database-wait", "0s"];
    let outcome = passbook(&arguments).await;
    assert_eq!(outcome.stdout, "", "it never said that it was ready");
    (outcome.code, outcome.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_one_clear_line() {
    let _slot = slots::take(Load::Light).await;
    let server = PostgresServer::start().await;
    server.execute("CREATE ROLE alice LOGIN PASSWORD 'open-sesame'").await;
    server.require_passwords_of("alice");
    let address = server.address();
    // The port is bound, but does not speak PostgreSQL's protocol.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("a bound port");
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("a bound port")
    };

    for (place, expected) in [
        (format!("postgres@{nobody}/postgres"), format!("{nobody}: connection refused")),
        (format!("postgres@{silent}/postgres"), format!("{silent}: no answer within 2 s")),
        (
            format!("postgres@{address}/nowhere"),
            format!("{address}: database \"nowhere\" does not exist"),
        ),
        (
            format!("alice:wrong-word@{address}/postgres"),
            format!("{address}: password authentication failed for user \"alice\""),
        ),
        (
            format!("postgres:hidden-word@{address}/postgres?sslmode=require"),
            format!("{address}: error occurred while attempting to establish a TLS connection"),
        ),
        (
            "postgres:hidden-word@no-such-host.invalid:5432/postgres".to_owned(),
            "no-such-host.invalid:5432: ".to_owned(),
        ),
    ] {
        let (code, words) = serve(&format!("postgres://{place}")).await;

        let line = format!("error: cannot connect to the database at {expected}");
        assert_eq!(code, Some(1), "{place}: {words}");
        assert!(words.starts_with(&line), "{place}: {words}");
        assert_eq!(words.trim_end().lines().count(), 1, "{place}: {words}");
        assert!(!words.contains("-word"), "the password is repeated: {words}");
    }

    let several = format!("postgres://postgres@{nobody},{silent}/postgres");
    let expected = format!(
        "error: no database server can be used: {nobody}: connection refused; \
         {silent}: no answer within 2 s\n"
    );
    assert_eq!(serve(&several).await, (Some(1), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_url_is_a_usage_error() {
    for (url, why) in [
        ("mysql://127.0.0.1/db", "must begin with sqlite:// or postgres://"),
        ("postgres://127.0.0.1:port/db", "is not a valid URL"),
        ("postgres://127.0.0.1,/db", "is not a valid URL"),
        ("postgres://127.0.0.1/db?conect_timeout=1", "has an unknown parameter: conect_timeout"),
        ("sqlite::memory:", "must name a file"),
    ] {
        let (code, words) = serve(url).await;
        assert_eq!(code, Some(2), "{url}: {words}");
        assert!(words.contains(why), "{url}: {words}");
        assert_eq!(words.trim_end().lines().count(), 1, "{url}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_is_one_clear_line() {
    let (code, words) = serve("sqlite:///no/such/directory/passbook.db?mode=rwc").await;
    assert_eq!(code, Some(1), "{words}");
    let line = "error: cannot open the database file /no/such/directory/passbook.db: ";
    assert!(words.starts_with(line), "{words}");
    assert_eq!(words.trim_end().lines().count(), 1, "{words}");
}

/// The file alone is a whole copy then, as after `migrate up`.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_after_the_migration_leaves_no_log_beside_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passbook.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];

    let outcome = passbook(&[&serve[..], &["--contra-account", "USD=world"]].concat()).await;

    outcome.must_fail_with(2, "the account does not exist");
    let entries = std::fs::read_dir(folder.path()).expect("the folder");
    let names: Vec<_> = entries.map(|it| it.expect("an entry").file_name()).collect();
    assert_eq!(names, ["passbook.db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_policy_or_tokens_file_is_one_clear_line() {
    let callers =
        Callers::new(&[("billing", "billing-token")], &identity("billing", &["*"], &[""]));
    let of_callers = callers.arguments();
    let run = async |command: &[&str]| {
        let arguments = command.iter().copied().chain(of_callers.iter().map(String::as_str));
        passbook(&arguments.collect::<Vec<_>>()).await
    };
    let (tokens, policy) = (entry("billing", "billing-token"), identity("billing", &["*"], &[""]));
    for (wrong_tokens, wrong_policy, expected) in [
        (None, Some("[[identity]"), "policy.toml: line 1: "),
        (None, Some("[[identity]]\nname = \"a\"\nmethod = []\n"), "policy.toml: line 3: "),
        (
            None,
            Some("[[identity]]\nname = \"a\"\nknown_by = \"token\"\nmethods = [\"Depositt\"]\n"),
            "Depositt",
        ),
        // A policy of an older version.
        (
            None,
            Some("[[identity]]\nname = \"a\"\nmethods = []\naccount_prefixes = [\"\"]\n"),
            "identity \"a\": account_prefixes is no longer a field of an identity",
        ),
        (None, Some("[[identity]]\nname = \"a\"\nmethods = []\n"), "known_by is missing"),
        (Some("token = 1"), None, "tokens.toml: line 1: "),
        (Some("[[token]]\nidentity = \"billing\"\nsha256 = \"00\"\n"), None, "tokens.toml: "),
    ] {
        callers.set_tokens(wrong_tokens.unwrap_or(&tokens));
        callers.set_policy(wrong_policy.unwrap_or(&policy));
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            run(command).await.must_fail_with(2, expected);
        }
    }
    std::fs::remove_file(callers.policy_file()).expect("removed");
    run(&["config", "check"]).await.must_fail_with(2, "policy.toml: cannot be read: ");
}

/// A `database_url` at an address without a listener.
fn absent_database() -> String {
    format!("postgres://postgres@127.0.0.1:{}/postgres", free_port())
}

/// An unused local address.
fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_is_late_listens_and_is_not_ready_until_it_is_there() {
    let _slot = slots::take(Load::Light).await;
    let mut postgres = PostgresServer::start().await;
    let url = postgres.url();
    postgres.crash();
    let arguments = [&["--database-url", &url, "--migrate"][..], &ADMIN].concat();
    let server = Server::launch(free_address(), &arguments).await;

    for service in ["", "passbook.v1.AccountService"] {
        assert_eq!(
            serving_status(&server, service).await,
            ServingStatus::NotServing,
            "{service:?}"
        );
    }
    assert_eq!(serving_status(&server, "liveness").await, ServingStatus::Serving);
    let mut health = HealthClient::new(server.channel());
    let watch = health.watch(HealthCheckRequest::default()).await.expect("health is served");
    let mut watch = watch.into_inner();
    let first = watch.message().await.expect("the stream lives").expect("a status");
    assert_eq!(first.status(), ServingStatus::NotServing);
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut reflection = ServerReflectionClient::new(server.channel());
    let listed = reflection.server_reflection_info(tokio_stream::iter([list])).await;
    listed.expect("reflection is served");
    let client = server.client();
    let early = deposit("alice", "5.00");
    let error = must_fail(client.deposit(early.clone()).await, Reason::DatabaseUnavailable);
    assert_eq!(outcome(&error), "not_applied");
    assert_eq!(error.message(), "the server is starting and waits for its database");
    let admin = server.admin();
    assert_eq!(admin.get("/livez").await.0, 200);
    let not_ready = "not ready: starting, waiting for the database\n".to_owned();
    assert_eq!(admin.get("/readyz").await, (503, not_ready));
    assert_eq!(admin.metrics().await.value("passbook_ready"), 0.0);
    assert_eq!(server.stdout(), [""; 0], "it does not say that it is ready");

    tokio::join!(postgres.run(), is_served_without_a_gap(&server));

    let second = watch.message().await.expect("the stream lives").expect("a status");
    assert_eq!(second.status(), ServingStatus::Serving);
    open(&client, "alice").await;
    let answer = client.deposit(early).await.expect("the deposit is applied");
    assert!(!answer.replayed, "it was not applied before");
    assert_eq!(admin.get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(admin.metrics().await.value("passbook_ready"), 1.0);
    let ready = format!("ready: listening on {}, database postgres, ", server.address);
    eventually("it says so", async || server.stdout().iter().any(|it| it.starts_with(&ready)))
        .await;
    let log = server.log();
    assert_eq!(log.matches("waiting for the database").count(), 1, "one line: {log}");
    assert!(log.contains("connection refused"), "{log}");
}

/// Calls on new connections until the ledger answers. Earlier calls get an error that
/// asks them to retry.
async fn is_served_without_a_gap(server: &Server) {
    let nobody = account_named("nobody");
    eventually("it is served", async || {
        let answer = server.client().get_account(nobody.clone()).await;
        match reason(&answer.expect_err("the account is missing")).as_str() {
            "DATABASE_UNAVAILABLE" => false,
            "ACCOUNT_NOT_FOUND" => true,
            other => panic!("{other}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_asks_for_the_same_credentials_as_later() {
    let authority = Authority::new();
    authority.install(&authority.sign(&["localhost"], &[]));
    let callers =
        Callers::new(&[("billing", "billing-token")], &identity("billing", &["*"], &[""]));
    let settings = [authority.arguments(), callers.arguments().to_vec()].concat();
    let url = absent_database();
    let mut arguments = vec!["--database-url", &url];
    arguments.extend(settings.iter().map(String::as_str));
    let server = Server::launch(free_address(), &arguments).await;

    let channel = authority.connect(&server, None).await.expect("a connection by TLS");
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    let health = health.expect("health is public").into_inner();
    assert_eq!(health.status(), ServingStatus::NotServing);
    let nobody = Client::anonymous(channel.clone());
    must_fail(nobody.deposit(deposit("a", "1")).await, Reason::Unauthenticated);
    let billing = Client::over(channel, bearer("billing-token"));
    must_fail(billing.deposit(deposit("a", "1")).await, Reason::DatabaseUnavailable);
    assert!(server.client().deposit(deposit("a", "1")).await.is_err(), "not without TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_reported_at_once_even_if_the_database_is_late() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = taken.local_addr().map(|it| it.to_string()).expect("a bound port");
    let url = absent_database();
    for listeners in [
        ["--listen", &taken, "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &taken],
    ] {
        let arguments = [&["serve", "--database-url", &url][..], &listeners].concat();
        let outcome = passbook(&arguments).await;
        // One line: it did not report waiting.
        let why = outcome.must_fail(1);
        assert!(why.starts_with(&format!("cannot listen on {taken}: ")), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_its_database_ends_quietly_on_sigterm() {
    let mut server = Server::launch(free_address(), &["--database-url", &absent_database()]).await;
    let waits = async || server.log().contains("waiting for the database, up to 30 s");
    eventually("it waits", waits).await;

    server.terminate();

    let status = server.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert_eq!(server.log().lines().count(), 1, "{}", server.log());
    assert_eq!(server.stdout(), [""; 0], "it never was ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_not_waited_for_and_the_wait_ends() {
    let _slot = slots::take(Load::Light).await;
    let postgres = PostgresServer::start().await;
    let nowhere = format!("postgres://postgres@{}/nowhere", postgres.address());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &nowhere];
    passbook(&arguments).await.must_fail_with(1, "\"nowhere\" does not exist");

    let absent = absent_database();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-wait", "1s"];
    let outcome = passbook(&[&arguments[..], &["--database-url", &absent]].concat()).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let [waiting, error] = lines[..] else { panic!("{lines:?}") };
    assert!(waiting.contains("waiting for the database, up to 1 s"), "{waiting}");
    assert!(error.starts_with("error: cannot connect to the database at "), "{error}");
}
