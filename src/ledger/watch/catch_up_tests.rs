//! Watchers that catch up, on a real SQLite file.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    budget::{BudgetConfig, Budgets},
    domain::{fixtures::id, ids::Identity, money::Currencies},
    ledger::watch::EntryFeed,
    storage::{Store, WatchedAccount},
};

/// More reads than all watchers together may have in the database.
const READS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_one_identity_leave_reads_to_others() {
    let directory = TempDir::new().unwrap();
    let store = Store::for_tests(&directory).await;
    let budgets = Budgets::new(&BudgetConfig {
        is_authenticated: true,
        calls_max: 1000,
        identity_calls_max: 1000,
        identity_rate_max: None,
        queue_capacity: 100,
        records_max: 1000,
        identity_records_max: 1000,
        connections_max: 100,
    });
    let feed = EntryFeed::start(Arc::new(store), &budgets);
    let currency = Currencies::default().get("USD").unwrap();
    let account = |number: usize| WatchedAccount {
        account_id: id(&format!("a-{number}")),
        account_key: number as i64,
        currency: currency.clone(),
        after_sequence: 0,
    };
    let accounts: Vec<_> = (0..READS).map(account).collect();
    let [greedy, other] = ["greedy", "other"].map(Identity::from_stored);

    // Reads that have begun and are not polled on keep what they have. Some may end at once.
    let reads = accounts.iter().map(|account| Box::pin(feed.page_after(account, &greedy)));
    let mut begun: Vec<_> = reads.collect();
    begun.retain_mut(|read| read.now_or_never().is_none());
    assert!(begun.len() > READS / 2, "{} reads wait", begun.len());
    let account = account(READS);
    let read = timeout(Duration::from_secs(10), feed.page_after(&account, &other)).await;
    read.expect("it does not wait for another identity").unwrap();
}
