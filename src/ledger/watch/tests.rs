//! Sharing, on a real SQLite file: what is read and encoded does not depend on how many watch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    budget::Budgets,
    domain::{
        authorization::Caller,
        fixtures::{id, new_account, posting},
        transaction::Entry,
    },
    ledger::{CallContext, Ledger, Watcher},
    storage::Store,
};

/// Fewer than a page has.
const MESSAGE_ENTRIES_MAX: usize = 20;

pub(super) async fn ledger(directory: &TempDir) -> Ledger {
    let store = Store::for_tests(directory).await;
    let ledger =
        Ledger::start(Arc::new(store), Budgets::for_tests(1000, false), 1000, None).await.unwrap();
    ledger.create_accounts(&context(), vec![new_account("a")]).await.remove(0).unwrap();
    ledger
}

pub(super) fn context() -> CallContext {
    let deadline = Instant::now() + Duration::from_secs(60);
    CallContext { caller: Caller::unrestricted(""), deadline, audit: None, share: None }
}

pub(super) async fn deposit(ledger: &Ledger, sequences: impl Iterator<Item = i64>) {
    let deposits = sequences.map(async |sequence| {
        ledger.execute(&context(), posting(&sequence.to_string(), &[("a", "1.00")])).await.unwrap();
    });
    join_all(deposits).await;
}

/// Follows until the watcher has this entry, and counts the entries that it is the first to encode.
async fn follow(watcher: &mut Watcher, last: i64, encoded: &AtomicUsize) {
    let mut received = watcher.sequence();
    while watcher.sequence() < last {
        let mut page = watcher.next().await.unwrap();
        // A byte for each entry.
        let encode = |_: &Entry, bytes: &mut Vec<u8>| {
            encoded.fetch_add(1, Relaxed);
            bytes.push(0);
        };
        while let Some((bytes, last)) = page.take_encoded(MESSAGE_ENTRIES_MAX, encode) {
            assert!((1..=MESSAGE_ENTRIES_MAX).contains(&bytes.len()));
            received += bytes.len() as i64;
            assert_eq!(received, last, "each entry once");
        }
        assert_eq!(received, watcher.sequence());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_is_read_and_encoded_once_for_all_watchers() {
    for count in [1, 50] {
        let directory = TempDir::new().unwrap();
        let ledger = ledger(&directory).await;
        let encoded = AtomicUsize::new(0);
        // Full pages and a part of one.
        deposit(&ledger, 1..=320).await;
        let watchers =
            (0..count).map(async |_| ledger.watch(&context(), &id("a"), 0).await.unwrap().0);
        let mut watchers = join_all(watchers).await;
        join_all(watchers.iter_mut().map(|it| follow(it, 320, &encoded))).await;
        assert_eq!(encoded.load(Relaxed), 320, "existing entries, {count} watchers");

        deposit(&ledger, 321..=330).await;
        join_all(watchers.iter_mut().map(|it| follow(it, 330, &encoded))).await;
        assert_eq!(encoded.load(Relaxed), 330, "new entries, {count} watchers");
    }
}
