//! Failover to a standby that the URL names: acknowledged changes survive, and the service recovers
//! by itself.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::harness::{
    checker,
    proxy::PostgresProxy,
    ring::{RingLoad, open_ring},
    servers::{self, PostgresServer},
    *,
};

/// Few in a normal run. PASSBOOK_TEST_SCALE=5 makes ten.
const FAILOVERS: usize = 2;
/// The service must recover within this time of the promotion.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn failovers_to_a_synchronous_standby_lose_no_acknowledged_change_and_double_none() {
    let slot = slots::take(Load::Heavy).await;
    let mut primary = PostgresServer::start_migrated().await;
    let mut standby = primary.standby().await;
    // The order does not matter: the second one is the primary after the first failover.
    let url = servers::url(&[&standby, &primary]);
    let server = Server::start_at(&url, &[]).await;
    let client = server.client();
    let (accounts, mut history) = open_ring(&client, 5).await;
    let load = RingLoad::start(&accounts, 24, std::slice::from_ref(&client), seed());
    let failovers = FAILOVERS * scale();
    let mut recoveries = Vec::new();

    for _ in 0..failovers {
        wait_for_the_standby(&primary).await;
        tokio::time::sleep(ms(fastrand::u64(200..500))).await;

        // The old primary is dead, and so fenced, before the standby is promoted.
        primary.crash();
        standby.promote().await;

        let promoted = Instant::now();
        first_change(&client, &accounts[0], &mut history).await;
        recoveries.push(promoted.elapsed());
        let read = GetAccountRequest { account_id: accounts[0].clone() };
        client.get_account(within(PATIENCE, read)).await.expect("reads are back, too");
        // The old primary returns as a standby at its address.
        std::mem::swap(&mut primary, &mut standby);
        standby.follow(&primary).await;
    }
    history.extend(load.stop().await);
    recoveries.sort_unstable();
    println!(
        "{failovers} failovers, {} changes; first change after promotion: median {:?}",
        history.len(),
        recoveries[recoveries.len() / 2]
    );
    let database = TestDatabase::outside(&primary.url(), slot);
    checker::assert_sound(&database, &history).await;
    times::promise("the first change", recoveries[recoveries.len() - 1], RECOVERY_TIME_MAX);
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// Waits until every commit waits for the standby.
async fn wait_for_the_standby(primary: &PostgresServer) {
    primary
        .execute("ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()")
        .await;
    let session = primary.session().await;
    eventually("the standby is synchronous", async || {
        let sql = "SELECT application_name::text FROM pg_stat_replication
            WHERE sync_state = 'sync' AND state = 'streaming'";
        !database::rows(&session, sql).await.expect("an answer").is_empty()
    })
    .await;
    // Waits until every session has read the settings.
    tokio::time::sleep(ms(500)).await;
}

async fn first_change(client: &Client, account_id: &str, history: &mut checker::History) {
    let change = Change::Deposit(deposit(account_id, "1"));
    let result = change.settle(std::slice::from_ref(client)).await;
    history.push((change, result));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_lost_standby_is_unknown_until_one_is_back() {
    let slot = slots::take(Load::Light).await;
    let primary = PostgresServer::start_migrated().await;
    let mut standby = primary.standby().await;
    let server = Server::start_at(&servers::url(&[&primary, &standby]), &[]).await;
    let client = server.client();
    let (accounts, mut history) = open_ring(&client, 2).await;
    wait_for_the_standby(&primary).await;

    standby.crash();
    let lost = Change::Deposit(deposit(&accounts[0], "1"));
    // Longer than the statement timeout (4 s) and the watchdog (6 s). Neither may cancel the wait,
    // which would commit on this server only.
    let patient = server.patient();
    let status = lost.send(&patient, seconds(9)).await.expect_err("no standby has it");
    assert_eq!(outcome(&status), "unknown", "{status:?}");
    let seen = balance(&client, &accounts[0]).await;
    assert_eq!(seen, "100.00", "an unreplicated change is not visible");
    history.push((lost, RequestResult::Rejected(status)));
    let log = primary.log();
    assert!(!log.contains("canceling wait for synchronous replication"), "{log}");
    // On the same account the row is locked; on another account the next commit waits as well.
    for account_id in &accounts {
        let change = Change::Deposit(deposit(account_id, "1"));
        let status = change.send(&patient, seconds(2)).await.expect_err("no standby has it");
        let expected = [Code::DeadlineExceeded, Code::Aborted, Code::Unavailable];
        assert!(expected.contains(&status.code()), "{status:?}");
        history.push((change, RequestResult::Rejected(status)));
    }

    standby.run().await;
    let back = Instant::now();
    request::settle_the_rest(&mut history, &client).await;
    println!("all is resolved {:?} after the standby is back", back.elapsed());
    let session = primary.session().await;
    eventually("no session waits", async || {
        let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        database::rows(&session, sql).await.expect("an answer").is_empty()
    })
    .await;
    let database = TestDatabase::outside(&primary.url(), slot);
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_find_the_new_primary_without_any_write() {
    let _slot = slots::take(Load::Heavy).await;
    let mut primary = PostgresServer::start_migrated().await;
    let standby = primary.standby().await;
    let server = Server::start_at(&servers::url(&[&primary, &standby]), &[]).await;
    let client = server.client();
    open_funded(&client, "alice", "1").await;
    wait_until_replayed(&primary).await;

    primary.crash();
    // A standby answers, but must not be read.
    let read = account_named("alice");
    client.get_account(within(seconds(4), read.clone())).await.expect_err("there is no primary");
    standby.promote().await;

    let promoted = Instant::now();
    eventually("reads are back", async || {
        client.get_account(within(seconds(1), read.clone())).await.is_ok()
    })
    .await;
    times::promise("reads are back", promoted.elapsed(), RECOVERY_TIME_MAX);
}

/// Waits until the standby of this server has all changes.
async fn wait_until_replayed(primary: &PostgresServer) {
    let session = primary.session().await;
    eventually("the standby has all", async || {
        let sql = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
        !database::rows(&session, sql).await.expect("an answer").is_empty()
    })
    .await;
}

/// The standby lacks the entries of a page that watchers share.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_ends_with_a_failover_and_no_later_one_gets_lost_entries() {
    let _slot = slots::take(Load::Heavy).await;
    let mut primary = PostgresServer::start_migrated().await;
    let mut standby = primary.standby().await;
    let server = Server::start_at(&servers::url(&[&primary, &standby]), &[]).await;
    let client = server.client();
    open(&client, "alice").await;
    wait_until_replayed(&primary).await;
    standby.crash();
    post_many(&client, "alice", 2).await;
    let mut watching = Watching::begin(&client, "alice", 0).await;
    watching.until(2).await;

    primary.crash();
    standby.run().await;
    standby.promote().await;

    let end = timeout(PATIENCE, watching.end()).await.expect("it does not wait for entry 3");
    assert_reason(&end, Reason::DatabaseUnavailable);
    for _ in 0..2 {
        first_change(&client, "alice", &mut Vec::new()).await;
    }
    let entries = Watching::begin(&client, "alice", 0).await.until(2).await;
    for entry in entries {
        let transaction = transaction_by_id(&entry.transaction_id);
        client.get_transaction(transaction).await.expect("an entry of the ledger");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_verified_and_exported_but_not_served() {
    let _slot = slots::take(Load::Heavy).await;
    let primary = PostgresServer::start_migrated().await;
    let standby = primary.standby().await;
    let server = Server::start_at(&primary.url(), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    standby.wait_for_an_entry().await;

    passbook(&["verify", "--database-url", &standby.url()]).await.must_succeed();
    let export = passbook(&["export", "--database-url", &standby.url()]).await.must_succeed();
    assert!(export.stdout.contains("alice"), "{}", export.stdout);
    let served =
        passbook(&["serve", "--listen", "127.0.0.1:0", "--database-url", &standby.url()]).await;
    assert_eq!(served.code, Some(1));
    let expected =
        format!("error: cannot connect to the database at {}: is a standby\n", standby.address());
    assert_eq!(served.stderr, expected);
}

/// The standby is the first host, answers first, and lacks the latest account.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_prefers_the_primary_and_else_takes_a_standby() {
    let _slot = slots::take(Load::Heavy).await;
    let mut primary = PostgresServer::start_migrated().await;
    let standby = primary.standby().await;
    let server = Server::start_at(&primary.url(), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    standby.wait_for_an_entry().await;
    standby.execute("SELECT pg_wal_replay_pause()").await;
    open(&server.client(), "bob").await;
    let far = PostgresProxy::start(&primary.url()).await;
    far.delay_sessions(ms(100));
    let hosts = format!("{},{}", standby.address(), far.address);
    let url = format!("postgres://postgres@{hosts}/postgres?sslmode=disable");
    let export = async || passbook(&["export", "--database-url", &url]).await.must_succeed();

    let latest = export().await;
    primary.crash();
    let earlier = export().await;

    assert!(latest.stdout.contains("bob"), "{}", latest.stdout);
    assert!(!latest.stderr.contains("primary"), "{}", latest.stderr);
    assert!(earlier.stdout.contains("alice") && !earlier.stdout.contains("bob"));
    assert!(earlier.stderr.contains("no primary answers"), "{}", earlier.stderr);
    for address in [standby.address(), far.address.to_string()] {
        assert!(earlier.stderr.contains(&address), "{address}: {}", earlier.stderr);
    }
}
