//! At its deadline a call ends with DEADLINE_EXCEEDED and a truthful outcome of its change.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::harness::{
    checker::{self, Outcomes},
    ring::{open_ring, random_change},
    *,
};

/// In a normal run; times PASSBOOK_TEST_SCALE.
const CALLS: usize = 1_000;
const AT_ONCE: usize = 64;
/// In the first round. Each further round has longer deadlines.
const DEADLINE_MAX: Duration = ms(150);
/// For machines so slow that hardly any call is answered in time.
const ROUNDS_MAX: u32 = 10;
/// The minimum of calls that are answered in time, and of calls that are not.
const FEWEST: usize = CALLS / 50;

const NOT_APPLIED: &str = "not_applied";
const UNKNOWN: &str = "unknown";

on_both_databases! {
    at_its_deadline_a_caller_gets_the_true_outcome,
}

async fn at_its_deadline_a_caller_gets_the_true_outcome(kind: Kind) {
    let (database, servers, clients) = start_loaded(kind, 2).await;
    let (accounts, mut history) = open_ring(&clients[0], 4).await;
    let patients: Vec<Patient> = servers.iter().map(Server::patient).collect();
    let mut random = fastrand::Rng::with_seed(seed());
    let (stop, stopped) = watch::channel(false);
    let session = database.connect().await;
    let foreign_lock = tokio::spawn(hold_rows(session, accounts.clone(), stopped));

    let mut answers = Outcomes::new();
    for round in 1..=ROUNDS_MAX {
        let deadline_max = DEADLINE_MAX * round;
        answers.extend(call(&patients, &mut random, &accounts, deadline_max).await);
        let in_time = answers.len() - claims(&answers, NOT_APPLIED) - claims(&answers, UNKNOWN);
        if in_time > FEWEST && claims(&answers, NOT_APPLIED) > FEWEST {
            break;
        }
    }
    stop.send_replace(true);
    foreign_lock.await.expect("no panic");

    let (calls, unknown) = (answers.len(), claims(&answers, UNKNOWN));
    let cut = errors(&answers).filter(|it| is_cut(it)).count();
    let not_applied = checker::assert_not_applied_is_true(&database, &answers).await;
    for (change, answer) in answers {
        let result = match answer.expect("it waits for its answer") {
            Ok(answer) => RequestResult::Applied(answer),
            Err(status) if request::is_definite(&status) => RequestResult::Rejected(status),
            Err(_) => change.settle(&clients).await,
        };
        history.push((change, result));
    }
    let in_time = calls - not_applied - unknown;
    println!(
        "{kind:?}: {in_time} in time, {not_applied} not_applied, {unknown} unknown, {cut} cut"
    );
    assert!(cut <= calls / 100, "{cut} of {calls} calls have no outcome");
    assert!(in_time > FEWEST && not_applied > FEWEST, "too few of each to be meaningful");
    checker::assert_sound(&database, &history).await;
}

/// Makes calls with random deadlines to random servers.
async fn call(
    patients: &[Patient],
    random: &mut fastrand::Rng,
    accounts: &[String],
    deadline_max: Duration,
) -> Outcomes {
    let (mut calls, mut answers) = (JoinSet::new(), Outcomes::new());
    for _ in 0..CALLS * scale() {
        let change = random_change(random, accounts);
        let deadline = Duration::from_micros(random.u64(..deadline_max.as_micros() as u64));
        let client = patients[random.usize(..patients.len())].clone();
        calls.spawn(async move {
            let answer = change.send(&client, deadline).await;
            (change, Some(answer))
        });
        while calls.len() >= AT_ONCE {
            answers.extend(calls.join_next().await.map(|call| call.expect("no panic")));
        }
    }
    answers.extend(calls.join_all().await);
    answers
}

/// The errors that are not results.
fn errors(answers: &Outcomes) -> impl Iterator<Item = &Status> {
    let errors = answers.iter().filter_map(|(_, answer)| answer.as_ref()?.as_ref().err());
    errors.filter(|status| !request::is_definite(status))
}

/// How many errors claim this outcome.
fn claims(answers: &Outcomes, outcome: &str) -> usize {
    errors(answers).filter(|status| claim(status) == outcome).count()
}

/// Whether tonic's own timer ended the call. It does so without an outcome if the thread stops for long
/// after it has polled the call and before it polls the timer. A caller has given up by then, too.
fn is_cut(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

/// The outcome in an error that is not a result.
fn claim(status: &Status) -> String {
    if is_cut(status) {
        return UNKNOWN.to_owned();
    }
    let claim = outcome(status);
    assert!([NOT_APPLIED, UNKNOWN].contains(&claim.as_str()), "not stated: {status:?}");
    let is_late = status.code() == Code::DeadlineExceeded;
    // Includes a lock wait that failed before the deadline: the change was not applied.
    let is_lock = claim == NOT_APPLIED && reason(status) == "LOCK_TIMEOUT";
    assert!(is_late || is_lock, "{status:?}");
    claim
}

/// Another program that locks one account after the other, or all of SQLite.
async fn hold_rows(
    session: DatabaseConnection,
    accounts: Vec<String>,
    stopped: watch::Receiver<bool>,
) {
    let mut random = fastrand::Rng::new();
    while !*stopped.borrow() {
        let account_id = &accounts[random.usize(..accounts.len())];
        let lock = "UPDATE accounts SET account_id = account_id WHERE account_id =";
        let lock = format!("{lock} '{account_id}'");
        let transaction = session.begin().await.expect("begun");
        if transaction.execute_unprepared(&lock).await.is_ok() {
            sleep(ms(random.u64(5..80))).await;
        }
        transaction.rollback().await.expect("rolled back");
        sleep(ms(random.u64(5..30))).await;
    }
}
