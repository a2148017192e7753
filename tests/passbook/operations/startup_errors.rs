//! What cannot be used at the start, be it the database or a file: one line that says why, and an end.

use crate::harness::{
    caller::{Callers, entry, identity},
    postgres_servers::PostgresServer,
    *,
};

/// `serve` with this URL: its exit code and all that it says.
async fn serve(url: &str) -> (Option<i32>, String) {
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--database-wait", "0s"];
    let outcome = passbook(&arguments).await;
    assert_eq!(outcome.stdout, "", "it never said that it was ready");
    (outcome.code, outcome.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_one_clear_line() {
    let _turn = turn::take(Weight::Light).await;
    let server = PostgresServer::start().await;
    server.execute("CREATE ROLE alice LOGIN PASSWORD 'open-sesame'").await;
    server.require_passwords_of("alice");
    let address = server.address();
    // Bound, but nobody listens there for PostgreSQL's protocol.
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
        "error: none of the databases can be used: {nobody}: connection refused; \
         {silent}: no answer within 2 s\n"
    );
    assert_eq!(serve(&several).await, (Some(1), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_is_wrong_usage() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_policy_or_file_of_tokens_is_one_clear_line() {
    let callers =
        Callers::new(&[("billing", "billing-token")], &identity("billing", &["*"], &[""]));
    let of_callers = callers.arguments();
    let run = async |verb: &[&str]| {
        let arguments = verb.iter().copied().chain(of_callers.iter().map(String::as_str));
        passbook(&arguments.collect::<Vec<_>>()).await
    };
    let (tokens, policy) = (entry("billing", "billing-token"), identity("billing", &["*"], &[""]));
    for (wrong_tokens, wrong_policy, expected) in [
        (None, Some("[[identity]"), "policy.toml: line 1: "),
        (None, Some("[[identity]]\nname = \"a\"\nmethod = []\n"), "policy.toml: line 3: "),
        (
            None,
            Some("[[identity]]\nname = \"a\"\nmethods = [\"Depositt\"]\naccount_prefixes = []\n"),
            "Depositt",
        ),
        (Some("token = 1"), None, "tokens.toml: line 1: "),
        (Some("[[token]]\nidentity = \"billing\"\nsha256 = \"00\"\n"), None, "tokens.toml: "),
    ] {
        callers.set_tokens(wrong_tokens.unwrap_or(&tokens));
        callers.set_policy(wrong_policy.unwrap_or(&policy));
        for verb in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            let outcome = run(verb).await;
            let why = outcome.must_fail(2);
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }
    std::fs::remove_file(callers.policy_file()).expect("removed");
    let outcome = run(&["config", "check"]).await;
    let why = outcome.must_fail(2);
    assert!(why.contains("policy.toml: cannot be read: "), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_a_moment_late_is_waited_for() {
    let _turn = turn::take(Weight::Light).await;
    let mut postgres = PostgresServer::start().await;
    let url = postgres.url();
    postgres.crash();
    let starting = tokio::spawn({
        let url = url.clone();
        async move { Server::start_at(&url, &["--migrate"]).await }
    });
    // Long enough that it has tried.
    tokio::time::sleep(seconds(1)).await;
    assert!(!starting.is_finished(), "it waits");
    postgres.run().await;

    let server = starting.await.expect("it starts");
    open(&server.client(), "alice").await;
    let log = server.log();
    assert_eq!(log.matches("waiting for the database").count(), 1, "one line: {log}");
    assert!(log.contains("connection refused"), "{log}");

    // What will not pass is not waited for.
    let (_, address) = url.split_once('@').expect("a user");
    let (server, _) = address.rsplit_once('/').expect("a database");
    let nowhere = format!("postgres://postgres@{server}/nowhere");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &nowhere];
    let outcome = passbook(&arguments).await;
    assert!(outcome.must_fail(1).contains("\"nowhere\" does not exist"), "{}", outcome.stderr);
}
