//! Workers: one transaction after another, each with all waiting jobs whose accounts are free.
//!
//! ```text
//!            +-> wait for a job -> BEGIN -> [take the turn] -> take all that waits -> execute --+
//!            |                                                                                  |
//!            +-- a lock timed out: jobs back into the queue, next time in a turn <------------+
//!            +-- a lock timed out in a turn: jobs back, next time without the locked rows <-------+
//!            +-- left out, a peer has the row: back into the queue <----------------------------+
//!            +-- left out, a foreign lock: parked, a retry waits for the row <---------------+
//!            +-- any other error: a retry takes the batch over <--------------------------------+
//! ```
//!
//! A worker takes the jobs after BEGIN, and after the wait for the turn if there is one, so jobs that
//! arrive meanwhile are in the same transaction. Jobs of the same accounts that arrive before the rows
//! are locked join it, too. A batch that failed delays no other: [`super::retry`] takes it over.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    domain::account::Account,
    ledger::{
        metrics::write_path::WritePathMetrics,
        write_path::{
            executor::{Batch, Executor, WaitFor},
            queue::CommandQueue,
            retry::RetryPool,
            transaction::{ExecuteError, Lookup},
            turns::Turns,
        },
    },
    storage::{DatabaseKind, LockMode, StorageError, Store, WriteTransaction},
};

/// After a request that turned out to have a record, the records of so many batches are looked up
/// first: repeats seldom come alone, and a batch that finds one on insert is executed twice.
const LOOKUP_BATCHES_AFTER_REPEAT: usize = 64;

/// See the module.
struct Worker {
    executor: Executor,
    queue: Arc<CommandQueue>,
    turns: Arc<Turns>,
    retries: RetryPool,
    batch_size_max: usize,
    /// Batches whose records are still to be looked up first.
    lookups: usize,
    /// The next batch leaves out locked rows.
    skips_locked: bool,
}

/// Starts the workers and keeps them running.
pub fn spawn(
    store: &Arc<Store>,
    queue: &Arc<CommandQueue>,
    stats: &Arc<WritePathMetrics>,
    batch_size_max: usize,
) {
    let workers = match store.kind() {
        DatabaseKind::Sqlite => 1,
        DatabaseKind::Postgres => store.budget().workers,
    };
    let turns = Arc::new(Turns::new(store.kind()));
    let retries = RetryPool::new(store.clone(), queue.clone(), stats.clone(), batch_size_max);
    for _ in 0..workers {
        let (store, stats) = (store.clone(), stats.clone());
        let (queue, turns, retries) = (queue.clone(), turns.clone(), retries.clone());
        tokio::spawn(async move {
            loop {
                let worker = Worker {
                    executor: Executor::new(store.clone(), stats.clone()),
                    queue: queue.clone(),
                    turns: turns.clone(),
                    retries: retries.clone(),
                    batch_size_max,
                    lookups: 0,
                    skips_locked: false,
                };
                if let Err(error) = tokio::spawn(worker.run()).await {
                    tracing::error!(%error, "worker panicked and is started again");
                }
            }
        });
    }
}

impl Worker {
    async fn run(mut self) {
        // Before reads can take all connections. If it fails, the first batch tries again.
        let _ = self.executor.connect().await;
        let turns = self.turns.clone();
        loop {
            self.queue.ready().await;
            let turn = turns.claim().await;
            // Another worker may have taken all jobs during the wait.
            if !self.queue.is_ready() {
                continue;
            }
            let first = if turn.is_some() { WaitFor::Turn } else { WaitFor::Nothing };
            let start = Instant::now();
            let has_taken = match self.executor.begin(first).await {
                Ok((transaction, has_waited)) => {
                    if turn.is_some() {
                        turns.record(has_waited);
                    }
                    self.process(transaction, start, turn.is_some()).await
                }
                // On SQLite BEGIN takes the lock; the only cure is to try again.
                Err(StorageError::LockTimeout(_)) if turn.is_none() => {
                    self.queue.expire();
                    true
                }
                // The server that has the turn may hang. Lock what is free without it.
                Err(StorageError::LockTimeout(_)) => {
                    turns.stop();
                    self.skips_locked = true;
                    true
                }
                Err(error) => self.hand_over(error.into()),
            };
            drop(turn);
            if !has_taken {
                // The waiting jobs are reserved, or another worker has just taken them.
                self.queue.changed().await;
            }
        }
    }

    /// Executes all waiting jobs; returns whether there were any.
    async fn process(
        &mut self,
        transaction: WriteTransaction,
        start: Instant,
        has_turn: bool,
    ) -> bool {
        let Some(mut taken) = self.queue.try_dequeue(self.batch_size_max) else {
            self.executor.abandon(transaction).await;
            return false;
        };
        let mode = match std::mem::take(&mut self.skips_locked) {
            true => LockMode::SkipLocked,
            false => LockMode::Wait,
        };
        let mut batch = Batch::new(std::mem::take(&mut taken.jobs), mode, self.lookup());
        let cost: usize = batch.jobs.iter().map(|job| job.command.cost()).sum();
        let cost_left = self.batch_size_max.saturating_sub(cost);
        let join = |locked: &[Account]| taken.join(locked, cost_left);
        match self.executor.execute(transaction, start, &mut batch, join).await {
            Ok(left_out) => {
                self.retries.park(left_out.elsewhere, Some(&mut taken));
                drop(taken);
                // At the end of the queue, so that they do not keep others waiting.
                for (job, account_id) in left_out.by_peers {
                    job.start_wait(&account_id);
                    self.queue.enqueue(job);
                }
            }
            Err(ExecuteError::NotApplied(StorageError::LockTimeout(_)))
                if mode == LockMode::Wait =>
            {
                self.skips_locked = has_turn;
                self.turns.start();
                batch.jobs.retain(|job| !job.expire());
                taken.put_back(batch.jobs);
            }
            Err(ExecuteError::NotApplied(StorageError::RepeatedRequest(_)))
                if batch.lookup == Lookup::OnConflict =>
            {
                self.lookups = LOOKUP_BATCHES_AFTER_REPEAT;
                taken.put_back(batch.jobs);
            }
            Err(error) => self.retries.retry(batch, error),
        }
        true
    }

    /// Hands all waiting jobs to a retry, because a transaction cannot begin; returns whether there
    /// were any.
    fn hand_over(&mut self, error: ExecuteError) -> bool {
        let Some(mut taken) = self.queue.try_dequeue(self.batch_size_max) else { return false };
        let jobs = std::mem::take(&mut taken.jobs);
        let batch = Batch::new(jobs, LockMode::Wait, self.lookup());
        self.retries.retry(batch, error);
        true
    }

    /// When to look up the records of the next batch.
    fn lookup(&mut self) -> Lookup {
        if self.lookups == 0 {
            return Lookup::OnConflict;
        }
        self.lookups -= 1;
        Lookup::Before
    }
}
