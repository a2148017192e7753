//! What the workers and the retries of a process share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    ledger::{
        metrics::write_path::WritePathMetrics,
        write_path::{executor::Executor, fair_queue::CostMax, queue::CommandQueue, turns::Turns},
    },
    storage::{DatabaseKind, Store},
};

/// The cost that a batch takes of each identity while several use the queue. To apply it takes about as
/// long as the rest of a database transaction. Less makes a busy identity slower than half of what the
/// database can do; more makes the others wait for it.
const SQLITE_SHARED_COST_MAX: usize = 16;
/// The same on PostgreSQL, where a database transaction has round trips, and a leg costs less.
const POSTGRES_SHARED_COST_MAX: usize = 64;

/// The expired holds that one transaction records. Fewer take longer in all, more make the transaction
/// longer. While several identities use the queue, it records no more than a batch takes of each.
const EXPIRED_MAX: usize = 512;

/// See the module.
pub struct WritePath {
    pub(super) store: Arc<Store>,
    pub(super) queue: Arc<CommandQueue>,
    stats: Arc<WritePathMetrics>,
    pub(super) turns: Turns,
    /// One for each batch that is retried, on a connection of its own. If more batches fail, the
    /// database has a problem, and their callers get the error at once.
    pub(super) retry_permits: Arc<Semaphore>,
    pub(super) cost_max: CostMax,
}

impl WritePath {
    /// Starts the workers and keeps them running.
    pub fn start(
        store: Arc<Store>,
        queue: Arc<CommandQueue>,
        stats: Arc<WritePathMetrics>,
        batch_size_max: usize,
    ) {
        Arc::new(Self::new(store, queue, stats, batch_size_max)).spawn_workers();
    }

    /// Without workers.
    pub(super) fn new(
        store: Arc<Store>,
        queue: Arc<CommandQueue>,
        stats: Arc<WritePathMetrics>,
        batch_size_max: usize,
    ) -> Self {
        let turns = Turns::new(store.kind());
        let retry_permits = Arc::new(Semaphore::new(store.connection_counts().retries as usize));
        let of_each = match store.kind() {
            DatabaseKind::Sqlite => SQLITE_SHARED_COST_MAX,
            DatabaseKind::Postgres => POSTGRES_SHARED_COST_MAX,
        };
        let cost_max = CostMax { of_all: batch_size_max, of_each };
        Self { store, queue, stats, turns, retry_permits, cost_max }
    }

    /// The most expired holds that the next transaction records.
    pub(super) fn expired_max(&self) -> usize {
        match self.queue.is_shared() {
            true => self.cost_max.of_each,
            false => EXPIRED_MAX,
        }
    }

    /// An executor for a worker or a retry.
    pub(super) fn executor(&self) -> Executor {
        Executor::new(self.store.clone(), self.stats.clone())
    }
}
