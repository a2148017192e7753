//! Readiness reports whether changes can be made, and why not. Liveness reports that the process
//! runs.

use tokio::time::Instant;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{proxy::PostgresProxy, servers::PostgresServer, *};

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_an_outage_and_liveness_does_not() {
    let _slot = slots::take(Load::Light).await;
    let mut postgres = PostgresServer::start_migrated().await;
    let server = Server::start_at(&postgres.url(), &[]).await;
    for service in ["", "passbook.v1.AccountService", "liveness"] {
        assert_eq!(serving_status(&server, service).await, ServingStatus::Serving, "{service:?}");
    }

    postgres.crash();
    let gone = Instant::now();
    for service in ["", "passbook.v1.AccountService"] {
        becomes(&server, service, ServingStatus::NotServing).await;
    }
    println!("not ready {:?} after the database was gone", gone.elapsed());
    assert_eq!(serving_status(&server, "liveness").await, ServingStatus::Serving);
    let reason =
        format!("cannot connect to the database at {}: connection refused", postgres.address());
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("not ready")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&reason), "{lines:?}\n{log}");

    postgres.run().await;
    let back = Instant::now();
    becomes(&server, "", ServingStatus::Serving).await;
    println!("ready {:?} after the database was back", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_late_answer_is_no_outage() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;

    // One probe, which begins within a second, takes longer than its timeout of two seconds.
    proxy.freeze();
    tokio::time::sleep(ms(3300)).await;
    proxy.thaw();
    let end = Instant::now() + seconds(3);
    while Instant::now() < end {
        assert_eq!(serving_status(&server, "").await, ServingStatus::Serving);
        tokio::time::sleep(ms(50)).await;
    }
    assert!(!server.log().contains("not ready"), "{}", server.log());
}

on_both_databases! {
    a_newer_schema_is_used_as_long_as_it_can_be,
}

async fn a_newer_schema_is_used_as_long_as_it_can_be(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    database
        .execute(
            "INSERT INTO passbook_migrations (version, applied_at) \
             VALUES ('m29990101_000001_future', 0); \
             ALTER TABLE accounts ADD COLUMN future int",
        )
        .await;
    open(&client, "alice").await;
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(serving_status(&server, "").await, ServingStatus::Serving);

    // No change arrives meanwhile.
    let rename = |from: &str, to: &str| format!("ALTER TABLE requests RENAME {from} TO {to}");
    database.execute(&rename("entry_keys", "entry_names")).await;
    becomes(&server, "", ServingStatus::NotServing).await;
    assert!(server.log().contains("schema not migrated: "), "{}", server.log());
    database.execute(&rename("entry_names", "entry_keys")).await;
    becomes(&server, "", ServingStatus::Serving).await;
    deposited(&client, "alice", "1").await;
}

/// PostgreSQL keeps the session of a COMMIT that waits for a standby, even without its client.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_synchronous_standby_is_an_outage_and_takes_no_more_connections_than_allowed() {
    let _slot = slots::take(Load::Light).await;
    let postgres = PostgresServer::start_migrated().await;
    let connections_max = 12;
    let settings = ["--database-connections-max", &connections_max.to_string()];
    let server = Server::start_at(&postgres.url(), &settings).await;
    let client = server.client();
    open_funded(&client, "alice", "1").await;
    let mut deposits = 1;
    let others: Vec<_> = (0..20).map(|number| format!("other-{number}")).collect();
    for other in &others {
        open(&client, other).await;
    }

    postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'").await;
    postgres.execute("SELECT pg_reload_conf()").await;
    // PostgreSQL may need a moment for the new settings.
    let (change, status) = loop {
        let change = Change::Deposit(deposit("alice", "1"));
        if let Err(status) = change.send(&client, seconds(3)).await {
            break (change, status);
        }
        deposits += 1;
        assert!(deposits < 1000, "commits are confirmed without the standby");
    };
    assert!(["unknown", "not_applied"].contains(&outcome(&status).as_str()), "{status:?}");
    becomes(&server, "", ServingStatus::NotServing).await;
    assert!(server.log().contains("wait for a synchronous standby"), "{}", server.log());
    // Each attempt gives up its connection after six seconds.
    let session = postgres.session().await;
    let sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'passbook'";
    let waiting = format!("{sessions} AND wait_event = 'SyncRep'");
    let waiting_first = database::rows(&session, &waiting).await.expect("an answer").len();
    for _ in 0..10 {
        let changes = others.iter().map(|other| Change::Deposit(deposit(other, "1")));
        let changes: Vec<_> = changes.chain([change.clone()]).collect();
        let sent = changes.iter().map(|change| change.send(&client, seconds(3)));
        for result in futures_util::future::join_all(sent).await {
            result.expect_err("no commit is confirmed");
        }
        let open = database::rows(&session, sessions).await.expect("an answer").len();
        assert!(open <= connections_max, "{open} connections");
        let waiting = database::rows(&session, &waiting).await.expect("an answer").len();
        assert!(waiting <= waiting_first, "{waiting} commits wait, first {waiting_first}");
    }

    postgres.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    postgres.execute("SELECT pg_reload_conf()").await;
    becomes(&server, "", ServingStatus::Serving).await;
    change.settle(std::slice::from_ref(&client)).await;
    assert_eq!(balance(&client, "alice").await, format!("{}.00", deposits + 1));
}
