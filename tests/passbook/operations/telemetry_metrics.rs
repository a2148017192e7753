//! Metrics count known calls exactly, with a bounded set of names and labels; and the other answers
//! of the admin port.

use std::collections::BTreeSet;

use tonic::{Request, client::Grpc};
use tonic_prost::ProstCodec;

use sea_orm::ConnectionTrait;

use crate::harness::{admin::Metrics, proxy::PostgresProxy, *};

/// Those that a server without authentication has.
const LIMITS: [&str; 7] =
    ["calls", "control_calls", "queue", "records", "request_bytes", "response_bytes", "watchers"];

on_both_databases! {
    known_calls_are_counted_exactly,
    prometheus_and_the_admin_service_agree,
    an_account_id_is_in_no_metric,
    methods_that_do_not_exist_are_counted_as_one,
    queue_length_and_watchers_are_metrics,
}

const MONITORING: &str = include_str!("../../../docs/operations/monitoring.md");
/// The documented metrics that need credentials, TLS or files that are read again.
const WITH_SETTINGS: [&str; 7] = [
    "passbook_files_in_force_timestamp_seconds",
    "passbook_files_reload_failed",
    "passbook_jwks_fetch_timestamp_seconds",
    "passbook_jwt_keys",
    "passbook_tls_certificate_expiry_timestamp_seconds",
    "passbook_tls_handshake_failures_total",
    "passbook_unauthenticated_total",
];

/// The names in the first column of the table of metrics.
fn documented() -> BTreeSet<&'static str> {
    let (_, section) = MONITORING.split_once("\n## Metrics\n").expect("the section");
    let (table, _) = section.split_once("\n\n| `outcome` |").expect("the end of its table");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

async fn known_calls_are_counted_exactly(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &[]).await;
    let client = server.client();

    open(&client, "a").await;
    let known = deposit("a", "5");
    for _ in 0..3 {
        client.deposit(known.clone()).await.expect("it is made, or was");
    }
    must_fail(client.withdraw(withdrawal("a", "6")).await, Reason::InsufficientFunds);
    must_fail(client.deposit(deposit("a", "-1")).await, Reason::InvalidAmount);
    let dry = DepositRequest { validate_only: true, ..deposit("a", "1") };
    client.deposit(dry).await.expect("valid");
    let dry = WithdrawRequest { validate_only: true, ..withdrawal("a", "9") };
    client.withdraw(dry).await.expect_err("it would not be made");
    must_fail(client.get_account(account_named("b")).await, Reason::AccountNotFound);
    let requests = vec![posting(&[("a", "1")]), posting(&[("b", "1")]), posting(&[("a", "1")])];
    client
        .batch_post_transactions(BatchPostTransactionsRequest { requests })
        .await
        .expect("results");
    let requests = (0..4).map(|_| one_posting(posting(&[("a", "1")])));
    let mut results =
        client.stream_transactions(tokio_stream::iter(requests)).await.expect("results");
    while results.message().await.expect("a result").is_some() {}

    let metrics = admin.metrics().await;
    let handled = [
        ("CreateAccount", "OK", 1.0),
        ("Deposit", "OK", 4.0),
        ("Deposit", "InvalidArgument", 1.0),
        ("Withdraw", "FailedPrecondition", 2.0),
        ("GetAccount", "NotFound", 1.0),
        ("BatchPostTransactions", "OK", 1.0),
        ("StreamTransactions", "OK", 1.0),
    ];
    for (method, code, count) in handled {
        assert_eq!(metrics.handled(method, code), count, "{method} {code}");
    }
    let calls = |name: &str| -> f64 {
        metrics
            .series()
            .filter(|(series, _)| series.starts_with(name))
            .map(|(_, value)| value)
            .sum()
    };
    let all: f64 = handled.iter().map(|(_, _, count)| count).sum();
    for name in [
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_handling_seconds_count",
    ] {
        assert_eq!(calls(name), all, "{name}");
    }
    assert_eq!(metrics.value("passbook_calls_in_flight"), 0.0);

    // The account, the deposit three times, two of the batch, four of the stream.
    assert_eq!(metrics.requests("applied", ""), 10.0);
    assert_eq!(metrics.value("passbook_replays_total"), 2.0);
    assert_eq!(metrics.requests("rejected", "insufficient_funds"), 1.0);
    assert_eq!(metrics.requests("rejected", "invalid_amount"), 1.0);
    assert_eq!(
        metrics.requests("rejected", "account_not_found"),
        1.0,
        "of the batch, not the read"
    );
    assert_eq!(calls("passbook_requests_total"), 13.0);
    assert_eq!(calls("passbook_calls_shed_total"), 0.0);
    // Every limit has its series from the start, under the name that its errors have.
    let shed = metrics.series().map(|(series, _)| series);
    let mut shed: Vec<&str> =
        shed.filter_map(|it| it.strip_prefix("passbook_calls_shed_total")).collect();
    shed.sort_unstable();
    let mut expected: Vec<_> = LIMITS
        .iter()
        .flat_map(|limit| ["connection", "identity", "server"].map(|scope| (limit, scope)))
        .map(|(limit, scope)| format!("{{limit=\"{limit}\",scope=\"{scope}\"}}"))
        .collect();
    expected.sort_unstable();
    assert_eq!(shed, expected);
    let repeats = metrics.value("passbook_retries_total{cause=\"repeat\"}");
    assert_eq!(calls("passbook_retries_total"), repeats, "only the statements of the lookup");
}

async fn prometheus_and_the_admin_service_agree(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &[]).await;
    open_funded(&server.client(), "a", "5").await;
    let stats = server.write_path_stats().await;
    let metrics = admin.metrics().await;
    for (name, distribution) in [
        ("passbook_batch_size", stats.batch_size),
        ("passbook_queue_seconds", stats.queue_time),
        ("passbook_lock_wait_seconds", stats.lock_wait),
        ("passbook_commit_seconds", stats.commit_time),
    ] {
        let distribution = distribution.unwrap_or_default();
        let count = metrics.value(&format!("{name}_count"));
        assert_eq!(count, distribution.count as f64, "{name}");
        assert!(count > 0.0, "{name}");
        // One of them has whole microseconds.
        let difference = metrics.value(&format!("{name}_sum")) - distribution.sum;
        assert!(difference.abs() < 1e-5, "{name}: {difference}");
    }
}

async fn an_account_id_is_in_no_metric(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &[]).await;
    let client = server.client();
    open_funded(&client, "zebra-77", "91.73").await;
    let known = deposit("zebra-77", "1");
    let request_id = known.request_id.clone();
    client.deposit(known).await.expect("applied");
    client.withdraw(withdrawal("zebra-77", "1000")).await.expect_err("too much");
    client.get_account(account_named("zebra-78")).await.expect_err("it is missing");

    let Metrics { text, .. } = &admin.metrics().await;
    for secret in ["zebra", "91.73", &request_id] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
    let published: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut documented = documented();
    assert!(documented.remove("process_*"));
    let missing: Vec<_> = documented.difference(&published).copied().collect();
    assert_eq!(missing, WITH_SETTINGS, "of those in the document, in:\n{text}");
    for name in published {
        assert!(text.contains(&format!("# HELP {name} ")), "nobody knows what {name} is");
        let is_documented = documented.contains(name) || name.starts_with("process_");
        assert!(is_documented, "not documented: {name}");
    }
}

async fn methods_that_do_not_exist_are_counted_as_one(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &[]).await;
    // Metrics of the process do not appear all at once.
    admin.metrics().await;
    let before = admin.metrics().await.series().count();
    for number in 0..20 {
        let path = format!("/passbook.v1.AccountService/Made{number}").parse().expect("a path");
        let mut grpc = Grpc::new(server.channel());
        grpc.ready().await.expect("it listens");
        let codec = ProstCodec::<GetAccountRequest, GetAccountRequest>::default();
        let request = Request::new(GetAccountRequest::default());
        must_fail(grpc.unary(request, path, codec).await, Reason::Unimplemented);
    }
    let metrics = admin.metrics().await;
    let unknown = "grpc_type=\"unknown\",grpc_service=\"unknown\",grpc_method=\"unknown\"";
    let started = metrics.value(&format!("grpc_server_started_total{{{unknown}}}"));
    assert_eq!(started, 20.0);
    assert!(!metrics.text.contains("Made"), "{}", metrics.text);
    // One counter per code, and one histogram.
    let after = metrics.series().count();
    assert_eq!(after, before + 1 + 17, "{}", metrics.text);
}

async fn queue_length_and_watchers_are_metrics(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, admin) = Server::start_with_admin(&database, &["--queue-capacity", "77"]).await;
    let client = server.client();
    open(&client, "a").await;
    let watching = client.watch_entries(watch("a", 0)).await.expect("it watches");
    let metrics = admin.metrics().await;
    assert_eq!(metrics.value("passbook_watchers"), 1.0);
    assert_eq!(metrics.value("passbook_calls_in_flight"), 1.0);
    assert_eq!(metrics.value("passbook_queue_capacity"), 77.0);
    assert_eq!(metrics.value("passbook_queue_length"), 0.0);
    assert!(metrics.value("passbook_database_connections{state=\"in_use\"}") >= 1.0, "a writer");
    assert_eq!(metrics.value("passbook_ready"), 1.0);

    drop(watching);
    eventually("closed watchers are counted", async || {
        let metrics = admin.metrics().await;
        metrics.handled("WatchEntries", "Canceled") == 1.0
            && metrics.value("passbook_calls_in_flight") == 0.0
            && metrics.value("passbook_watchers") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_database_is_alive_and_not_ready() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &admin::ADMIN).await;
    let admin = server.admin();
    assert_eq!(admin.get("/readyz").await, (200, "ready\n".to_owned()));

    proxy.freeze();
    let is_not_ready = async || admin.get("/readyz").await.0 == 503;
    eventually("it is not ready", is_not_ready).await;
    let (_, reason) = admin.get("/readyz").await;
    assert_eq!(reason, "not ready: the database cannot be reached or written\n");
    assert_eq!(admin.metrics().await.value("passbook_ready"), 0.0);
    assert_eq!(admin.get("/livez").await, (200, "alive\n".to_owned()));

    proxy.thaw();
    eventually("it is ready", async || admin.get("/readyz").await.0 == 200).await;
    assert_eq!(admin.metrics().await.value("passbook_ready"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_is_alive_and_not_ready() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (mut server, admin) = Server::start_with_admin(&database, &[]).await;
    let client = server.client();
    open(&client, "a").await;
    database.execute("BEGIN; SELECT * FROM accounts WHERE account_id = 'a' FOR UPDATE").await;
    let slow = spawn_deposit(&client, "a", "1");
    let waits = async || admin.metrics().await.value("passbook_queue_length") == 1.0;
    eventually("the deposit waits", waits).await;

    server.terminate();
    let is_not_ready = async || admin.get("/readyz").await.0 == 503;
    eventually("it is not ready", is_not_ready).await;
    assert_eq!(admin.get("/readyz").await.1, "not ready: shutting down\n");
    assert_eq!(admin.get("/livez").await.0, 200);
    assert_eq!(admin.metrics().await.value("passbook_queue_length"), 1.0);

    database.execute("COMMIT").await;
    slow.await.expect("the call").expect("it was accepted, and is made");
    let status = server.wait(PATIENCE).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(admin.try_get("/livez").await.is_none(), "it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_has_three_paths_and_takes_only_get() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (_server, admin) = Server::start_with_admin(&database, &[]).await;
    for path in ["/", "/metricsx", "/livez/x"] {
        assert_eq!(admin.get(path).await.0, 404, "{path}");
    }
    assert_eq!(admin.ask("POST", "/metrics").await.expect("an answer").0, 405);
}

/// Silent connections are closed, and other clients get an answer meanwhile or soon after.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_block_the_admin_port() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (_server, admin) = Server::start_with_admin(&database, &[]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(tokio::net::TcpStream::connect(admin.0).await.expect("it listens"));
    }
    let start = tokio::time::Instant::now();
    assert_eq!(admin.get("/livez").await.0, 200);
    times::promise("an answer", start.elapsed(), seconds(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_snapshot_is_a_metric() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (_server, admin) = Server::start_with_admin(&database, &[]).await;
    let session = database.connect().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM accounts";
    session.execute_unprepared(begin).await.expect("a snapshot");
    let age = async || admin.metrics().await.value("passbook_database_oldest_snapshot_seconds");

    eventually("it is published", async || age().await > 1.0).await;
    session.execute_unprepared("ROLLBACK").await.expect("it is given up");
    eventually("it is over", async || age().await < 1.0).await;
}
