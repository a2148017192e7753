//! Random histories of all calls against a sequential model of the contract (`harness/model/`):
//! equal replies, rejections included. After every step the total of money is unchanged, no balance
//! is below its limit unless it was forced there, and holds add up.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::harness::{
    model::{caller::Caller, double_entry::CONTRA_PREFIX},
    *,
};

on_both_databases! {
    a_random_history_of_all_calls_is_what_a_sequential_model_says,
    callers_on_two_servers_with_contra_accounts_see_what_a_sequential_model_says,
    eight_callers_on_two_servers_each_see_what_a_sequential_model_says,
}

/// Random calls of one caller, besides the comparisons of all accounts.
const CALLS: usize = 2000;
/// More rounds if a result is missing.
const ROUNDS_MORE: usize = 24;
const CALLS_MORE: usize = 500;
const CALLERS: u64 = 8;
const CALLS_EACH: usize = 400;

/// Results that a history must contain to be meaningful.
const MET: [&str; 35] = [
    "HOLD_NOT_FOUND",
    "HOLD_EXISTS",
    "HOLD_NOT_OPEN captured",
    "HOLD_NOT_OPEN expired",
    "HOLD_NOT_OPEN released",
    "EXPIRE_TIME_PASSED",
    "HOLD_AMOUNT_EXCEEDED",
    "TRANSACTION_NOT_DIVISIBLE",
    "REVERSAL_AMOUNT_EXCEEDED",
    "ALREADY_REVERSED",
    "ACCOUNT_NOT_FOUND",
    "TRANSACTION_NOT_FOUND",
    "ACCOUNT_EXISTS",
    "ACCOUNT_CLOSED",
    "ACCOUNT_FROZEN",
    "CURRENCY_MISMATCH",
    "HOLD_AMOUNT_TOO_LOW",
    "BALANCE_OUT_OF_RANGE",
    "CONDITION_FAILED",
    "INSUFFICIENT_FUNDS",
    "ACCOUNT_NOT_EMPTY",
    "EFFECTIVE_TIME_OUT_OF_RANGE",
    "UNBALANCED",
    "VERSION_MISMATCH",
    "REQUEST_ID_REUSED",
    "REQUEST_FENCED",
    "GetRequestOutcome",
    "FenceRequest",
    "SumBalances",
    "WatchEvents",
    "ListAccounts by prefix",
    "Withdraw forced in a stream",
    "Transfer forced in a stream",
    "Post forced in a stream",
    "Reverse forced in a stream",
];

/// The same on servers with contra accounts.
const MET_BALANCED: [&str; 12] = [
    "UNBALANCED",
    "INSUFFICIENT_FUNDS",
    "CURRENCY_MISMATCH",
    "ALREADY_REVERSED",
    "REVERSAL_AMOUNT_EXCEEDED",
    "HOLD_NOT_OPEN captured",
    "REQUEST_ID_REUSED",
    "Deposit",
    "Withdraw",
    "Post",
    "CaptureHold",
    "Reverse",
];
const CONTRA_CALLERS: u64 = 4;

async fn a_random_history_of_all_calls_is_what_a_sequential_model_says(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    let mut caller = Caller::new("model-0", seed(), &[server.client()]).run(CALLS).await;

    for _ in 0..ROUNDS_MORE {
        if missing(&caller.results).is_empty() {
            break;
        }
        caller = caller.run(CALLS_MORE).await;
    }
    println!("{:?}", caller.results);
    assert_eq!(missing(&caller.results), Vec::<&str>::new(), "never met");
}

async fn callers_on_two_servers_with_contra_accounts_see_what_a_sequential_model_says(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    let mut arguments = Vec::new();
    for currency_code in ["USD", "EUR", "JPY"] {
        let account_id = format!("{CONTRA_PREFIX}{currency_code}");
        let account = account_of(&account_id, currency_code);
        let account = CreateAccountRequest { unlimited_overdraft: true, ..account };
        open_with(&server.client(), account).await;
        arguments.push(format!("--contra-account={currency_code}={account_id}"));
    }
    drop(server);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let servers = [
        Server::start_with(&database, &arguments).await,
        Server::start_with(&database, &arguments).await,
    ];
    let clients = servers.each_ref().map(Server::client);
    let seed = seed();
    let new_caller = |number| {
        let name = format!("caller-{number}");
        Caller::new(&name, seed.wrapping_add(number), &clients).with_contra_accounts()
    };
    // The one whose number ends with zero sends amounts that are too large for contra accounts.
    let running: JoinSet<_> =
        (1..=CONTRA_CALLERS).map(|it| new_caller(it).run(CALLS_EACH)).collect();
    let mut results: BTreeMap<String, usize> = BTreeMap::new();
    for (result, count) in running.join_all().await.iter().flat_map(|caller| &caller.results) {
        *results.entry(result.clone()).or_default() += count;
    }
    println!("{results:?}");
    let missing: Vec<_> = MET_BALANCED.iter().filter(|it| !results.contains_key(**it)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
    database.passbook(&["verify", "--require-balanced"]).await.must_succeed();
}

async fn eight_callers_on_two_servers_each_see_what_a_sequential_model_says(kind: Kind) {
    let (_database, servers, clients) = start_loaded(kind, 2).await;
    let seed = seed();
    let new_caller = |number| {
        let name = format!("caller-{number}");
        Caller::new(&name, seed.wrapping_add(number), &clients)
    };
    let mut callers: Vec<_> = (0..CALLERS).map(new_caller).collect();
    let mut results: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..=ROUNDS_MORE {
        let running: JoinSet<_> = callers.into_iter().map(|it| it.run(CALLS_EACH)).collect();
        callers = running.join_all().await;
        results.clear();
        for (result, count) in callers.iter().flat_map(|caller| &caller.results) {
            *results.entry(result.clone()).or_default() += count;
        }
        if missing(&results).is_empty() {
            break;
        }
    }
    println!("{results:?}");
    assert_eq!(missing(&results), Vec::<&str>::new(), "never met");
    let mut sizes = Vec::new();
    for server in &servers {
        sizes.push(server.write_path_stats().await.batch_size.unwrap_or_default().max);
    }
    println!("largest batches: {sizes:?}");
    assert!(sizes.iter().all(|size| *size > 1.0), "calls of several callers share commits");
}

fn missing(results: &BTreeMap<String, usize>) -> Vec<&'static str> {
    MET.into_iter().filter(|result| !results.contains_key(*result)).collect()
}
