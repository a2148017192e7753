//! Other programs on the same database: an operator with psql, a cron job, a report.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sea_orm::ConnectionTrait;
use tokio::{task::JoinSet, time::Instant};

use crate::harness::{checker, ring::lost_to_foreign_updates, *};

/// Differences below this time are noise.
const P99_FLOOR: Duration = ms(20);

/// The wait of a server that ignores its callers' deadlines.
const OTHER_DEADLINE: [&str; 2] = ["--default-deadline", "1m"];

/// A psql session that locks the row of `hot`.
struct Psql(Child);

impl Psql {
    /// Ends the session, and with it the transaction.
    fn lets_go(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("psql ends");
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn psql_holds_the_row(database: &TestDatabase) -> Psql {
    let program = std::env::var("PASSBOOK_TEST_PSQL").unwrap_or_else(|_| "psql".to_owned());
    let mut command = Command::new(&program);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database.url()]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut psql = Psql(child.unwrap_or_else(|error| {
        panic!("this test needs psql, in PASSBOOK_TEST_PSQL or PATH: {program}: {error}")
    }));
    let lock = "BEGIN; SELECT balance FROM accounts WHERE account_id = 'hot' FOR UPDATE;";
    writeln!(psql.0.stdin.as_mut().expect("a pipe"), "{lock}").expect("psql reads");
    let has_it = format!(
        "pg_stat_activity WHERE datname = '{}' AND application_name = 'psql'
         AND state = 'idle in transaction' AND query LIKE '%FOR UPDATE%'",
        database.name()
    );
    eventually("psql has the row", async || database.count(&has_it).await == 1).await;
    psql
}

#[tokio::test(flavor = "multi_thread")]
async fn while_psql_holds_a_row_calls_on_it_end_by_their_deadline_and_others_go_on() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Alone).await;
    let server = Server::start_with(&database, &OTHER_DEADLINE).await;
    let client = server.client();
    open_funded(&client, "hot", "100").await;
    for number in 0..8 {
        open_funded(&client, &format!("cold-{number}"), "1000000").await;
    }
    // Warms up, then measures the same load without the foreign lock.
    p99_of_calls_on_other_accounts(&client, 50).await;
    let before = p99_of_calls_on_other_accounts(&client, 200).await;

    let psql = psql_holds_the_row(&database).await;
    let (mut hot_calls, patient) = (JoinSet::new(), server.patient());
    for number in 0..20_u64 {
        let client = patient.clone();
        hot_calls.spawn(async move {
            tokio::time::sleep(ms(100 * number)).await;
            let change = match number % 3 {
                0 => Change::Deposit(deposit("hot", "1")),
                1 => Change::Withdraw(withdrawal("hot", "1")),
                _ => Change::Transfer(transfer("cold-0", "hot", "1")),
            };
            let deadline = ms(300 + 50 * number);
            let started = Instant::now();
            let answer = change.send(&client, deadline).await;
            (change, answer, deadline, started.elapsed())
        });
    }
    let during = p99_of_calls_on_other_accounts(&client, 200).await;
    let hot_calls = hot_calls.join_all().await;
    let kept = database.texts("SELECT request_id FROM requests").await;
    psql.lets_go();

    for (change, answer, deadline, taken) in hot_calls {
        let status = answer.expect_err("a foreign lock is on the row");
        says_not_applied(&status);
        times::promise("an answer", taken, deadline + ms(100));
        assert!(!kept.iter().any(|kept| kept == change.request_id()), "applied: {status:?}");
    }
    let figure = format!("p99 of others: {before:?} before, {during:?} while the row is held");
    times::figure(&figure, during <= 2 * before.max(P99_FLOOR));
    the_account_works_again(&client, "hot").await;
    checker::assert_consistent(&database).await;
}

fn says_not_applied(status: &Status) {
    let code_fits = match reason(status).as_str() {
        "LOCK_TIMEOUT" | "CONTENTION" => status.code() == Code::Aborted,
        "DEADLINE_EXCEEDED" => status.code() == Code::DeadlineExceeded,
        _ => false,
    };
    assert!(code_fits, "{status:?}");
    assert_eq!(outcome(status), "not_applied", "{status:?}");
}

async fn the_account_works_again(client: &Client, account_id: &str) {
    let change = Change::Deposit(deposit(account_id, "1"));
    change.settle(std::slice::from_ref(client)).await;
}

/// Eight callers, each with sequential calls on its own account.
async fn p99_of_calls_on_other_accounts(client: &Client, calls: usize) -> Duration {
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let client = client.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..calls {
                let change = Change::Deposit(deposit(&format!("cold-{number}"), "1"));
                let started = Instant::now();
                change.send(&client, PATIENCE).await.expect("nobody holds this account");
                times.push(started.elapsed());
                tokio::time::sleep(ms(5)).await;
            }
            times
        });
    }
    let mut times: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_update_under_the_row_lock_is_respected() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    open_funded(&client, "alice", "100").await;
    let cron = database.connect().await;

    for round in 1..=10 {
        let locked = "BEGIN; SELECT balance FROM accounts WHERE account_id = 'alice' FOR UPDATE";
        cron.execute_unprepared(locked).await.expect("the row is locked");
        let waiting = spawn_deposit(&client, "alice", "1");
        eventually("it waits for the row", async || database.lock_waits().await > 0).await;
        let update = "UPDATE accounts SET balance = balance + 5 WHERE account_id = 'alice'; COMMIT";
        cron.execute_unprepared(update).await.expect("the balance is changed");

        let answer = waiting.await.expect("the call ends").expect("applied");
        let entry = &answer.transaction.expect("a transaction").entries[0];
        assert_eq!(value(&entry.balance_after), format!("{}.00", 100 + 6 * round));
    }

    assert_eq!(balance(&client, "alice").await, "160.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_updates_by_other_programs_are_never_overwritten() {
    let database = TestDatabase::create_for(Kind::Postgres, Load::Heavy).await;
    let server = Server::start(&database).await;
    assert_eq!(lost_to_foreign_updates(&database, &server.client()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_process_writes_to_the_sqlite_file_calls_end_by_their_deadline() {
    let database = TestDatabase::create_for(Kind::Sqlite, Load::Alone).await;
    let server = Server::start_with(&database, &OTHER_DEADLINE).await;
    let client = server.client();
    open_funded(&client, "hot", "100").await;
    let foreign = database.lock_account("").await;
    let (mut calls, patient) = (JoinSet::new(), server.patient());
    for number in 0..12 {
        let client = patient.clone();
        calls.spawn(async move {
            let change = Change::Deposit(deposit("hot", "1"));
            let deadline = ms(300 + 100 * number);
            let started = Instant::now();
            let answer = change.send(&client, deadline).await;
            (change, answer, deadline, started.elapsed())
        });
    }
    let reading = balance(&client, "hot").await;
    assert_eq!(reading, "100.00", "readers do not wait for writers");

    let calls = calls.join_all().await;
    let kept = database.texts("SELECT request_id FROM requests").await;
    foreign
        .execute_unprepared("UPDATE accounts SET balance = '105'; COMMIT")
        .await
        .expect("committed");

    for (change, answer, deadline, taken) in calls {
        let status = answer.expect_err("someone else has the write lock");
        says_not_applied(&status);
        times::promise("an answer", taken, deadline + ms(100));
        assert!(!kept.iter().any(|kept| kept == change.request_id()), "applied: {status:?}");
    }
    the_account_works_again(&client, "hot").await;
    assert_eq!(balance(&client, "hot").await, "106.00", "the foreign change is respected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_succeeds_when_the_foreign_lock_ends_before_its_deadline() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    open_funded(&client, "hot", "100").await;
    let psql = psql_holds_the_row(&database).await;

    let calling = spawn_deposit(&client, "hot", "1");
    eventually("it waits for the row", async || database.lock_waits().await > 0).await;
    psql.lets_go();
    let answer = calling.await.expect("no panic").expect("the row is free in time");

    assert!(!answer.replayed);
    assert_eq!(balance(&client, "hot").await, "101.00");
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_client_deadline_the_server_default_bounds_the_lock_wait() {
    let (database, _server, client) =
        start_server_with(Kind::Postgres, &["--default-deadline", "600ms"]).await;
    open_funded(&client, "hot", "100").await;
    let psql = psql_holds_the_row(&database).await;
    let started = Instant::now();

    let answer = client.deposit(deposit("hot", "1")).await;

    says_not_applied(&answer.expect_err("a foreign lock is on the row"));
    let taken = started.elapsed();
    assert!(taken > ms(300), "{taken:?}");
    times::promise("an answer", taken, ms(900));
    psql.lets_go();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_with_a_foreign_transaction_is_retried_without_harm() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    open_funded(&client, "a", "100").await;
    open_funded(&client, "b", "100").await;
    let foreign = database.connect().await;

    for _ in 0..5 {
        let lock = |account_id| {
            format!("SELECT balance FROM accounts WHERE account_id = '{account_id}' FOR UPDATE")
        };
        foreign.execute_unprepared("BEGIN").await.expect("a transaction");
        foreign.execute_unprepared(&lock("b")).await.expect("the row is locked");
        let change = Change::Transfer(transfer("a", "b", "1"));
        let (sent, clients) = (change.clone(), [client.clone()]);
        let waiting = tokio::spawn(async move { sent.settle(&clients).await });
        tokio::time::sleep(ms(50)).await;
        // Each may now hold the lock that the other needs. The deadlock victim starts again.
        let _ = foreign.execute_unprepared(&lock("a")).await;
        foreign.execute_unprepared("ROLLBACK").await.expect("the end");

        let result = waiting.await.expect("the call ends");
        assert!(matches!(result, RequestResult::Applied(_)), "{result:?}");
    }

    assert_eq!(balance(&client, "b").await, "105.00");
    checker::assert_consistent(&database).await;
}
