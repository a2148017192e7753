//! How many connections there are, and what for.
//!
//! A server has connections of four kinds: one for each worker; some that are reserved for what the
//! service itself reads (what a change names, what is new for those who watch, whether it is
//! ready); those that the reads of callers share; and, when they are needed, one for each retry and
//! each wait for a row. So no number of reads holds up a change. Where the database gives no
//! connection to somebody who writes, reads give up some of theirs for a while.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx::{Database, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// With fewer a server cannot work: a worker, what the service itself reads, and a read.
pub const CONNECTIONS_MIN: u32 = 3;
/// What a server opens at the very most if nothing else is said.
pub const CONNECTIONS_MAX_DEFAULT: u32 = 38;
/// A writer whose connection takes longer than this may wait for one that a read has.
const ROOM_AFTER: Duration = Duration::from_millis(250);
/// For so long one read less runs at a time after a writer has had to wait.
const ROOM_TIME: Duration = Duration::from_secs(10);

/// Open connections to the database.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// With nothing to do.
    pub idle: usize,
    /// At work.
    pub in_use: usize,
}

/// What the connections of a server are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Workers, on PostgreSQL: while one waits for the disk or the network the other keeps the
    /// database busy. (SQLite has one writer at a time.)
    pub workers: u32,
    /// For what the service itself reads.
    pub reserved: u32,
    /// For the reads of callers.
    pub readers: u32,
    /// Batches that are retried at the same time.
    pub retries: u32,
    /// Rows locked by another program that are waited for at the same time.
    pub row_waits: u32,
}

impl Budget {
    /// Divides this many connections. Of the fewest there is none left for retries and waits: one of
    /// these then has what a read gives up.
    #[must_use]
    pub fn new(connections: u32) -> Self {
        let workers = if connections < 8 { 1 } else { 2 };
        let reserved = if connections < 16 { 1 } else { 4 };
        let others = connections.saturating_sub(workers + reserved);
        let readers = (others / 2).clamp(1, 8);
        let rest = others.saturating_sub(readers);
        let retries = (rest / 3).clamp(1, 8);
        let row_waits = rest.saturating_sub(retries).clamp(1, 16);
        Self { workers, reserved, readers, retries, row_waits }
    }
}

/// Permits to read: as many as the readers' pool has connections.
pub(in crate::storage) struct ReadPermits {
    permits: Arc<Semaphore>,
    /// For those that look at many rows to find few: an eighth, so that they leave connections to
    /// reads that find theirs by a key, and the database's time to changes.
    scans: Arc<Semaphore>,
    /// One less: a read can always be made.
    to_give_up: Arc<Semaphore>,
}

impl ReadPermits {
    pub(in crate::storage) fn new(readers: u32) -> Self {
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            permits: semaphore(readers),
            scans: semaphore((readers / 8).max(1)),
            to_give_up: semaphore(readers.saturating_sub(1)),
        }
    }

    /// A permit to read, in the order in which permits are asked for.
    pub async fn acquire_read(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().acquire_owned().await.ok()
    }

    /// A permit to scan many rows.
    pub async fn acquire_scan(&self) -> Option<OwnedSemaphorePermit> {
        self.scans.clone().acquire_owned().await.ok()
    }

    /// Has reads give up connections, one after another, for as long as this is polled.
    pub(in crate::storage) async fn make_room<DB: Database>(&self, pool: &Pool<DB>) {
        loop {
            tokio::time::sleep(ROOM_AFTER).await;
            // In turn with the reads that wait: as soon as one of those that run ends.
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            if let Some(connection) = pool.try_acquire() {
                let _ = connection.close().await;
            }
            if let Ok(given_up) = self.to_give_up.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    tokio::time::sleep(ROOM_TIME).await;
                    drop((permit, given_up));
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(budget: Budget) -> u32 {
        budget.workers + budget.reserved + budget.readers + budget.retries + budget.row_waits
    }

    #[test]
    fn no_more_connections_are_divided_than_there_are() {
        for connections in 5..=100 {
            let budget = Budget::new(connections);
            assert!(sum(budget) <= connections, "{connections}: {budget:?}");
        }
        for connections in CONNECTIONS_MIN..5 {
            let Budget { workers, reserved, readers, .. } = Budget::new(connections);
            assert!(workers + reserved + readers <= connections);
        }
    }

    #[test]
    fn by_default_there_are_as_many_as_are_of_use() {
        let budget = Budget::new(CONNECTIONS_MAX_DEFAULT);
        let expected = Budget { workers: 2, reserved: 4, readers: 8, retries: 8, row_waits: 16 };
        assert_eq!((budget, sum(budget)), (expected, CONNECTIONS_MAX_DEFAULT));
    }
}
