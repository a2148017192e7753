//! How many connections there are, and what for.
//!
//! A server has connections of four kinds: one for each worker; some that are reserved for its own
//! reads (the holds and transactions that a change names, new entries for watchers, readiness);
//! those that callers' reads share; and, on demand, one for each retry and each wait for a row. So
//! no number of reads holds up a change. Where the database refuses a connection to a writer, reads
//! give up some of theirs for a while.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx::{Database, Pool};
use tokio::sync::Semaphore;

/// The fewest connections that a server works with: a worker, its own reads, and callers' reads.
pub const CONNECTIONS_MIN: u32 = 3;
/// The default maximum of a server's connections.
pub const CONNECTIONS_MAX_DEFAULT: u32 = 38;
/// How long a writer waits for a connection before a read gives one up.
const ROOM_AFTER: Duration = Duration::from_millis(250);
/// How long one read less runs at a time after a writer has had to wait.
const ROOM_TIME: Duration = Duration::from_secs(10);

/// Open connections to the database.
#[derive(Clone, Copy, Debug)]
pub struct OpenConnections {
    /// Idle connections.
    pub idle: usize,
    /// Connections in use.
    pub in_use: usize,
}

/// How a server's connections are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Workers, on PostgreSQL: while one waits for the disk or the network the other keeps the
    /// database busy. (SQLite has one writer at a time.)
    pub workers: u32,
    /// For the service's own reads.
    pub reserved: u32,
    /// For callers' reads.
    pub readers: u32,
    /// For batches that are retried at the same time.
    pub retries: u32,
    /// For waits for rows that another program has locked.
    pub row_waits: u32,
}

impl ConnectionCounts {
    /// Divides this many connections. With the fewest, none is left for retries and waits: they use
    /// the ones that reads give up.
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
pub struct ReadPermits {
    pub permits: Arc<Semaphore>,
    /// For reads that scan many rows to find few: an eighth, so that connections are left for reads
    /// by key, and the database's time for changes.
    pub scans: Arc<Semaphore>,
    /// The permits that may be given up: all but one, so that a read can always be made.
    to_give_up: Arc<Semaphore>,
}

impl ReadPermits {
    pub fn new(readers: u32) -> Self {
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self {
            permits: semaphore(readers),
            scans: semaphore((readers / 8).max(1)),
            to_give_up: semaphore(readers.saturating_sub(1)),
        }
    }

    /// Makes reads give up connections, one after another, for as long as this future is polled.
    pub async fn make_room<DB: Database>(&self, pool: &Pool<DB>) {
        loop {
            tokio::time::sleep(ROOM_AFTER).await;
            // In the queue of reads that wait: granted when a running one ends.
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

    fn sum(counts: ConnectionCounts) -> u32 {
        counts.workers + counts.reserved + counts.readers + counts.retries + counts.row_waits
    }

    #[test]
    fn no_more_connections_are_divided_than_there_are() {
        for connections in 5..=100 {
            let counts = ConnectionCounts::new(connections);
            assert!(sum(counts) <= connections, "{connections}: {counts:?}");
        }
        for connections in CONNECTIONS_MIN..5 {
            let ConnectionCounts { workers, reserved, readers, .. } =
                ConnectionCounts::new(connections);
            assert!(workers + reserved + readers <= connections);
        }
    }

    #[test]
    fn by_default_there_are_as_many_as_are_of_use() {
        let counts = ConnectionCounts::new(CONNECTIONS_MAX_DEFAULT);
        let expected =
            ConnectionCounts { workers: 2, reserved: 4, readers: 8, retries: 8, row_waits: 16 };
        assert_eq!((counts, sum(counts)), (expected, CONNECTIONS_MAX_DEFAULT));
    }
}
