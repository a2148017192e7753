//! FenceRequest: a request without a result is never applied, wherever it waits.

use std::collections::BTreeMap;

use sea_orm::ConnectionTrait;
use tokio::task::JoinSet;

use crate::harness::{checker, request::one_of_each_kind, *};

/// Races between a request and its fence.
const MEETINGS: usize = 150;
/// Concurrent races.
const MEETINGS_AT_ONCE: usize = 15;

on_both_databases! {
    a_fence_comes_after_the_shape_and_before_everything_else,
    a_fenced_request_is_never_applied,
    concurrent_request_and_fence_agree,
}

#[track_caller]
fn is_fenced(answer: Result<Answer, Status>, request_id: &str) {
    let status = must_fail(answer, Reason::RequestFenced);
    assert_eq!(metadata(&status, "request_id"), request_id);
}

async fn a_fence_comes_after_the_shape_and_before_everything_else(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "100").await;
    let fenced = new_request_id();
    assert_eq!(fence(&client, &fenced).await, not_seen(true));
    let request = DepositRequest { request_id: fenced.clone(), ..deposit("alice", "1") };

    // A malformed request is not looked up.
    let malformed = DepositRequest { amount: money("1e1"), ..request.clone() };
    must_fail(client.deposit(malformed).await, Reason::InvalidAmount);
    // `validate_only` shows what would happen.
    let dry = Change::Deposit(DepositRequest { validate_only: true, ..request });
    is_fenced(dry.send(&client, PATIENCE).await, &fenced);
    assert_eq!(balance(&client, "alice").await, "100.00");
    checker::assert_consistent(&database).await;
}

async fn a_fenced_request_is_never_applied(kind: Kind) {
    let (database, _servers, clients) = start_loaded(kind, 2).await;
    let client = clients[0].clone();
    let each = one_of_each_kind(&client, "alice").await;
    let rejected_anyway = Change::ReleaseHold(release("no-such-hold"));
    let before = Standing::read(&database, &client).await;

    for (number, asked) in each.iter().chain([&rejected_anyway]).enumerate() {
        let fenced_at = &clients[number % 2];
        assert_eq!(fence(fenced_at, asked.request_id()).await, not_seen(true));
        assert_final_everywhere(&clients, asked.request_id(), &not_seen(true)).await;
    }
    // They arrive a second later, as requests delayed in a network may.
    tokio::time::sleep(seconds(1)).await;
    for asked in each.iter().chain([&rejected_anyway]) {
        for client in [&clients[0], &clients[1], &clients[0]] {
            is_fenced(asked.send(client, PATIENCE).await, asked.request_id());
        }
        assert_final_everywhere(&clients, asked.request_id(), &not_seen(true)).await;
        let answer = client.get_transaction(transaction_by_request_id(asked.request_id())).await;
        must_fail(answer, Reason::TransactionNotFound);
    }

    assert_eq!(Standing::read(&database, &client).await, before, "something was made");
    // The fence is on the id, not on the body.
    let same = Change::Deposit(deposit("alice", "1"));
    same.send(&client, PATIENCE).await.expect("under another id it is made");
}

/// Everything that moving or holding money would change.
#[derive(Debug, PartialEq)]
struct Standing {
    alice: Account,
    other: Account,
    entries: i64,
    /// All holds, and the open ones.
    holds: (i64, i64),
    applied: i64,
}

impl Standing {
    async fn read(database: &TestDatabase, client: &Client) -> Self {
        let open = database.count("holds WHERE state = 'open'").await;
        Self {
            alice: get(client, "alice").await,
            other: get(client, "alice-other").await,
            entries: database.count("entries").await,
            holds: (database.count("holds").await, open),
            applied: database.count("requests WHERE rejection IS NULL").await,
        }
    }
}

async fn concurrent_request_and_fence_agree(kind: Kind) {
    let (database, _servers, clients) = start_loaded(kind, 2).await;
    open(&clients[0], "alice").await;
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut meetings, mut made) = (JoinSet::new(), Vec::new());
    for _ in 0..MEETINGS {
        meetings.spawn(meet(clients.clone(), random.fork()));
        if meetings.len() >= MEETINGS_AT_ONCE {
            made.extend(meetings.join_next().await.map(|meeting| meeting.expect("they agree")));
        }
    }
    made.extend(meetings.join_all().await);

    let applied = made.iter().filter(|it| **it).count();
    println!("{kind:?}: {applied} of {MEETINGS} requests came before their fences");
    assert!(applied > 0 && applied < MEETINGS, "only one of the two ways was met");
    assert_eq!(balance(&clients[0], "alice").await, format!("{applied}.00"));
    checker::assert_consistent(&database).await;
}

/// Sends a deposit to each server while each fences it. All answers must agree. Returns whether it
/// was applied.
async fn meet(clients: Vec<Client>, mut random: fastrand::Rng) -> bool {
    let change = Change::Deposit(deposit("alice", "1"));
    let id = change.request_id().to_owned();
    let (mut sends, mut fences) = (JoinSet::new(), JoinSet::new());
    for client in &clients {
        let (change, id) = (change.clone(), id.clone());
        let (sender, fencer) = (client.clone(), client.clone());
        let (send_after, fence_after) = (ms(random.u64(0..10)), ms(random.u64(0..10)));
        sends.spawn(async move {
            tokio::time::sleep(send_after).await;
            change.settle(&[sender]).await
        });
        fences.spawn(async move {
            tokio::time::sleep(fence_after).await;
            fence(&fencer, &id).await
        });
    }
    let (results, fences) = (sends.join_all().await, fences.join_all().await);
    let transaction = results.iter().find_map(|result| match result {
        RequestResult::Applied(answer) => Some(answer.transaction().clone()),
        RequestResult::Rejected(_) => None,
    });
    let expected = match &transaction {
        Some(it) => applied(&Answer { transaction: Some(it.clone()), hold: None, replayed: false }),
        None => not_seen(true),
    };
    for result in results {
        match (result, &transaction) {
            (RequestResult::Applied(answer), Some(it)) => assert_eq!(answer.transaction(), it),
            (RequestResult::Rejected(status), None) => is_fenced(Err(status), &id),
            (result, _) => panic!("{id}: {result:?}, and {transaction:?}"),
        }
    }
    for fence in fences {
        assert_eq!(fence, expected, "{id}");
    }
    transaction.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_a_row_lock_is_fenced_by_any_server() {
    let (database, _servers, clients) = start_loaded(Kind::Postgres, 2).await;
    let waiting_ones = one_of_each_kind(&clients[0], "alice").await;
    let before = Standing::read(&database, &clients[0]).await;
    let foreign = database.lock_account("alice").await;
    // Half of them wait on each server. One more is not fenced, which shows that they could be
    // applied.
    let mut calls = JoinSet::new();
    let control = Change::Deposit(deposit("alice", "7"));
    for (number, asked) in waiting_ones.iter().chain([&control]).cloned().enumerate() {
        let client = clients[number / 2 % 2].clone();
        calls.spawn(async move {
            let answer = asked.send(&client, 2 * PATIENCE).await;
            (asked, answer)
        });
    }
    let both_wait = async || database.lock_waits().await >= 2;
    eventually("both servers wait for the row", both_wait).await;
    // Long enough for the others to become lock waiters as well.
    tokio::time::sleep(ms(300)).await;

    for (number, asked) in waiting_ones.iter().enumerate() {
        let id = asked.request_id();
        assert_eq!(request_outcome(&clients[number % 2], id).await, not_seen(false));
        assert_eq!(fence(&clients[number % 2], id).await, not_seen(true));
    }
    assert!(calls.try_join_next().is_none(), "all of them still wait");
    assert_eq!(Standing::read(&database, &clients[0]).await, before);
    foreign.execute_unprepared("COMMIT").await.expect("the row is free");

    for (asked, answer) in calls.join_all().await {
        if asked.request_id() == control.request_id() {
            let made = answer.expect("applied");
            assert_final_everywhere(&clients, control.request_id(), &applied(&made)).await;
            continue;
        }
        is_fenced(answer, asked.request_id());
        assert_final_everywhere(&clients, asked.request_id(), &not_seen(true)).await;
        is_fenced(asked.send(&clients[0], PATIENCE).await, asked.request_id());
    }
    let after = Standing::read(&database, &clients[0]).await;
    assert_eq!(value(&after.alice.balance), "112.00", "105, and the 7 that were not fenced");
    assert_eq!((after.alice.sequence, after.alice.version), (3, before.alice.version + 1));
    assert_eq!((after.other, after.holds), (before.other, before.holds));
    assert_eq!((after.entries, after.applied), (before.entries + 1, before.applied + 1));
}

/// There is one lock, so a fence waits as well, and may come before or after its request.
#[tokio::test(flavor = "multi_thread")]
async fn request_and_fence_that_wait_for_the_sqlite_lock_agree() {
    let (database, _servers, clients) = start_loaded(Kind::Sqlite, 2).await;
    open(&clients[0], "alice").await;
    let foreign = database.lock_account("").await;
    let (mut calls, mut fences) = (JoinSet::new(), JoinSet::new());
    for number in 0..12 {
        let asked = Change::Deposit(deposit("alice", "1"));
        let (id, client) = (asked.request_id().to_owned(), clients[0].clone());
        calls.spawn(async move {
            let answer = asked.send(&client, 2 * PATIENCE).await;
            (asked, answer)
        });
        let client = clients[number % 2].clone();
        fences.spawn(async move {
            tokio::time::sleep(ms(100)).await;
            let resolved = fence(&client, &id).await;
            (id, resolved)
        });
    }
    tokio::time::sleep(ms(500)).await;
    assert!(calls.try_join_next().is_none() && fences.try_join_next().is_none(), "all wait");
    foreign.execute_unprepared("COMMIT").await.expect("the file is free");

    let fences: BTreeMap<_, _> = fences.join_all().await.into_iter().collect();
    let mut made = 0;
    for (asked, answer) in calls.join_all().await {
        let fence = &fences[asked.request_id()];
        match answer {
            Ok(answer) => {
                made += 1;
                assert_eq!(fence, &applied(&answer));
            }
            rejection => {
                assert_eq!(fence, &not_seen(true));
                is_fenced(rejection, asked.request_id());
            }
        }
    }
    println!("{made} of 12 came before their fences");
    assert_eq!(balance(&clients[0], "alice").await, format!("{made}.00"));
    checker::assert_consistent(&database).await;
}
