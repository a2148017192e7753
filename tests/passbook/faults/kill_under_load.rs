//! Repeated kill -9 of a server, or of PostgreSQL, under load.

use tokio::time::Instant;

use crate::harness::{
    checker,
    ring::{RingLoad, Stop, open_ring},
    servers::PostgresServer,
    *,
};

const KILLS: usize = 20;

on_both_databases! {
    twenty_kills_under_load_lose_no_acknowledged_change_and_double_none,
    a_kill_leaves_no_lock_behind,
}

async fn twenty_kills_under_load_lose_no_acknowledged_change_and_double_none(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut server = Server::start(&database).await;
    let client = server.client();
    let (accounts, mut history) = open_ring(&client, 5).await;
    let mut random = fastrand::Rng::with_seed(seed());
    let load = RingLoad::start(&accounts, 24, &[client], random.u64(..));

    for _ in 0..KILLS {
        let changes = database.count("requests").await;
        let moves = async || database.count("requests").await >= changes + 20;
        eventually("the load makes headway after a kill", moves).await;
        tokio::time::sleep(ms(random.u64(0..120))).await;
        server.kill9();
        server.restart().await;
    }
    history.extend(load.stop().await);
    let replayed = history
        .iter()
        .filter(|(_, result)| matches!(result, RequestResult::Applied(answer) if answer.replayed));
    println!(
        "{kind:?}: {KILLS} kills, {} changes, {} resolved by a repeat",
        history.len(),
        replayed.count()
    );
    checker::assert_sound(&database, &history).await;
    every_answer_is_given_again(&server.client(), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_postgres_under_load_lose_no_acknowledged_change_and_double_none() {
    let slot = slots::take(Load::Heavy).await;
    let mut postgres = PostgresServer::start_migrated().await;
    let server = Server::start_at(&postgres.url(), &[]).await;
    let client = server.client();
    let (accounts, mut history) = open_ring(&client, 5).await;
    let load = RingLoad::start(&accounts, 24, std::slice::from_ref(&client), seed());
    let mut recoveries = Vec::new();

    for _ in 0..KILLS {
        tokio::time::sleep(ms(fastrand::u64(100..400))).await;
        postgres.crash();
        postgres.run().await;
        let up = Instant::now();
        let change = Change::Deposit(deposit(&accounts[0], "1"));
        let result = change.settle(std::slice::from_ref(&client)).await;
        history.push((change, result));
        recoveries.push(up.elapsed());
    }
    history.extend(load.stop().await);
    recoveries.sort_unstable();
    let slowest = recoveries[KILLS - 1];
    println!("{KILLS} kills, {} changes", history.len());
    let database = TestDatabase::outside(&postgres.url(), slot);
    checker::assert_sound(&database, &history).await;
    times::promise("the first change", slowest, seconds(10));
    assert!(!server.log().contains("panic"), "{}", server.log());
    every_answer_is_given_again(&client, &history).await;
}

/// Asserts that every acknowledged request still gets the same answer.
async fn every_answer_is_given_again(client: &Client, history: &checker::History) {
    let mut compared = 0;
    for (change, result) in history.iter().rev().step_by(7).take(300) {
        let again = change.send(client, PATIENCE).await;
        match (result, again) {
            (RequestResult::Applied(before), Ok(after)) => {
                assert!(after.replayed);
                assert_eq!(before.transaction, after.transaction);
            }
            (RequestResult::Rejected(before), Err(after)) => {
                assert_eq!(
                    (before.message(), before.details()),
                    (after.message(), after.details())
                );
            }
            (before, after) => panic!("{}: {before:?}, then {after:?}", change.request_id()),
        }
        compared += 1;
    }
    assert!(compared > 0);
}

async fn a_kill_leaves_no_lock_behind(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut doomed = Server::start(&database).await;
    let survivor = Server::start(&database).await;
    let client = survivor.client();
    let (accounts, _) = open_ring(&client, 3).await;
    let load = RingLoad::on(&accounts, 16, Stop::After(1_000_000), seed());
    let doomed_client = doomed.client();
    let calling = tokio::spawn(async move { load.run(&[doomed_client]).await });
    tokio::time::sleep(ms(400)).await;

    doomed.kill9();

    for account_id in &accounts {
        client
            .deposit(within(PATIENCE, deposit(account_id, "1")))
            .await
            .expect("no lock of the dead process is in the way");
    }
    calling.abort();
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_operator_terminates_under_load_lose_nothing() {
    let (database, _server, client) = start_loaded_server(Kind::Postgres).await;
    let (accounts, mut history) = open_ring(&client, 5).await;
    let load = RingLoad::start(&accounts, 24, std::slice::from_ref(&client), seed());
    let terminate = "SELECT CAST(pg_terminate_backend(pid) AS TEXT) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";

    let mut terminated = 0;
    for _ in 0..20 {
        tokio::time::sleep(ms(60)).await;
        eventually("sessions are terminated", async || {
            let now = database.texts(terminate).await.len();
            terminated += now;
            now > 0
        })
        .await;
    }
    history.extend(load.stop().await);
    println!("{terminated} sessions terminated, {} changes", history.len());
    checker::assert_sound(&database, &history).await;
}
