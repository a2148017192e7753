//! No update is lost with several processes: the promise that all others rest on.
//! `locking_negative_control` shows that this test can fail.

use crate::harness::{
    checker,
    ledger_dump::LedgerDump,
    ring::{RingLoad, Stop, open_ring},
    *,
};

/// Callers of all processes, and changes of each.
const CALLERS: usize = 48;
const CHANGES_EACH: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_on_one_postgres_lose_no_update() {
    no_update_is_lost(Kind::Postgres, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_sqlite_file_lose_no_update() {
    no_update_is_lost(Kind::Sqlite, 2).await;
}

async fn no_update_is_lost(kind: Kind, processes: usize) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, processes).await;
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let (accounts, mut history) = open_ring(&clients[0], 6).await;
    let started = std::time::Instant::now();

    history.extend(
        RingLoad::on(&accounts, CALLERS, Stop::After(CHANGES_EACH), seed()).run(&clients).await,
    );

    let applied =
        history.iter().filter(|(_, result)| matches!(result, RequestResult::Applied(_))).count();
    let (total, taken) = (history.len(), started.elapsed());
    println!("{kind:?}: {processes} processes, {applied} of {total} changes applied, {taken:?}");
    assert_eq!(history.len(), CALLERS * CHANGES_EACH + accounts.len());
    assert!(applied > history.len() / 2, "the load is mostly rejected: it shows little");
    checker::assert_sound(&database, &history).await;
    let dump = LedgerDump::read(&database).await;
    assert!(
        dump.entries.values().all(|entries| entries.len() > 100),
        "every account was contended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_server_waits_for_a_row_that_another_session_has_locked() {
    use sea_orm::ConnectionTrait;
    let (database, _server, client) = start_server(Kind::Postgres).await;
    open_funded(&client, "alice", "1000").await;
    let foreign = database.lock_account("alice").await;

    let waiting = spawn_deposit(&client, "alice", "100");

    eventually("the server waits for the row", async || database.lock_waits().await > 0).await;
    assert!(!waiting.is_finished());
    let withdraw = "UPDATE accounts SET balance = balance - 100 WHERE account_id = 'alice'; COMMIT";
    foreign.execute_unprepared(withdraw).await.expect("the foreign withdrawal is made");
    let answer = waiting.await.expect("the call ends").expect("the deposit is applied");

    let entry = &answer.transaction.expect("a transaction").entries[0];
    assert_eq!(value(&entry.balance_after), "1000.00", "the joint account: 1000 - 100 + 100");
    assert_eq!(balance(&client, "alice").await, "1000.00");
}
