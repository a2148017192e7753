//! Cancelled calls: by deadline, by reset, by disconnect. None may leave an open transaction, a
//! lock, a lost connection, or a wrong balance.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::{
    checker::{self, Outcomes},
    ring::{open_ring, random_change},
    *,
};

const CALLS: usize = 5_000;
const AT_ONCE: usize = 100;

on_both_databases! {
    five_thousand_calls_canceled_within_20_ms_leave_nothing_behind,
}

async fn five_thousand_calls_canceled_within_20_ms_leave_nothing_behind(kind: Kind) {
    let (database, server, client) = start_loaded_server(kind).await;
    let (accounts, mut history) = open_ring(&client, 6).await;
    let mut random = fastrand::Rng::with_seed(seed());

    let outcomes = storm(&server, &mut random, &accounts).await;

    let known = outcomes.iter().filter(|(_, outcome)| outcome.is_some()).count();
    println!("{kind:?}: {known} of {CALLS} calls got an answer in time");
    if kind == Kind::Postgres {
        let sessions = format!(
            "pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()
             AND (xact_start IS NOT NULL OR state LIKE 'idle in transaction%')",
            database.name()
        );
        let locks = format!(
            "pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
             WHERE datname = '{}' AND pid <> pg_backend_pid()
             AND (NOT granted OR mode LIKE 'Row%')",
            database.name()
        );
        eventually("no session is left in a transaction, and no lock", async || {
            database.count(&sessions).await == 0 && database.count(&locks).await == 0
        })
        .await;
    }
    the_pool_is_whole(&client, &accounts).await;
    checker::assert_not_applied_is_true(&database, &outcomes).await;
    for (change, outcome) in outcomes {
        let result = match outcome {
            Some(Ok(answer)) => RequestResult::Applied(answer),
            _ => change.settle(std::slice::from_ref(&client)).await,
        };
        history.push((change, result));
    }
    checker::assert_sound(&database, &history).await;
}

async fn storm(server: &Server, random: &mut fastrand::Rng, accounts: &[String]) -> Outcomes {
    let (mut calls, mut outcomes) = (JoinSet::new(), Outcomes::new());
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for number in 0..CALLS {
        let change = random_change(random, accounts);
        let patience = Duration::from_micros(random.u64(0..20_000));
        let way = random.u8(0..3);
        if number % 50 == 0 {
            // A disconnect: the connection ends with its calls in flight.
            let index = random.usize(..clients.len());
            clients[index] = server.client();
        }
        let client = clients[random.usize(..clients.len())].clone();
        calls.spawn(async move {
            let answer = match way {
                // The server gets the deadline, and the client library enforces it as well.
                0 => Some(change.send(&client, patience).await),
                // The stream is reset in flight.
                1 => tokio::time::timeout(patience, change.send(&client, PATIENCE)).await.ok(),
                // Both at once.
                _ => tokio::time::timeout(patience, change.send(&client, patience)).await.ok(),
            };
            (change, answer)
        });
        while calls.len() >= AT_ONCE {
            outcomes.extend(calls.join_next().await.map(|call| call.expect("no panic")));
        }
    }
    outcomes.extend(calls.join_all().await);
    outcomes
}

/// Asserts that a burst is answered promptly, so that no connection was lost to a canceled call.
async fn the_pool_is_whole(client: &Client, accounts: &[String]) {
    let started = std::time::Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..64 {
        let (client, account_id) = (client.clone(), accounts[number % accounts.len()].clone());
        calls.spawn(async move {
            get(&client, &account_id).await;
            let dry = DepositRequest { validate_only: true, ..deposit(&account_id, "1") };
            Change::Deposit(dry).send(&client, PATIENCE).await.expect("valid");
        });
    }
    calls.join_all().await;
    times::promise("a small burst", started.elapsed(), seconds(3));
}
