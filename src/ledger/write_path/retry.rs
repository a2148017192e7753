//! Retries: batches that failed and jobs whose row is locked by another program, each on a connection
//! of its own until its jobs are completed.
//!
//! ```text
//!   a row is locked by another program           a batch failed
//!        |                                            |
//!        v                                            v
//!   wait for that row, holding no other <--+     pause, halve <-----------+
//!        |            |                    |          |                   |
//!        |            +-- timed out: ------+          v                   |
//!        v                expired jobs failed     take the turn           |
//!   jobs parked behind it                             |                   |
//!        |                                            v                   |
//!        +-------------> execute <-------------- jobs of the batch        |
//!                          |  |                                           |
//!                          |  +-- error ----------------------------------+
//!                          v
//!   jobs completed; those whose row is locked elsewhere are parked behind it
//! ```
//!
//! After a panic, a timeout or a connection lost at COMMIT the batch is in doubt. The retry repeats it
//! for as long as a caller waits: the row locks make it wait for the end of the lost transaction, and
//! the records of the requests show what that transaction did.
//!
//! # The lock
//!
//! A transaction that waits for one row has locked no other meanwhile, and then locks the other rows
//! of its jobs only if they are free (SKIP LOCKED). So it delays nobody while it waits, and cannot
//! deadlock, whatever the order of the ids.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    ledger::{
        Error, Outcome,
        metrics::write_path::WritePathMetrics,
        write_path::{
            executor::{Batch, Executor, WaitFor},
            lock_wait::AccountLease,
            queue::{CommandQueue, DequeuedBatch},
            transaction::{ExecuteError, LeftOut, LockedJobs, Lookup},
        },
    },
    storage::{DatabaseKind, LockMode, StorageError, Store, WriteTransaction},
};

/// The pause before a job with a foreign lock goes back into the queue while all connections for row
/// waits are in use: the job makes a worker wait for its row once more.
const LOCK_WAITS_FULL_PAUSE: Duration = Duration::from_millis(50);
/// How often a batch is tried again after the database aborted it: with the pauses below about a
/// second in all. Further attempts are up to the caller.
const ATTEMPTS_MAX: usize = 6;
/// How long a batch is tried while the database cannot be reached. Then its callers get the error,
/// which serves them better than a longer wait.
const UNAVAILABLE_TIME_MAX: Duration = Duration::from_secs(2);
/// The first pause between two attempts; each is twice the one before, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// All retries of a process.
#[derive(Clone)]
pub struct RetryPool {
    store: Arc<Store>,
    queue: Arc<CommandQueue>,
    stats: Arc<WritePathMetrics>,
    /// One for each batch that is retried, on a connection of its own. If more batches fail, the
    /// database has a problem, and their callers get the error at once.
    permits: Arc<Semaphore>,
    batch_size_max: usize,
}

impl RetryPool {
    /// A pool without retries.
    pub fn new(
        store: Arc<Store>,
        queue: Arc<CommandQueue>,
        stats: Arc<WritePathMetrics>,
        batch_size_max: usize,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(store.budget().retries as usize));
        Self { store, queue, stats, permits, batch_size_max }
    }

    /// Retries a batch that failed with this error.
    pub fn retry(&self, batch: Batch, error: ExecuteError) {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            let (error, jobs) = (error.summary(), batch.jobs.len());
            tracing::warn!(error, jobs, "too many batches have failed");
            batch.fail(&Error::DatabaseUnavailable(Some(Outcome::NotApplied)));
            return;
        };
        let pool = self.clone();
        tokio::spawn(async move {
            let batches = pool.next_step(batch, error).await;
            pool.run(batches.into()).await;
            drop(permit);
        });
    }

    /// Parks jobs behind the accounts that are locked elsewhere, and starts to wait for their rows.
    /// Releases the accounts of the batch that found the locks.
    pub fn park(&self, left_out: LockedJobs, taken: Option<&mut DequeuedBatch>) {
        if left_out.is_empty() {
            return;
        }
        let waits_max = self.store.budget().row_waits as usize;
        let (account_ids, refused) = self.queue.park(left_out, taken, waits_max);
        for account_id in account_ids {
            tracing::debug!(%account_id, "account locked elsewhere, its requests are parked");
            let lease = AccountLease::new(self.queue.clone(), account_id);
            tokio::spawn(self.clone().wait_for_row(lease));
        }
        for job in refused {
            if job.deadline <= Instant::now() + LOCK_WAITS_FULL_PAUSE {
                job.fail(Error::LockTimeout);
                continue;
            }
            let queue = self.queue.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LOCK_WAITS_FULL_PAUSE).await;
                queue.enqueue(job);
            });
        }
    }

    /// Waits for the row of an account until it is free or no job needs it.
    async fn wait_for_row(self, mut lease: AccountLease) {
        let mut executor = Executor::new(self.store.clone(), self.stats.clone());
        while lease.has_waiter() {
            let start = Instant::now();
            let row = WaitFor::Row(lease.account_id(), lease.lock_timeout());
            match executor.begin(row).await {
                Ok((transaction, _)) => {
                    return self.execute_parked(executor, transaction, start, lease).await;
                }
                Err(StorageError::LockTimeout(_)) => lease.expire(),
                // The parked jobs go back into the queue.
                Err(error) => {
                    let error = error.summary();
                    tracing::warn!(error, "wait for a locked account broken off");
                    return;
                }
            }
        }
    }

    /// Executes the jobs that are parked behind the row that this transaction has locked. Jobs that
    /// arrive meanwhile are parked, too, until the lease ends with this.
    async fn execute_parked(
        &self,
        mut executor: Executor,
        transaction: WriteTransaction,
        start: Instant,
        lease: AccountLease,
    ) {
        let jobs = lease.take(self.batch_size_max);
        if jobs.is_empty() {
            return executor.abandon(transaction).await;
        }
        // The jobs have waited for long, and may have been tried before.
        let mut batch = Batch::new(jobs, LockMode::SkipLocked, Lookup::Before);
        match executor.execute(transaction, start, &mut batch, |_| Vec::new()).await {
            Ok(left_out) => self.park(left_out.all(), None),
            Err(error) => self.retry(batch, error),
        }
    }

    async fn run(self, mut batches: VecDeque<Batch>) {
        let mut executor = Executor::new(self.store.clone(), self.stats.clone());
        while let Some(mut batch) = batches.pop_front() {
            if !batch.has_waiter() {
                continue;
            }
            match attempt(&mut executor, &mut batch).await {
                // The lock of a peer may be that of a lost transaction of this very batch.
                Ok(left_out) => self.park(left_out.all(), None),
                Err(error) => batches.extend(self.next_step(batch, error).await),
            }
        }
    }

    /// The batches to try next after an attempt that failed.
    async fn next_step(&self, mut batch: Batch, error: ExecuteError) -> Vec<Batch> {
        batch.lookup = Lookup::Before;
        let jobs = batch.jobs.len();
        let error = match error {
            ExecuteError::NotApplied(error) => error,
            ExecuteError::Unknown(error) => {
                tracing::warn!(error, jobs, "attempt lost, looking it up");
                // One job may have caused the loss: each half is tried by itself.
                return batch.pause().await.split();
            }
            ExecuteError::Partial => return vec![batch],
        };
        match error {
            // There is one lock; the only cure is to try again.
            StorageError::LockTimeout(_) if self.store.kind() == DatabaseKind::Sqlite => {
                batch.jobs.retain(|job| !job.expire());
                vec![batch]
            }
            StorageError::LockTimeout(_) if batch.mode == LockMode::Wait => {
                batch.jobs.retain(|job| !job.expire());
                batch.mode = LockMode::SkipLocked;
                vec![batch]
            }
            // Not a row, but a key that another transaction has written and not committed.
            StorageError::LockTimeout(_) => {
                batch.jobs.retain(|job| !job.expire());
                batch.pause().await.split()
            }
            StorageError::Aborted(_) | StorageError::RepeatedRequest(_)
                if batch.retries < ATTEMPTS_MAX =>
            {
                tracing::debug!(%error, jobs, "transaction broken off");
                vec![batch.pause().await]
            }
            StorageError::Aborted(_) | StorageError::RepeatedRequest(_) => {
                tracing::warn!(%error, jobs, "transaction broken off repeatedly");
                batch.bisect(&Error::Contention)
            }
            StorageError::Unavailable(_) | StorageError::Forbidden(_) => {
                if matches!(error, StorageError::Forbidden(_)) {
                    tracing::error!(%error, jobs, "the database's role may not write");
                } else {
                    tracing::warn!(%error, jobs, "database unavailable");
                }
                if batch.started_at.elapsed() > UNAVAILABLE_TIME_MAX && batch.retries > 0 {
                    // Jobs in doubt are looked up for as long as their callers wait.
                    let failure = Error::DatabaseUnavailable(Some(Outcome::NotApplied));
                    batch.jobs.retain(|job| {
                        if !job.is_in_doubt() {
                            job.fail(failure.clone());
                        }
                        job.is_in_doubt()
                    });
                }
                if batch.jobs.is_empty() { Vec::new() } else { vec![batch.pause().await] }
            }
            StorageError::SchemaNotMigrated(_) => {
                tracing::error!(%error, "schema not migrated");
                batch.fail(&Error::SchemaNotMigrated(Some(Outcome::NotApplied)))
            }
            StorageError::Data(_) | StorageError::Corrupt(_) => {
                tracing::error!(error = error.summary(), jobs, "database refused a batch");
                tracing::debug!(%error, "details of the refused batch");
                batch.bisect(&Error::Internal(Some(Outcome::NotApplied)))
            }
        }
    }
}

async fn attempt(executor: &mut Executor, batch: &mut Batch) -> Result<LeftOut, ExecuteError> {
    let start = Instant::now();
    let first = match batch.mode {
        LockMode::Wait => WaitFor::Turn,
        LockMode::SkipLocked => WaitFor::Nothing,
    };
    let (transaction, _) = executor.begin(first).await?;
    executor.execute(transaction, start, batch, |_| Vec::new()).await
}

impl Batch {
    /// Waits before the next attempt, longer each time.
    async fn pause(mut self) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .with_max_times(ATTEMPTS_MAX)
            .with_jitter();
        let pause = pauses.build().nth(self.retries).unwrap_or(PAUSE_MAX);
        self.retries += 1;
        tokio::time::sleep(pause).await;
        self
    }

    fn fail(self, failure: &Error) -> Vec<Self> {
        self.jobs.iter().for_each(|job| job.fail(failure.clone()));
        Vec::new()
    }

    /// Isolates the job that the database refuses, so that the other jobs do not fail with it.
    fn bisect(self, failure: &Error) -> Vec<Self> {
        if self.jobs.len() > 1 { self.split() } else { self.fail(failure) }
    }

    /// Two halves, or the one job.
    fn split(mut self) -> Vec<Self> {
        if self.jobs.len() < 2 {
            return vec![self];
        }
        let jobs = self.jobs.split_off(self.jobs.len() / 2);
        let second = Self { jobs, ..self };
        vec![self, second]
    }
}
