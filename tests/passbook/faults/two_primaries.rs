//! Two servers behind one URL both accept changes. If the right ledger is unknown, no change is made
//! until only one is left. A primary that was replaced is not used again.

use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{
    proxy::PostgresProxy,
    servers::{self, PostgresServer},
    *,
};

/// Waits until the server is not ready for this reason and refuses changes.
async fn applies_nothing(server: &Server, words: &str) {
    becomes(server, "", ServingStatus::NotServing).await;
    eventually("it says why", async || server.log().contains(words)).await;
    let request = within(seconds(3), deposit("alice", "1"));
    let status = server.patient().deposit(request).await.expect_err("no primary is to be used");
    assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()), "{status:?}");
    assert_eq!(outcome(&status), "not_applied", "{status:?}");
}

async fn deposit_one(server: &Server) {
    server.client().deposit(deposit("alice", "1")).await.expect("applied");
}

/// How many entries there are at a server itself.
async fn entries_at(server: &PostgresServer) -> usize {
    let session = server.session().await;
    database::rows(&session, "SELECT 1 FROM entries").await.expect("an answer").len()
}

/// Waits until there is a session of Passbook at a server with this condition.
async fn has_session(server: &PostgresServer, condition: &str) {
    let session = server.session().await;
    let sql = format!(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'passbook' AND {condition}"
    );
    eventually("there is a session", async || {
        !database::rows(&session, &sql).await.expect("an answer").is_empty()
    })
    .await;
}

/// Ends the sessions of Passbook at a server with this condition.
async fn end_sessions(server: &PostgresServer, condition: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'passbook' AND {condition}"
    );
    server.execute(&sql).await;
}

/// Makes a deposit, and repeats it until the result is certain: connections may be lost meanwhile.
async fn settle_deposit(server: &Server) {
    let result = Change::Deposit(deposit("alice", "1")).settle(&[server.client()]).await;
    assert!(matches!(result, RequestResult::Applied(_)), "{result:?}");
}

/// A primary, a standby that has its first entry, and a server on both.
async fn primary_standby_and_server() -> (PostgresServer, PostgresServer, Server) {
    let primary = PostgresServer::start_migrated().await;
    let standby = primary.standby().await;
    let server = Server::start_at(&servers::url(&[&primary, &standby]), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    standby.wait_for_an_entry().await;
    (primary, standby, server)
}

/// The old primary is not fenced: it takes changes all the time.
#[tokio::test(flavor = "multi_thread")]
async fn one_name_that_moves_back_to_an_old_primary_is_not_followed() {
    let _slot = slots::take(Load::Heavy).await;
    let old = PostgresServer::start_migrated().await;
    let new = old.standby().await;
    let proxy = PostgresProxy::start(&old.url()).await;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address);
    let server = Server::start_at(&url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    new.wait_for_an_entry().await;

    // The name moves. A writer keeps its session with the old primary, and reads get new ones. The
    // first one of them that is used makes that writer stale.
    new.promote().await;
    proxy.move_to(&new.url());
    end_sessions(&old, "query NOT ILIKE 'commit%'").await;
    has_session(&new, "query <> '' AND query NOT LIKE 'SELECT set_config%'").await;
    has_session(&old, "query ILIKE 'commit%'").await;
    for _ in 0..4 {
        settle_deposit(&server).await;
    }
    assert_eq!((entries_at(&old).await, entries_at(&new).await), (1, 5));

    // The name moves back, and the sessions with the new primary end.
    proxy.move_to(&old.url());
    end_sessions(&new, "true").await;
    applies_nothing(&server, "is an outdated primary").await;
    assert!(server.log().contains("a database server must not be used"), "{}", server.log());
    assert_eq!(entries_at(&old).await, 1, "nothing is applied there");

    proxy.move_to(&new.url());
    becomes(&server, "", ServingStatus::Serving).await;
    settle_deposit(&server).await;
    assert_eq!((entries_at(&old).await, entries_at(&new).await), (1, 6));
}

/// Both standbys of one primary are promoted, and then have the same timeline.
#[tokio::test(flavor = "multi_thread")]
async fn one_name_that_moves_to_the_twin_of_a_primary_is_not_followed() {
    let _slot = slots::take(Load::Heavy).await;
    let first = PostgresServer::start_migrated().await;
    let (one, two) = (first.standby().await, first.standby().await);
    for standby in [&one, &two] {
        standby.promote().await;
    }
    let proxy = PostgresProxy::start(&one.url()).await;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address);
    let server = Server::start_at(&url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    // The server looks for the newest commit each second.
    tokio::time::sleep(seconds(3)).await;

    proxy.move_to(&two.url());
    end_sessions(&one, "true").await;
    applies_nothing(&server, "lacks commit").await;
    assert_eq!(entries_at(&two).await, 0);

    proxy.move_to(&one.url());
    becomes(&server, "", ServingStatus::Serving).await;
    settle_deposit(&server).await;
}

/// The newest commits can be lost with the primary. A restart of the new one does not make them missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_without_the_newest_commits_is_used_after_its_restart_too() {
    let _slot = slots::take(Load::Heavy).await;
    let (mut old, mut new, server) = primary_standby_and_server().await;
    new.execute("ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()").await;
    tokio::time::sleep(ms(500)).await;
    settle_deposit(&server).await;
    // The server looks for the newest commit each second.
    tokio::time::sleep(seconds(3)).await;

    old.crash();
    new.promote().await;
    // It is restarted before the server has read a commit there.
    new.execute("ALTER TABLE commits RENAME TO hidden").await;
    has_session(&new, "query LIKE '%commits%'").await;
    new.crash();
    new.run().await;
    new.execute("ALTER TABLE hidden RENAME TO commits").await;

    becomes(&server, "", ServingStatus::Serving).await;
    settle_deposit(&server).await;
    assert_eq!(entries_at(&new).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_in_a_url_are_not_served() {
    let _slot = slots::take(Load::Heavy).await;
    let (one, two) =
        (PostgresServer::start_migrated().await, PostgresServer::start_migrated().await);
    let url = servers::url(&[&one, &two]);
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate", "up"]] {
        let outcome = passbook(&[command, &["--database-url", &url]].concat()).await;
        let why = outcome.must_fail(1);
        for word in [&one.address(), &two.address(), "system identifier", "stop one of them"] {
            assert!(why.contains(word), "{word}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_under_two_addresses_is_no_second_primary() {
    let _slot = slots::take(Load::Light).await;
    let one = PostgresServer::start_migrated().await;
    let url = format!(
        "postgres://postgres@localhost:{0},127.0.0.1:{0}/postgres?sslmode=disable",
        one.port
    );
    let server = Server::start_at(&url, &[]).await;
    open_funded(&server.client(), "alice", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_is_never_used_and_stops_changes() {
    let _slot = slots::take(Load::Heavy).await;
    let (mut one, mut two) =
        (PostgresServer::start_migrated().await, PostgresServer::start_migrated().await);
    two.crash();
    let server = Server::start_at(&servers::url(&[&two, &one]), &[]).await;
    open_funded(&server.client(), "alice", "1").await;

    two.run().await;
    applies_nothing(&server, "nothing is changed until then").await;
    one.crash();
    applies_nothing(&server, "belongs to another cluster").await;
    two.crash();
    one.run().await;
    becomes(&server, "", ServingStatus::Serving).await;
    deposit_one(&server).await;
    assert_eq!(balance(&server.client(), "alice").await, "2.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_was_not_fenced_is_not_used() {
    let _slot = slots::take(Load::Heavy).await;
    let (mut old, mut new, server) = primary_standby_and_server().await;

    new.promote().await;
    applies_nothing(&server, "nothing is changed until then").await;
    old.crash();
    becomes(&server, "", ServingStatus::Serving).await;
    deposit_one(&server).await;
    new.crash();
    old.run().await;
    applies_nothing(&server, "is an outdated primary").await;
    old.crash();
    new.run().await;
    becomes(&server, "", ServingStatus::Serving).await;
    assert_eq!(balance(&server.client(), "alice").await, "2.00");
}

/// A role with minimal rights can still distinguish two servers.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_role_can_identify_the_server() {
    let _slot = slots::take(Load::Light).await;
    let one = PostgresServer::start().await;
    one.execute("CREATE ROLE app LOGIN; CREATE DATABASE app OWNER app").await;
    let url = format!("postgres://app@127.0.0.1:{0},localhost:{0}/app?sslmode=disable", one.port);
    let server = Server::start_at(&url, &["--migrate"]).await;
    open_funded(&server.client(), "alice", "1").await;
}
