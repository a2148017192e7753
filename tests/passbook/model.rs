//! Random histories of all calls that there are, against a model of the contract that takes one
//! call after another (`harness/model*.rs`): equal replies, refusals included, and after every
//! step no money made or lost, nothing below zero, and holds that sum up.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::harness::{model_caller::Caller, *};

on_both_databases! {
    a_random_history_of_all_calls_is_what_a_sequential_model_says,
    eight_callers_on_two_servers_each_see_what_a_sequential_model_says,
}

/// What every history must have met, or it shows little.
const MET: [&str; 21] = [
    "HOLD_NOT_FOUND",
    "HOLD_EXISTS",
    "HOLD_NOT_OPEN",
    "EXPIRE_TIME_PASSED",
    "HOLD_AMOUNT_EXCEEDED",
    "ALREADY_REVERSED",
    "ACCOUNT_NOT_FOUND",
    "TRANSACTION_NOT_FOUND",
    "ACCOUNT_EXISTS",
    "ACCOUNT_CLOSED",
    "ACCOUNT_FROZEN",
    "CURRENCY_MISMATCH",
    "BALANCE_OUT_OF_RANGE",
    "CONDITION_FAILED",
    "INSUFFICIENT_FUNDS",
    "ACCOUNT_NOT_EMPTY",
    "VERSION_MISMATCH",
    "REQUEST_ID_REUSED",
    "REQUEST_FENCED",
    "CaptureHold replayed",
    "PlaceHold replayed",
];

async fn a_random_history_of_all_calls_is_what_a_sequential_model_says(kind: Kind) {
    let database = TestDatabase::create_for(kind, Weight::Heavy).await;
    let server = Server::start(&database).await;
    let caller = Caller::new("model-0", seed(), &[server.client()]).run(3000).await;

    println!("{:#?}", caller.verdicts);
    for verdict in MET {
        assert!(caller.verdicts.contains_key(verdict), "never met: {verdict}");
    }
}

async fn eight_callers_on_two_servers_each_see_what_a_sequential_model_says(kind: Kind) {
    let database = TestDatabase::create_for(kind, Weight::Heavy).await;
    let servers = Server::start_fleet(&database, 2).await;
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let seed = seed();
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let name = format!("caller-{number}");
        callers.spawn(Caller::new(&name, seed.wrapping_add(number), &clients).run(500));
    }

    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    for caller in callers.join_all().await {
        for (verdict, count) in caller.verdicts {
            *verdicts.entry(verdict).or_default() += count;
        }
    }
    println!("{verdicts:#?}");
    for verdict in MET {
        assert!(verdicts.contains_key(verdict), "never met: {verdict}");
    }
}
