//! kill -9 of a server with calls in flight: another server resolves each of them, in agreement
//! with the ledger.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::task::JoinSet;

use crate::harness::{
    checker,
    request::is_definite,
    ring::{open_ring, random_change},
    *,
};

const KILLS: usize = 8;
const CALLERS: usize = 32;
/// One in this many answered calls is resolved, too.
const ANSWERED_STEP: usize = 5;
/// One in this many requests with a result is repeated at the end.
const REPEATED_STEP: usize = 20;

on_both_databases! {
    after_a_kill_another_server_reports_the_outcome_of_every_call,
}

type Outcomes = Vec<(Change, Result<Answer, Status>)>;

async fn after_a_kill_another_server_reports_the_outcome_of_every_call(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut doomed = Server::start(&database).await;
    let witness = Server::start(&database).await;
    let client = witness.client();
    let (accounts, mut history) = open_ring(&client, 5).await;
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut made, mut not_made) = (0, 0);
    for _ in 0..KILLS {
        let outcomes = calls_until_a_kill(&mut doomed, &mut random, &accounts).await;
        let (unknown, answered): (Outcomes, Outcomes) =
            outcomes.into_iter().partition(|(_, answer)| is_unknown(answer));

        let resolved = resolve_all(&database, &client, &unknown).await;

        for ((change, _), resolved) in unknown.into_iter().zip(resolved) {
            match resolved.outcome() {
                RequestOutcome::Applied => made += 1,
                _ => not_made += 1,
            }
            history.push((change, result_of(resolved)));
        }
        for (number, (change, answer)) in answered.into_iter().enumerate() {
            if number % ANSWERED_STEP == 0 {
                let resolved = request_outcome(&client, change.request_id()).await;
                is_as_answered(&answer, &resolved);
            }
            history.push((
                change,
                answer.map_or_else(RequestResult::Rejected, RequestResult::Applied),
            ));
        }
        doomed.restart().await;
    }

    println!(
        "{kind:?}: {KILLS} kills, {} calls; of those without an answer {made} were made, \
         {not_made} not",
        history.len()
    );
    assert!(made > 0 && not_made > 0, "nothing was unknown");
    // The ledger matches the answers and the resolved outcomes, entry by entry.
    checker::assert_sound(&database, &history).await;
    // The restarted server agrees: on all fenced requests, and on some of the others.
    let is_fenced = |result: &RequestResult| match result {
        RequestResult::Applied(_) => false,
        RequestResult::Rejected(status) => !is_definite(status),
    };
    for (number, (change, result)) in history.iter().enumerate() {
        if number % REPEATED_STEP != 0 && !is_fenced(result) {
            continue;
        }
        let answer = change.send(&doomed.client(), PATIENCE).await;
        match (result, answer) {
            (RequestResult::Applied(before), Ok(after)) => {
                assert_eq!(before.transaction, after.transaction);
            }
            (RequestResult::Rejected(before), Err(after)) if is_definite(before) => {
                assert_eq!(before.message(), after.message());
            }
            (RequestResult::Rejected(_), Err(after)) => {
                assert_eq!(reason(&after), "REQUEST_FENCED");
            }
            (before, after) => panic!("{}: {before:?}, then {after:?}", change.request_id()),
        }
    }
}

/// Callers that send each change once, some with short deadlines, until the server is killed.
async fn calls_until_a_kill(
    doomed: &mut Server,
    random: &mut fastrand::Rng,
    accounts: &[String],
) -> Outcomes {
    let killed = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, accounts, killed) = (doomed.client(), accounts.to_vec(), killed.clone());
        let mut random = random.fork();
        callers.spawn(async move {
            let mut outcomes = Outcomes::new();
            while !killed.load(Relaxed) {
                let change = random_change(&mut random, &accounts);
                let patience = if random.u8(0..8) == 0 { random.u64(2..60) } else { 30_000 };
                let answer = change.send(&client, ms(patience)).await;
                outcomes.push((change, answer));
            }
            outcomes
        });
    }
    tokio::time::sleep(ms(random.u64(200..500))).await;
    killed.store(true, Relaxed);
    doomed.kill9();
    callers.join_all().await.into_iter().flatten().collect()
}

/// Whether the answer leaves the outcome open.
fn is_unknown(answer: &Result<Answer, Status>) -> bool {
    matches!(answer, Err(status) if !is_definite(status))
}

/// Half of the requests are fenced at once, while the database may still execute statements of the
/// killed server. The others are looked up after that, and then fenced.
async fn resolve_all(
    database: &TestDatabase,
    client: &Client,
    unknown: &Outcomes,
) -> Vec<GetRequestOutcomeResponse> {
    let mut resolved = Vec::new();
    let (fenced, looked_up) = unknown.split_at(unknown.len() / 2);
    for (change, _) in fenced {
        resolved.push(fence(client, change.request_id()).await);
    }
    if database.kind == Kind::Postgres {
        let at_work = format!(
            "pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()
             AND xact_start IS NOT NULL AND backend_type = 'client backend'",
            database.name()
        );
        eventually("the dead server's transactions end", async || {
            database.count(&at_work).await == 0
        })
        .await;
    }
    for (change, _) in looked_up {
        let found = request_outcome(client, change.request_id()).await;
        let fenced = fence(client, change.request_id()).await;
        match found.outcome() {
            RequestOutcome::NotSeen => assert_eq!(fenced, not_seen(true), "{found:?}"),
            _ => assert_eq!(fenced, found),
        }
        resolved.push(fenced);
    }
    for ((change, answer), resolved) in unknown.iter().zip(&resolved) {
        let again = request_outcome(client, change.request_id()).await;
        assert_eq!(&again, resolved, "a result is final");
        if let Err(status) = answer
            && outcome(status) == "not_applied"
        {
            assert_eq!(resolved, &not_seen(true), "the caller got: {status:?}");
        }
    }
    resolved
}

fn result_of(resolved: GetRequestOutcomeResponse) -> RequestResult {
    match resolved.outcome() {
        RequestOutcome::Applied => {
            let (transaction, hold) = (resolved.transaction, resolved.hold);
            RequestResult::Applied(Answer { transaction, hold, replayed: true })
        }
        RequestOutcome::Rejected => {
            let error = resolved.error.expect("an error");
            RequestResult::Rejected(Status::new(error.code.into(), error.message))
        }
        RequestOutcome::NotSeen => RequestResult::Rejected(Status::unknown("fenced")),
        RequestOutcome::Unspecified => panic!("{resolved:?}"),
    }
}

fn is_as_answered(answer: &Result<Answer, Status>, resolved: &GetRequestOutcomeResponse) {
    match answer {
        Ok(answer) => {
            assert_eq!(resolved.outcome(), RequestOutcome::Applied);
            assert_eq!(resolved.transaction.as_ref(), Some(answer.transaction()));
        }
        Err(status) => {
            assert_eq!(resolved.outcome(), RequestOutcome::Rejected, "{status:?}");
            let error = resolved.error.as_ref().expect("an error");
            assert_eq!(error.message, status.message());
        }
    }
}
