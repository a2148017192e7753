//! Watchers of one identity that do not read, of one account and of all events.

use crate::{
    attacks::*,
    harness::http2::{self, Raw},
};

/// Entries in a page that a watcher reads by itself, and sends in one message.
const PAGE: i64 = 50;
const PAGES: i64 = 400;
/// The default of calls of one identity.
const WATCHERS: i64 = 4096;
/// The most streams of WatchEvents of one identity: each counts as 20 watchers.
const EVENT_STREAMS: usize = 250;
/// Positions in the log of events from which they begin: more than the server shares pages of.
const POSITIONS: usize = 40;
/// Events after the first position. After the last one there is still a whole page, of a megabyte.
const EVENTS: usize = 120;

/// The first message of half of the watchers is a whole page, that of the others one entry, with whole
/// pages behind it. They read different pages, more than the server keeps for all.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_of_watchers_are_bounded() {
    let target = Target::start(&[]).await;
    let account_id = "x".repeat(64);
    let a = target.client("a");
    open(&a, &account_id).await;
    post_entries(&a, &account_id, PAGE * PAGES).await;

    let mut raw =
        Raw::without_window(target.server.address, "Bearer a-token").await.expect("connected");
    for number in 0..WATCHERS {
        let after = PAGE * (number * 37 % (PAGES - 3)) + (PAGE - 1) * (number % 2);
        let call = raw.unary(WATCH_ENTRIES, &watch(&account_id, after));
        raw.write(&call).await.expect("written");
    }
    let started = Instant::now();
    let mut entries = target.client("b").watch_entries(watch("of-b", 0)).await.expect("watched");
    entries.message().await.expect("no error").expect("entries of b");
    times::figure(&format!("b watches after {:?}", started.elapsed()), started.elapsed() < ms(250));
    for second in 1..=3 {
        tokio::time::sleep(seconds(1)).await;
        let attack = format!("{WATCHERS} watchers of pages, {second} s");
        target.withstands(&attack, IDENTITY_MIB_MAX / 2).await;
    }
}

/// A deposit with the largest labels. Its event has 11 KB in a message, and 13 KB in memory.
fn labeled() -> PostTransactionRequest {
    let labels = largest_labels();
    PostTransactionRequest { labels, ..post(&[leg("alice", "1")]) }
}

/// Each stream has a page of its own, of which one event is in the unread message.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_of_events_are_bounded() {
    const BATCH: usize = 60;
    let target = Target::start(&[]).await;
    let a = target.client("a");
    open(&a, "alice").await;
    let mut watching = EventWatching::begin(&a, events_from_now()).await;
    for _ in 0..EVENTS / BATCH {
        let requests = (0..BATCH).map(|_| labeled()).collect();
        let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
        let results = a.batch_post_transactions(batch).await.expect("an answer").results;
        assert!(results.iter().all(|it| made(it).labels.len() == 32));
    }
    let mut tokens = Vec::new();
    while tokens.len() < POSITIONS {
        let events = watching.next().await.expect("the stream continues");
        assert!(events.len() <= 1, "{} events in a message", events.len());
        if !events.is_empty() {
            tokens.push(watching.token.clone());
        }
    }
    drop(watching);
    target.in_flight_falls_to(0.0).await;

    let mut raw =
        Raw::without_window(target.server.address, "Bearer a-token").await.expect("connected");
    let mut stream = 0;
    for number in 0..EVENT_STREAMS {
        stream = raw.open();
        let request = http2::framed(&events_after(&tokens[number % POSITIONS]));
        let call =
            [raw.call(stream, WATCH_EVENTS), http2::data(stream, &request), http2::end(stream)];
        raw.write(&call.concat()).await.expect("written");
    }
    // From now on they read pages, one after another, and each waits for its caller for 10 s.
    raw.answer(stream).await.expect("the last stream begins");
    for second in 1..=4 {
        tokio::time::sleep(seconds(1)).await;
        let attack = format!("{EVENT_STREAMS} streams of events, {second} s");
        target.withstands(&attack, IDENTITY_MIB_MAX / 2).await;
    }
    assert_eq!(target.shed("watchers", "identity").await, 0.0);
}
