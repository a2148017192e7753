//! What a server does after a collision with another server or program: when it takes turns, what
//! it waits for and for how long, and which requests it leaves out.

use sea_orm::ConnectionTrait;

use crate::{
    concurrency::turns::TAKE_TURN,
    harness::{admin::Admin, *},
};

/// With one worker, the next attempt at a request is that of the worker that has failed.
const ONE_WORKER: [&str; 4] = ["--database-connections-max", "7", "--log", "passbook=debug"];

const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK_DETECTED: &str = "40P01";

/// Whether an attempt has the turn, and its limit of each lock wait.
const IN_A_TURN: &str = "in a turn, 20ms";
const WITHOUT_A_TURN: &str = "without a turn, 2ms";

/// Fails these of the next attempts to record requests, counted from one, with this error. Each
/// other attempt adds a row to the table `attempted`: [`IN_A_TURN`] or [`WITHOUT_A_TURN`].
async fn fail_attempts(database: &TestDatabase, code: &str, numbers: &[usize]) {
    let statements = format!(
        "CREATE SEQUENCE IF NOT EXISTS attempts;
         ALTER SEQUENCE attempts RESTART;
         CREATE TABLE IF NOT EXISTS attempted (number bigserial, how text);
         TRUNCATE attempted;
         CREATE OR REPLACE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('attempts') = ANY (ARRAY{numbers:?}::bigint[]) THEN
                 RAISE EXCEPTION 'injected' USING ERRCODE = '{code}';
             END IF;
             INSERT INTO attempted (how) SELECT concat(
                 CASE WHEN EXISTS (
                     SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND classid = 1885434739
                 ) THEN 'in' ELSE 'without' END,
                 ' a turn, ', current_setting('lock_timeout'));
             RETURN NULL;
         END $$;
         CREATE OR REPLACE TRIGGER attempt AFTER INSERT ON requests EXECUTE FUNCTION attempt()"
    );
    database.execute(&statements).await;
}

/// The attempts that have committed.
async fn attempted(database: &TestDatabase) -> Vec<String> {
    database.texts("SELECT how FROM attempted ORDER BY number").await
}

fn has_parked(server: &Server) -> bool {
    server.log().contains("its requests are parked")
}

/// How often attempts failed for these causes.
async fn failures<const COUNT: usize>(admin: Admin, causes: [&str; COUNT]) -> [f64; COUNT] {
    let metrics = admin.metrics().await;
    causes.map(|cause| metrics.value(&format!("passbook_retries_total{{cause=\"{cause}\"}}")))
}

/// A server that takes no turns yet, with the account `alice`.
async fn start_without_turns(database: &TestDatabase) -> (Server, Client) {
    let server = Server::start_with(database, &ONE_WORKER).await;
    let client = server.client();
    open(&client, "alice").await;
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_collides_again_takes_a_turn_and_what_fails_in_a_turn_is_retried() {
    let database = TestDatabase::create(Kind::Postgres).await;
    for (code, failed, how, logs_retry) in [
        (LOCK_NOT_AVAILABLE, &[][..], WITHOUT_A_TURN, false),
        // Perhaps of a row: the second attempt leaves out what is locked.
        (LOCK_NOT_AVAILABLE, &[1], WITHOUT_A_TURN, false),
        // Of a key.
        (LOCK_NOT_AVAILABLE, &[1, 2], IN_A_TURN, false),
        (LOCK_NOT_AVAILABLE, &[1, 2, 3], IN_A_TURN, false),
        // The transaction that has the key takes no turns. A retry waits for it, and logs nothing.
        (LOCK_NOT_AVAILABLE, &[1, 2, 3, 4], WITHOUT_A_TURN, false),
        (DEADLOCK_DETECTED, &[1], IN_A_TURN, false),
        (DEADLOCK_DETECTED, &[1, 2], IN_A_TURN, true),
    ] {
        let event = format!("{code} {failed:?}");
        let (server, client) = start_without_turns(&database).await;
        fail_attempts(&database, code, failed).await;
        deposited(&client, "alice", "1").await;
        assert_eq!(attempted(&database).await, [how], "{event}");
        let log = server.log();
        assert_eq!(log.contains("database transaction aborted"), logs_retry, "{event}: {log}");
        database.execute("DROP TRIGGER attempt ON requests").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_leaves_out_locked_rows_does_not_make_up_for_a_collision() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (_server, client) = start_without_turns(&database).await;
    // The second and the fifth leave out locked rows, the third is granted all.
    fail_attempts(&database, LOCK_NOT_AVAILABLE, &[1, 4]).await;
    for _ in 0..3 {
        deposited(&client, "alice", "1").await;
    }
    let taken = [WITHOUT_A_TURN, WITHOUT_A_TURN, IN_A_TURN];
    assert_eq!(attempted(&database).await, taken, "two collisions, and one batch between them");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_of_a_server_at_a_time_waits_for_the_turn_of_another_server() {
    const ACCOUNTS: usize = 40;
    let (database, _server, client) = start_server(Kind::Postgres).await;
    for number in 0..ACCOUNTS {
        open(&client, &format!("account-{number}")).await;
    }
    let waits = "pg_locks WHERE locktype = 'advisory' AND classid = 1885434739 AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut most = 0;
    // A worker waits for half a second. On a busy machine this test may not look meanwhile.
    for _ in 0..10 {
        fail_attempts(&database, DEADLOCK_DETECTED, &[1]).await;
        deposited(&client, "account-0", "1").await;
        let other = database.connect().await;
        other.execute_unprepared(TAKE_TURN).await.expect("the turn is taken");
        let client = client.clone();
        let deposits = tokio::spawn(async move {
            let accounts = (0..ACCOUNTS).map(|number| format!("account-{number}"));
            let requests = accounts.map(|account_id| within(PATIENCE, deposit(&account_id, "1")));
            join_all(requests.map(|request| client.deposit(request))).await
        });
        while !deposits.is_finished() {
            most = most.max(database.count(waits).await);
        }
        for answer in deposits.await.expect("no panic") {
            answer.expect("applied without the turn");
        }
        if most > 0 {
            break;
        }
    }
    assert_eq!(most, 1, "the other worker would wait with jobs that could be in one batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_turn_a_row_that_a_program_has_locked_is_waited_for_once_and_holds_up_no_other() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (server, admin) = Server::start_with_admin(&database, &ONE_WORKER).await;
    let client = server.client();
    open_all(&client, &["locked", "free"]).await;
    fail_attempts(&database, DEADLOCK_DETECTED, &[1]).await;
    deposited(&client, "free", "1").await;
    let program = database.lock_account("locked").await;

    let waiting = spawn_deposit(&client, "locked", "1");
    eventually("it is parked", async || has_parked(&server)).await;
    deposited(&client, "free", "1").await;
    assert!(!waiting.is_finished(), "the row is locked");
    assert_eq!(failures(admin, ["aborted", "lock_timeout"]).await, [1.0, 1.0]);
    program.execute_unprepared("ROLLBACK").await.expect("the row is free");
    waiting.await.expect("no panic").expect("applied");

    // The last one has locked the row after a long wait, and would keep others waiting.
    let taken = [IN_A_TURN, IN_A_TURN, WITHOUT_A_TURN];
    assert_eq!(attempted(&database).await, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_turn_that_is_not_granted_the_next_batch_leaves_out_locked_rows_at_once() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (server, admin) = Server::start_with_admin(&database, &ONE_WORKER).await;
    let client = server.client();
    open(&client, "alice").await;
    fail_attempts(&database, DEADLOCK_DETECTED, &[1]).await;
    deposited(&client, "alice", "1").await;
    let other = database.lock_account("alice").await;
    other.execute_unprepared(TAKE_TURN).await.expect("the turn is taken");

    let waiting = spawn_deposit(&client, "alice", "1");
    eventually("it is parked", async || has_parked(&server)).await;
    let failures = failures(admin, ["aborted", "lock_timeout"]).await;
    assert_eq!(failures, [1.0, 1.0], "only the wait for the turn");
    other.execute_unprepared("ROLLBACK").await.expect("the row is free");
    waiting.await.expect("no panic").expect("applied without the turn");
    assert_eq!(attempted(&database).await, [IN_A_TURN, WITHOUT_A_TURN]);
}
