//! SQLite's write-ahead log, which begins anew by itself only when nobody reads.

use std::{sync::Weak, time::Duration};

use tokio::time::sleep;

use crate::storage::Store;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same after readers kept it from beginning anew: writers were held up for a tenth of a
/// second, and are so for a hundredth of the time at most.
const INTERVAL_WHILE_READ: Duration = Duration::from_secs(10);

/// Keeps it short for as long as the store is there.
pub async fn keep_short(store: Weak<Store>) {
    let mut interval = INTERVAL;
    loop {
        sleep(interval).await;
        let Some(store) = store.upgrade() else { return };
        let is_read = store.shorten_log().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the log stays long for now");
            true
        });
        interval = if is_read { INTERVAL_WHILE_READ } else { INTERVAL };
    }
}
