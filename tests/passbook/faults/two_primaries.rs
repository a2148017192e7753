//! Two servers in one URL both accept changes. The right ledger is unknown, so no change is made
//! until only one is left.

use tonic_health::pb::health_check_response::ServingStatus;

use crate::harness::{
    servers::{self, PostgresServer},
    *,
};

/// Waits until the server is not ready for this reason and refuses changes.
async fn applies_nothing(server: &Server, words: &str) {
    becomes(server, "", ServingStatus::NotServing).await;
    eventually("it says why", async || server.log().contains(words)).await;
    let request = within(seconds(3), deposit("alice", "1"));
    let status = server.client().deposit(request).await.expect_err("no primary is to be used");
    assert!([Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()), "{status:?}");
    assert_eq!(outcome(&status), "not_applied", "{status:?}");
}

async fn deposit_one(server: &Server) {
    server.client().deposit(deposit("alice", "1")).await.expect("applied");
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
    let mut old = PostgresServer::start_migrated().await;
    let mut new = old.standby().await;
    let server = Server::start_at(&servers::url(&[&old, &new]), &[]).await;
    open_funded(&server.client(), "alice", "1").await;
    let at_standby = new.session().await;
    eventually("the standby has it", async || {
        let rows = database::rows(&at_standby, "SELECT 1 FROM entries").await;
        rows.is_ok_and(|rows| !rows.is_empty())
    })
    .await;
    drop(at_standby);

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
