use prost_types::Timestamp;

use crate::harness::*;

on_both_databases! {
    the_balance_of_any_time_is_that_of_the_statement,
    times_are_compared_by_the_microsecond,
    without_a_time_or_in_the_future_it_is_the_current_balance,
    before_the_first_entry_it_is_zero,
    holds_and_changes_of_an_account_do_not_count,
}

fn at(account_id: &str, at_time: Option<Timestamp>) -> GetBalanceRequest {
    GetBalanceRequest { account_id: account_id.to_owned(), at_time, ..Default::default() }
}

/// Returns balance and sequence.
async fn balance_at(client: &Client, account_id: &str, time: Option<Timestamp>) -> (String, i64) {
    let answer = client.get_balance(at(account_id, time)).await.expect("an answer");
    (value(&answer.balance).to_owned(), answer.sequence)
}

/// Deposits and withdrawals on one account, some of them close together.
async fn statement(client: &Client, account_id: &str, count: usize) -> Vec<Entry> {
    open(client, account_id).await;
    let mut entries = Vec::new();
    for number in 0..count {
        let amount = format!("{}.0{}", number % 7 + 1, number % 10);
        let transaction = match number % 3 {
            2 => withdrawn(client, account_id, "0.50").await,
            _ => deposited(client, account_id, &amount).await,
        };
        entries.extend(transaction.entries);
        if number % 4 == 0 {
            tokio::time::sleep(ms(3)).await;
        }
    }
    entries
}

/// The expected answer, from the statement. Entries may share a microsecond.
fn expected(entries: &[Entry], time_us: i64) -> (String, i64) {
    let before = entries.iter().rev().find(|entry| microseconds(&entry.create_time) <= time_us);
    before.map_or(("0.00".to_owned(), 0), |entry| {
        (value(&entry.balance_after).to_owned(), entry.sequence)
    })
}

async fn the_balance_of_any_time_is_that_of_the_statement(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let entries = statement(&servers[0].client(), "alice", 33).await;
    statement(&servers[0].client(), "alicf", 2).await;
    let client = servers[1].client();

    let times: Vec<i64> = entries.iter().map(|entry| microseconds(&entry.create_time)).collect();
    let between = times.windows(2).map(|pair| pair[0] + (pair[1] - pair[0]) / 2);
    let around = times.iter().flat_map(|time| [time - 1, *time, time + 1]);
    for time in between.chain(around) {
        let answer = balance_at(&client, "alice", Some(timestamp(time))).await;
        assert_eq!(answer, expected(&entries, time), "at {time}; {times:?}");
    }
}

async fn times_are_compared_by_the_microsecond(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let mut times = Vec::new();
    for amount in ["1", "2"] {
        times.push(deposited(&client, "alice", amount).await.create_time.expect("a time"));
        tokio::time::sleep(ms(5)).await;
    }
    let [_, second] = times[..] else { panic!("{times:?}") };
    let (first_only, both) = (("1.00".to_owned(), 1), ("3.00".to_owned(), 2));

    // A nanosecond before its microsecond the entry does not count yet.
    let nanoseconds = i128::from(second.seconds) * 1_000_000_000 + i128::from(second.nanos);
    let cases = [
        (-1_000_000, &first_only),
        (-1000, &first_only),
        (-999, &first_only),
        (-1, &first_only),
        (0, &both),
        (1, &both),
        (999, &both),
        (1000, &both),
    ];
    for (after, expected) in cases {
        let time = nanoseconds + after;
        let time = Timestamp {
            seconds: (time / 1_000_000_000) as i64,
            nanos: (time % 1_000_000_000) as i32,
        };
        let answer = balance_at(&client, "alice", Some(time)).await;
        assert_eq!(answer, *expected, "{after} ns after {second:?}");
    }
}

async fn without_a_time_or_in_the_future_it_is_the_current_balance(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let entries = statement(&client, "alice", 5).await;
    let now = expected(&entries, i64::MAX);
    assert_eq!(now.1, 5);
    let last = Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };

    for time in [None, Some(from_now(seconds(60))), Some(last)] {
        assert_eq!(balance_at(&client, "alice", time).await, now);
    }
}

async fn before_the_first_entry_it_is_zero(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_with(&client, account_of("empty", "JPY")).await;
    let entries = statement(&client, "alice", 3).await;
    let first = microseconds(&entries[0].create_time);
    let early = Some(Timestamp { seconds: -62_135_596_800, nanos: 0 });

    for time in [Some(timestamp(first - 1)), Some(timestamp(0)), Some(timestamp(-1)), early] {
        assert_eq!(balance_at(&client, "alice", time).await, ("0.00".to_owned(), 0));
    }
    for time in [None, Some(timestamp(0)), Some(from_now(seconds(60)))] {
        assert_eq!(balance_at(&client, "empty", time).await, ("0".to_owned(), 0));
    }
    let answer = client.get_balance(at("empty", None)).await.expect("an answer");
    assert_eq!(answer.balance, money_of("JPY", "0"));
}

async fn holds_and_changes_of_an_account_do_not_count(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open_funded(&client, "alice", "10").await;
    place(&client, hold_named("h", "alice", "4")).await;
    freeze(&client, "alice").await;
    assert_eq!(balance_at(&client, "alice", None).await, ("10.00".to_owned(), 1));

    let capture = captured(&client, capture("h")).await.transaction.expect("a transaction");

    let time = microseconds(&capture.create_time);
    assert_eq!(balance_at(&client, "alice", Some(timestamp(time))).await, ("6.00".to_owned(), 2));
    let before = entries_before(&client, time).await;
    assert_eq!(balance_at(&client, "alice", Some(timestamp(time - 1))).await, before);
}

/// With a clock of milliseconds the deposit may share its time with the capture.
async fn entries_before(client: &Client, time_us: i64) -> (String, i64) {
    let request = entries_of("alice");
    let answer = client.list_entries(request).await.expect("a page");
    expected(&answer.entries, time_us - 1)
}
