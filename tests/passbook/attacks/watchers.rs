//! Watchers of one identity that do not read.

use crate::{attacks::*, harness::http2::Raw};

/// Entries in a page that a watcher reads by itself, and sends in one message.
const PAGE: i64 = 50;
const PAGES: i64 = 400;
/// The default of calls of one identity.
const WATCHERS: i64 = 4096;

/// The first message of half of the watchers is a whole page, that of the others one entry, with whole
/// pages behind it. They read different pages, more than the server keeps for all.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_of_watchers_are_bounded() {
    let target = Target::start(&[]).await;
    let account_id = "x".repeat(64);
    let a = target.client("a");
    open(&a, &account_id).await;
    for _ in 0..PAGE * PAGES / 100 / 50 {
        let requests = (0..50).map(|_| post(&vec![leg(&account_id, "1"); 100])).collect();
        let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
        let results = a.batch_post_transactions(batch).await.expect("an answer").results;
        assert!(results.iter().all(|it| !made(it).entries.is_empty()));
    }

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
