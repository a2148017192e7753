//! Keeps SQLite's write-ahead log short: SQLite itself restarts it only while there are no readers.

use std::{sync::Weak, time::Duration};

use tokio::time::sleep;

use crate::storage::Store;

/// How often the log is checked.
const INTERVAL: Duration = Duration::from_secs(1);
/// The interval after readers kept the log from restarting. The attempt delayed writers for a tenth of
/// a second, so attempts delay them for at most a hundredth of the time.
const INTERVAL_WHILE_READ: Duration = Duration::from_secs(10);

/// Runs until the store is dropped.
pub async fn keep_short(store: Weak<Store>) {
    let mut interval = INTERVAL;
    loop {
        sleep(interval).await;
        let Some(store) = store.upgrade() else { return };
        let is_read = store.shorten_log().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the write-ahead log stays long for now");
            true
        });
        interval = if is_read { INTERVAL_WHILE_READ } else { INTERVAL };
    }
}
