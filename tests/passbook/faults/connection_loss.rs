//! The connection to PostgreSQL is cut in a transaction, most often at COMMIT: before or after it takes
//! effect.

use crate::harness::{
    checker,
    proxy::{PostgresProxy, Side, TransactionCut},
    request::is_definite,
    ring::{RingLoad, open_ring},
    *,
};

const CUTS: usize = 50;
/// The round trips of a transaction: BEGIN, lock, write, COMMIT.
const ROUND_TRIPS: usize = 4;
/// On a new connection the two statements in between are prepared first.
const ROUND_TRIPS_MAX: usize = ROUND_TRIPS + 2;

struct Cuttable {
    proxy: PostgresProxy,
    server: Server,
    client: Client,
    database: TestDatabase,
}

async fn start(load: Load) -> Cuttable {
    let database = TestDatabase::create_for(Kind::Postgres, load).await;
    let proxy = PostgresProxy::start(database.url()).await;
    let server = Server::start_at(&database.url_at(proxy.address), &[]).await;
    let client = server.client();
    Cuttable { proxy, server, client, database }
}

/// Whether the database has a record of this request.
async fn is_kept(database: &TestDatabase, change: &Change) -> bool {
    database.count(&format!("requests WHERE request_id = '{}'", change.request_id())).await > 0
}

/// Fails unless the database agrees with the first answer to a change that nothing rejects.
async fn assert_true(database: &TestDatabase, change: &Change, answer: Result<Answer, Status>) {
    match answer {
        Ok(answer) => {
            assert!(!answer.replayed, "no other request for it");
            assert!(is_kept(database, change).await, "answered, but not committed");
        }
        Err(status) => match outcome(&status).as_str() {
            "not_applied" => assert!(!is_kept(database, change).await, "{status:?}"),
            "unknown" => {}
            _ => panic!("neither an answer nor an outcome: {status:?}"),
        },
    }
}

/// A call or an answer is lost, at each place of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_round_trip_ends_in_one_effect_or_in_none() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Light).await;
    let (accounts, mut history) = open_ring(&client, 2).await;
    let (a, b) = (accounts[0].as_str(), accounts[1].as_str());

    for side in [Side::Call, Side::Answer] {
        for round_trip in 0..ROUND_TRIPS_MAX {
            let changes = [
                Change::Transfer(transfer(a, b, "1")),
                Change::Post(posting(&[(a, "1"), (b, "-1")])),
                Change::Withdraw(withdrawal(a, "1000")),
            ];
            for change in changes {
                let cuts_before = proxy.cuts_made();
                proxy.cut_next_transaction(TransactionCut { round_trip, side });
                match change.send(&client, PATIENCE).await {
                    Err(status) if is_definite(&status) => {}
                    answer => assert_true(&database, &change, answer).await,
                }
                let is_cut = proxy.cuts_made() > cuts_before;
                assert!(is_cut || round_trip >= ROUND_TRIPS, "{round_trip} {side:?}: not cut");
                let result = change.settle(std::slice::from_ref(&client)).await;
                history.push((change, result));
            }
        }
    }

    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_before_commit_ends_in_one_effect_or_in_none() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Light).await;
    let (accounts, mut history) = open_ring(&client, 2).await;

    for cut in 0..CUTS {
        let change = Change::Transfer(transfer(&accounts[cut % 2], &accounts[(cut + 1) % 2], "1"));
        proxy.cut_before_next_commit();
        let answer = change.send(&client, PATIENCE).await;
        assert_true(&database, &change, answer).await;
        let result = change.settle(std::slice::from_ref(&client)).await;
        history.push((change, result));
    }

    assert_eq!(proxy.cuts_made(), CUTS);
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_after_commit_is_answered_with_the_commit_s_own_result() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Light).await;
    let (accounts, mut history) = open_ring(&client, 2).await;

    for cut in 0..CUTS {
        let change = Change::Transfer(transfer(&accounts[cut % 2], &accounts[(cut + 1) % 2], "1"));
        proxy.cut_after_next_commit();
        let answer = change.send(&client, PATIENCE).await;
        let answer = answer.expect("the server looks up what it has done, and knows");
        assert!(!answer.replayed, "the first answer is not a replay");
        assert!(is_kept(&database, &change).await);
        history.push((change, RequestResult::Applied(answer)));
    }

    assert_eq!(proxy.cuts_made(), CUTS);
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_whose_commit_was_cut_is_the_same_rejection() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Light).await;
    open_funded(&client, "a", "10").await;
    let change = Change::Withdraw(withdrawal("a", "11"));
    proxy.cut_after_next_commit();

    let first = change.send(&client, PATIENCE).await;
    let again = change.send(&client, PATIENCE).await;

    let first = must_fail(first, Reason::InsufficientFunds);
    let again = must_fail(again, Reason::InsufficientFunds);
    assert_repeated(&first, &again);
    assert_eq!(proxy.cuts_made(), 1);
    checker::assert_consistent(&database).await;
}

/// An update has no request id that would say whether it was made.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_in_doubt_does_not_undo_a_later_one() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Light).await;
    let beside = Server::start(&database).await;
    let other = beside.client();
    open(&client, "alice").await;
    freeze(&client, "alice").await;
    proxy.cut_after_next_commit_and_freeze();
    let unfreezing = tokio::spawn(async move {
        set_state(&client, "alice", AccountState::Open, "in doubt", None).await
    });
    let is_open = async || get(&other, "alice").await.state() == AccountState::Open;
    eventually("it is open", is_open).await;

    freeze(&other, "alice").await;
    proxy.thaw();

    let status = unfreezing.await.expect("no panic").expect_err("nobody knows");
    assert_eq!(outcome(&status), "unknown", "{status:?}");
    assert_eq!(get(&other, "alice").await.state(), AccountState::Frozen);
    assert_eq!(database.count("account_changes").await, 3);
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_in_doubt_is_made_once_although_the_balance_changes() {
    let Cuttable { proxy, client, database, server } = start(Load::Light).await;
    let beside = Server::start(&database).await;
    open(&client, "alice").await;
    proxy.cut_before_next_commit_and_freeze();
    let freezing = tokio::spawn({
        let client = server.client();
        async move { set_state(&client, "alice", AccountState::Frozen, "in doubt", None).await }
    });
    eventually("the commit is lost", async || proxy.cuts_made() == 1).await;

    deposited(&beside.client(), "alice", "1").await;
    proxy.thaw();

    let frozen = freezing.await.expect("no panic").expect("nobody else has updated it");
    assert_eq!((frozen.state(), frozen.version), (AccountState::Frozen, 3));
    proxy.cut_after_next_commit();
    assert_eq!(unfreeze(&client, "alice").await.version, 4, "it was made, and is not made again");
    assert_eq!(proxy.cuts_made(), 2);
    assert_eq!(database.count("account_changes").await, 2);
    checker::assert_consistent(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_never_reported_as_not_applied() {
    let Cuttable { proxy, client, database, server } = start(Load::Light).await;
    let patient = server.patient();
    let (accounts, mut history) = open_ring(&client, 1).await;
    let mut commits_cut = 0;

    for _ in 0..4 {
        let change = Change::Deposit(deposit(&accounts[0], "1"));
        proxy.cut_after_next_commit_and_freeze();
        // Long enough for a lookup to fail. A failed lookup must not count as an answer.
        let status = change.send(&patient, ms(3500)).await.expect_err("the database is silent");
        let is_applied = is_kept(&database, &change).await;
        let said = outcome(&status);
        assert!(said == "unknown" || said == "not_applied" && !is_applied, "{status:?}");
        commits_cut += usize::from(is_applied);

        proxy.thaw();
        // Waits for the server's lookup, whose own commit must not be the next one to be cut.
        tokio::time::sleep(ms(700)).await;
        assert_eq!(
            is_kept(&database, &change).await,
            is_applied,
            "it changed its mind: {status:?}"
        );
        let result = change.settle(std::slice::from_ref(&client)).await;
        let was_replayed = matches!(&result, RequestResult::Applied(answer) if answer.replayed);
        assert_eq!(was_replayed, is_applied, "{result:?}");
        history.push((change, result));
    }

    assert!(commits_cut > 0, "no commit was cut");
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cuts_under_load_lose_nothing_and_double_nothing() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Heavy).await;
    let (accounts, mut history) = open_ring(&client, 5).await;
    let load = RingLoad::start(&accounts, 24, std::slice::from_ref(&client), seed());

    for cut in 0..2 * CUTS {
        if cut % 2 == 0 {
            proxy.cut_before_next_commit();
        } else {
            proxy.cut_after_next_commit();
        }
        eventually("a commit is cut", async || proxy.cuts_made() > cut).await;
        tokio::time::sleep(ms(20)).await;
    }
    history.extend(load.stop().await);

    println!("{} changes over {} cuts", history.len(), proxy.cuts_made());
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_keeps_no_call_past_its_deadline() {
    let Cuttable { proxy, client, database, server } = start(Load::Light).await;
    let patient = server.patient();
    let (accounts, mut history) = open_ring(&client, 3).await;
    let mut changes = Vec::new();
    proxy.freeze();
    let started = tokio::time::Instant::now();
    for account_id in &accounts {
        changes.push(Change::Deposit(deposit(account_id, "1")));
    }
    let mut calls = tokio::task::JoinSet::new();
    for change in changes.clone() {
        let patient = patient.clone();
        calls.spawn(async move { change.send(&patient, seconds(2)).await });
    }

    for answer in calls.join_all().await {
        let status = answer.expect_err("the database says nothing");
        // Not UNAVAILABLE, which the server would return by itself seconds later.
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(matches!(outcome(&status).as_str(), "unknown" | "not_applied"), "{status:?}");
    }
    times::promise("an answer", started.elapsed(), seconds(3));

    proxy.thaw();
    let thawed = tokio::time::Instant::now();
    for change in changes {
        let result = change.settle(std::slice::from_ref(&client)).await;
        history.push((change, result));
    }
    println!("at work again {:?} after the line came back", thawed.elapsed());
    checker::assert_sound(&database, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_recovers_from_a_partition_with_changes_in_flight() {
    let Cuttable { proxy, client, database, server: _server } = start(Load::Heavy).await;
    let (accounts, mut history) = open_ring(&client, 4).await;
    let load = RingLoad::start(&accounts, 16, std::slice::from_ref(&client), seed());

    for _ in 0..3 {
        tokio::time::sleep(ms(300)).await;
        proxy.freeze();
        tokio::time::sleep(ms(700)).await;
        proxy.thaw();
    }
    tokio::time::sleep(ms(300)).await;
    history.extend(load.stop().await);
    checker::assert_sound(&database, &history).await;
}
