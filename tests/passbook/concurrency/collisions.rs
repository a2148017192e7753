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

fn takes_turns(server: &Server) -> bool {
    server.log().contains("servers take turns")
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

/// The batch meets the locked row, then without it the repeat.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_tried_again_for_a_repeat_still_leaves_out_the_locked_row() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let (server, admin) = Server::start_with_admin(&database, &ONE_WORKER).await;
    let client = server.client();
    open_all(&client, &["locked", "free"]).await;
    let repeat = post(&[leg("free", "1")]);
    posted(&client, repeat.clone()).await;
    let program = database.lock_account("locked").await;

    let requests = vec![post(&[leg("locked", "1")]), repeat];
    let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
    let waiting = tokio::spawn(async move { client.batch_post_transactions(batch).await });
    eventually("one is parked", async || has_parked(&server)).await;
    program.execute_unprepared("ROLLBACK").await.expect("the row is free");
    let answer = waiting.await.expect("no panic").expect("two results");

    let replayed: Vec<_> = answer.results.iter().map(|it| it.replayed).collect();
    assert_eq!(replayed, [false, true]);
    assert_eq!(failures(admin, ["repeat", "lock_timeout"]).await, [1.0, 1.0]);
    assert!(!takes_turns(&server), "that was one collision");
}

/// Makes the next session that records a request see its own views instead of those of PostgreSQL:
/// while the gate is shut, the question who has locked a row waits, and no transaction is ever old.
const OWN_VIEWS: &str = "
    CREATE FUNCTION pass_gate() RETURNS boolean LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
        PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END $$;
    CREATE FUNCTION add_views() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        CREATE TEMP VIEW pg_locks AS SELECT * FROM pg_catalog.pg_locks WHERE pass_gate();
        CREATE TEMP VIEW pg_stat_activity AS
            SELECT pid, application_name, clock_timestamp() AS xact_start
            FROM pg_catalog.pg_stat_activity;
        RETURN NULL; END $$;
    CREATE TRIGGER add_views AFTER INSERT ON requests EXECUTE FUNCTION add_views()";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_freed_before_its_owner_is_looked_up_counts_as_free_or_as_a_peer_s() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let server = Server::start_with(&database, &ONE_WORKER).await;
    let client = server.client();
    open_all(&client, &["freed", "taken"]).await;
    database.execute(OWN_VIEWS).await;
    deposited(&client, "freed", "1").await;
    database.execute("DROP TRIGGER add_views ON requests").await;
    let gate = database.connect().await;
    gate.execute_unprepared("SELECT pg_advisory_lock(1)").await.expect("it is shut");
    let programs = [database.lock_account("freed").await, database.lock_account("taken").await];

    let requests = vec![post(&[leg("freed", "1")]), post(&[leg("taken", "1")])];
    let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.batch_post_transactions(batch).await })
    };
    let looks = "pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    eventually("the owners are looked up", async || database.count(looks).await == 1).await;
    for program in programs {
        program.execute_unprepared("ROLLBACK").await.expect("its row is free");
    }
    let peer = database.lock_account("taken").await;
    let name = "SET application_name = 'passbook'";
    peer.execute_unprepared(name).await.expect("it looks like a server");
    gate.execute_unprepared("SELECT pg_advisory_unlock(1)").await.expect("it is open");

    eventually("one is applied", async || balance(&client, "freed").await == "2.00").await;
    assert!(!waiting.is_finished(), "the peer still has the other row");
    peer.execute_unprepared("ROLLBACK").await.expect("its row is free");
    let answer = waiting.await.expect("no panic").expect("two results");
    assert_eq!(answer.results.len(), 2);
    assert_eq!(balance(&client, "taken").await, "1.00");
    assert!(!has_parked(&server), "no other program had a row by then");
}
