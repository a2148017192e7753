//! What the workers and the retries of a process share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    ledger::{
        metrics::write_path::WritePathMetrics,
        write_path::{executor::Executor, queue::CommandQueue, turns::Turns},
    },
    storage::Store,
};

/// See the module.
pub struct WritePath {
    pub(super) store: Arc<Store>,
    pub(super) queue: Arc<CommandQueue>,
    stats: Arc<WritePathMetrics>,
    pub(super) turns: Turns,
    /// One for each batch that is retried, on a connection of its own. If more batches fail, the
    /// database has a problem, and their callers get the error at once.
    pub(super) retry_permits: Arc<Semaphore>,
    pub(super) batch_size_max: usize,
}

impl WritePath {
    /// Starts the workers and keeps them running.
    pub fn start(
        store: Arc<Store>,
        queue: Arc<CommandQueue>,
        stats: Arc<WritePathMetrics>,
        batch_size_max: usize,
    ) {
        let turns = Turns::new(store.kind());
        let retry_permits = Arc::new(Semaphore::new(store.budget().retries as usize));
        let path = Self { store, queue, stats, turns, retry_permits, batch_size_max };
        Arc::new(path).spawn_workers();
    }

    /// An executor for a worker or a retry.
    pub(super) fn executor(&self) -> Executor {
        Executor::new(self.store.clone(), self.stats.clone())
    }
}
