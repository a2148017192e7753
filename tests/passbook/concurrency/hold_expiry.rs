//! An expired hold blocks nothing from its time on. The first change that meets it records the
//! expiry; reads report it before that. A hold that was reported expired is never captured (see
//! `settled_times`).

use crate::harness::{checker, *};

on_both_databases! {
    no_read_counts_an_expired_hold_as_held,
    a_withdrawal_of_everything_works_once_a_hold_has_expired,
    an_expired_hold_can_be_neither_captured_nor_released,
    a_read_reports_an_expiry_as_a_change_records_it,
    several_expiries_count_one_change_each_and_are_recorded_once,
    an_account_whose_holds_have_expired_can_be_closed,
    an_expired_hold_makes_room_for_another_one,
    thousands_of_holds_that_expire_at_once_block_no_change,
    thousands_of_expired_holds_delay_no_change_of_other_accounts,
    many_requests_for_an_account_with_expired_holds_delay_no_others,
    the_expired_holds_of_one_account_beside_many_are_recorded_as_fast,
    a_read_has_thousands_of_expired_holds_recorded,
    a_hold_that_is_captured_or_released_in_time_does_not_expire,
}

/// An account with 10.00 and an expired hold of 7.00. The expiry is unrecorded.
async fn with_an_expired_hold(database: &TestDatabase, client: &Client) -> Hold {
    open_funded(client, "alice", "10").await;
    let hold = place_and_expire(client, hold_named("h", "alice", "7")).await;
    assert_eq!(database.text("SELECT state FROM holds").await, "open");
    hold
}

async fn no_read_counts_an_expired_hold_as_held(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    let placed = place_briefly(&client, hold_named("h", "alice", "7")).await;
    assert_eq!(placed.state(), HoldState::Open);
    let before = get(&client, "alice").await;

    eventually("the hold expires", || async {
        get_hold(&client, "h").await.state() == HoldState::Expired
    })
    .await;

    let expected = Hold {
        state: HoldState::Expired.into(),
        update_time: placed.expire_time,
        ..placed.clone()
    };
    assert_eq!(get_hold(&client, "h").await, expected);
    // The same by every read of an account.
    let account = get(&client, "alice").await;
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "4"]);
    assert_eq!(account.sequence, before.sequence);
    assert_eq!(account.update_time, placed.expire_time, "its end is the latest change");
    let request = BatchGetAccountsRequest { account_ids: vec!["alice".to_owned()] };
    let batch = client.batch_get_accounts(request).await.expect("an answer");
    assert_eq!(batch.accounts, std::slice::from_ref(&account));
    let request = ListAccountsRequest::default();
    let list = client.list_accounts(request).await.expect("an answer");
    assert_eq!(list.accounts, [account]);
    let sums = client.sum_balances(SumBalancesRequest::default()).await.expect("an answer").sums;
    assert_eq!((value(&sums[0].held), value(&sums[0].available)), ("0.00", "10.00"));
    assert_eq!(database.text("SELECT state FROM holds").await, "open", "a read records nothing");
    checker::assert_consistent(&database).await;
}

async fn a_withdrawal_of_everything_works_once_a_hold_has_expired(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    with_an_expired_hold(&database, &client).await;

    client.withdraw(withdrawal("alice", "10")).await.expect("nothing is held");

    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", "5"]);
    assert_eq!(database.text("SELECT state FROM holds").await, "expired");
    checker::assert_consistent(&database).await;
}

async fn an_expired_hold_can_be_neither_captured_nor_released(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    let placed = with_an_expired_hold(&database, &client).await;
    let changes: [Change; 3] =
        [capture("h").into(), capture_part("h", "1").into(), release("h").into()];

    for change in changes.iter().flat_map(|change| [change, change]) {
        let status = must_fail(change.send(&client, PATIENCE).await, Reason::HoldNotOpen);
        assert_metadata(&status, &[("hold_id", "h"), ("state", "expired")]);
    }

    // The rejections have recorded the expiry and nothing else.
    assert_eq!(database.text("SELECT state FROM holds").await, "expired");
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.00", "10.00", "4"]);
    let expired = get_hold(&client, "h").await;
    assert_eq!(microseconds(&expired.update_time), microseconds(&placed.expire_time));
    checker::assert_consistent(&database).await;
}

async fn a_read_reports_an_expiry_as_a_change_records_it(kind: Kind) {
    let (database, servers, client) = start_two_servers(kind).await;
    let placed = with_an_expired_hold(&database, &client).await;

    // The account is already open, so only the expiry is recorded.
    let answered = open(&client, "alice").await;

    assert_eq!(database.text("SELECT state FROM holds").await, "expired");
    assert_eq!(answered.update_time, placed.expire_time);
    for server in &servers {
        assert_eq!(get(&server.client(), "alice").await, answered);
    }
    open_funded(&client, "bob", "10").await;
    let placed = place_and_expire(&client, hold_named("g", "bob", "7")).await;
    let read = get(&servers[1].client(), "bob").await;
    assert_eq!((read.version, read.update_time), (answered.version, placed.expire_time));
    checker::assert_consistent(&database).await;
}

async fn several_expiries_count_one_change_each_and_are_recorded_once(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    for hold_id in ["a", "b", "c"] {
        place_briefly(&client, hold_named(hold_id, "alice", "1")).await;
    }
    place(&client, hold_named("stays", "alice", "0.50")).await;
    for hold_id in ["a", "b", "c"] {
        eventually("the hold expires", || async {
            get_hold(&client, hold_id).await.state() == HoldState::Expired
        })
        .await;
    }
    // 1 for the creation, 1 for the deposit, 4 holds placed, 3 expired.
    assert_eq!(standing(&client, "alice").await, ["10.00", "0.50", "9.50", "9"]);

    for number in 0..3 {
        client.deposit(deposit("alice", "1")).await.expect("applied");
        let version = get(&client, "alice").await.version;
        assert_eq!(version, 10 + number, "no expiry is counted twice");
    }

    assert_eq!(database.count("holds WHERE state = 'expired'").await, 3);
    assert_eq!(standing(&client, "alice").await, ["13.00", "0.50", "12.50", "12"]);
    checker::assert_consistent(&database).await;
}

/// Many more than one transaction records.
const HOLDS: usize = 36_000;
/// More than one transaction records, and than a read leaves unrecorded.
const SOME_HOLDS: usize = 4_000;

/// An account with 40,000.00, and so many holds of 1.00 that have expired long ago. No row says so.
async fn with_expired_holds(database: &TestDatabase, client: &Client, count: usize) {
    open_funded(client, "alice", "40000").await;
    let amount = if database.kind == Kind::Sqlite { "'1.00'" } else { "1" };
    let insert = format!(
        "INSERT INTO holds (hold_id, account_key, amount, state, expire_time_us, request_id,
             create_time_us, update_time_us)
         SELECT 'h-' || n, account_key, {amount}, 'open', n, 'r-' || n, 1, 1
         FROM {}, (SELECT account_key FROM accounts) alice",
        database.numbers(count)
    );
    database.execute(&insert).await;
    let held = format!("UPDATE accounts SET held = '{count}', version = version + {count}");
    database.execute(&held).await;
}

async fn thousands_of_holds_that_expire_at_once_block_no_change(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    with_expired_holds(&database, &client, HOLDS).await;
    let before = database.count("commits").await;

    let version = (2 + 2 * HOLDS).to_string();
    assert_eq!(standing(&client, "alice").await, ["40000.00", "0.00", "40000.00", &version]);
    let all = within(PATIENCE, withdrawal("alice", "40000"));
    client.withdraw(all).await.expect("nothing is held");

    // Created, funded, emptied; all placed, all expired.
    let version = (3 + 2 * HOLDS).to_string();
    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", &version]);
    assert_eq!(database.count("holds WHERE state = 'expired'").await, HOLDS as i64);
    // A few hundred each, so that others have their turns.
    let transactions = database.count("commits").await - before;
    assert!(transactions > HOLDS as i64 / 1000, "{transactions} database transactions");
}

/// Deposits 1.00 into each of these accounts, in one message of a stream, and waits for the results.
async fn deposit_together(client: &Client, accounts: impl IntoIterator<Item = &str>) {
    // On a slow machine some take longer than a request without a timeout may.
    let timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let requests = accounts.into_iter().map(|it| {
        let request = Change::from(deposit(it, "1")).streamed();
        StreamedRequest { timeout, ..request }
    });
    let messages = tokio_stream::iter([in_any_order(requests.collect())]);
    let results = client.stream_transactions(within(PATIENCE, messages)).await;
    let mut results = results.expect("a stream");
    while results.message().await.expect("a message").is_some() {}
}

/// Two requests that arrive together are in one batch.
async fn thousands_of_expired_holds_delay_no_change_of_other_accounts(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    with_expired_holds(&database, &client, HOLDS).await;
    open(&client, "bob").await;
    deposit_together(&client, ["alice", "bob"]).await;

    let (of_alice, of_bob) = times_of_deposits(&database).await;
    assert!(of_bob < of_alice, "bob's deposit waited for the expired holds of alice");
    assert_eq!(database.count("holds WHERE state = 'open'").await, 0);
    let balances = [balance(&client, "alice").await, balance(&client, "bob").await];
    assert_eq!(balances, ["40001.00", "1.00"]);
}

async fn many_requests_for_an_account_with_expired_holds_delay_no_others(kind: Kind) {
    const BATCH: usize = 20;
    let batch_size_max = BATCH.to_string();
    let arguments = ["--batch-size-max", &batch_size_max];
    let (database, _server, client) = start_server_with(kind, &arguments).await;
    with_expired_holds(&database, &client, SOME_HOLDS).await;
    open(&client, "bob").await;
    let accounts = std::iter::repeat_n("alice", 3 * BATCH).chain(["bob"]);
    deposit_together(&client, accounts).await;

    let (of_alice, of_bob) = times_of_deposits(&database).await;
    assert!(of_bob < of_alice, "bob's deposit waited for the expired holds of alice");
    let balances = [balance(&client, "alice").await, balance(&client, "bob").await];
    assert_eq!(balances, ["40060.00", "1.00"]);
}

/// The times of alice's and bob's last entries, in microseconds since the Unix epoch.
async fn times_of_deposits(database: &TestDatabase) -> (i64, i64) {
    let time_us = async |account_id| {
        let sql = format!(
            "SELECT CAST(max(e.create_time_us) AS TEXT) FROM entries e
             JOIN accounts a ON a.account_key = e.account_key WHERE a.account_id = '{account_id}'"
        );
        database.text(&sql).await.parse::<i64>().expect("a number")
    };
    (time_us("alice").await, time_us("bob").await)
}

async fn the_expired_holds_of_one_account_beside_many_are_recorded_as_fast(kind: Kind) {
    const OTHERS: usize = 40;
    let (database, _server, client) = start_server(kind).await;
    with_expired_holds(&database, &client, SOME_HOLDS).await;
    let mut legs = vec![leg("alice", "1")];
    for number in 0..OTHERS {
        let account_id = format!("other-{number}");
        open_funded(&client, &account_id, "1").await;
        place(&client, hold_named(&account_id, &account_id, "1")).await;
        legs.push(leg(&account_id, "1"));
    }
    let before = database.count("commits").await;
    client.post_transaction(within(PATIENCE, post(&legs))).await.expect("applied");

    assert_eq!(database.count("holds WHERE state = 'expired'").await, SOME_HOLDS as i64);
    let transactions = database.count("commits").await - before;
    assert!(transactions < SOME_HOLDS as i64 / 400, "{transactions} database transactions");
}

/// Reads add up the expired holds that no row says are expired: the sum takes longer with each.
async fn a_read_has_thousands_of_expired_holds_recorded(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    with_expired_holds(&database, &client, SOME_HOLDS).await;

    let version = (2 + 2 * SOME_HOLDS).to_string();
    let expected = ["40000.00", "0.00", "40000.00", &version];
    assert_eq!(standing(&client, "alice").await, expected);

    let are_recorded = async || database.count("holds WHERE state = 'open'").await == 0;
    eventually("all are recorded", are_recorded).await;
    assert_eq!(standing(&client, "alice").await, expected, "nothing else has changed");
    assert_eq!(database.count("entries").await, 1);
}

async fn an_account_whose_holds_have_expired_can_be_closed(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_with_overdraft(&client, "alice", "10").await;
    place_and_expire(&client, hold_named("h", "alice", "7")).await;
    assert_eq!(database.text("SELECT state FROM holds").await, "open");

    let account = close(&client, "alice").await.expect("nothing is held");

    // Created, placed, expired, closed.
    assert_eq!((value(&account.held), account.version), ("0.00", 4));
    assert_eq!(get(&client, "alice").await, account);
    assert_eq!(get_hold(&client, "h").await.state(), HoldState::Expired);
    checker::assert_consistent(&database).await;
}

async fn an_expired_hold_makes_room_for_another_one(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    with_an_expired_hold(&database, &client).await;

    place(&client, hold_named("next", "alice", "10")).await;

    assert_eq!(standing(&client, "alice").await, ["10.00", "10.00", "0.00", "5"]);
    captured(&client, capture("next")).await;
    assert_eq!(standing(&client, "alice").await, ["0.00", "0.00", "0.00", "6"]);
    checker::assert_consistent(&database).await;
}

async fn a_hold_that_is_captured_or_released_in_time_does_not_expire(kind: Kind) {
    let (database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "20").await;
    let mut ended = Vec::new();
    // On a slow machine the hold may expire first; then it tries another one.
    for number in 0..20 {
        let hold_id = format!("h-{number}");
        place_briefly(&client, hold_named(&hold_id, "alice", "1")).await;
        let was_captured = client.capture_hold(capture(&hold_id)).await.is_ok();
        let other = format!("other-{number}");
        place_briefly(&client, hold_named(&other, "alice", "1")).await;
        let was_released = client.release_hold(release(&other)).await.is_ok();
        if was_captured && was_released {
            ended = vec![hold_id, other];
            break;
        }
    }
    assert!(!ended.is_empty(), "none was ended within its time");
    let before = (get_hold(&client, &ended[0]).await, get_hold(&client, &ended[1]).await);
    let latest = microseconds(&before.1.expire_time).max(microseconds(&before.0.expire_time));

    eventually("their time passes", || async {
        microseconds(&Some(from_now(ms(0)))) > latest + 10_000
    })
    .await;

    assert_eq!((get_hold(&client, &ended[0]).await, get_hold(&client, &ended[1]).await), before);
    assert_eq!((before.0.state(), before.1.state()), (HoldState::Captured, HoldState::Released));
    client.deposit(deposit("alice", "1")).await.expect("applied");
    assert_eq!((get_hold(&client, &ended[0]).await, get_hold(&client, &ended[1]).await), before);
    checker::assert_consistent(&database).await;
}
