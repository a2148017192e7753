//! Retries: batches that failed, each on a connection of its own until its jobs are completed.
//!
//! After a panic, a timeout or a connection lost at COMMIT the batch is in doubt. The retry repeats it
//! for as long as a caller waits: the row locks make it wait for the end of the lost transaction, and
//! the records of the requests show what that transaction did.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use crate::{
    ledger::{
        Error, Outcome,
        write_path::{
            executor::Executor,
            job::DEADLINE_MARGIN,
            shared::WritePath,
            transaction::{Batch, ExecuteError, LeftOut, Lookup, WaitFor},
        },
    },
    storage::{DatabaseKind, LockMode, StorageError},
};

/// How often a batch is tried again after the database aborted it: with the pauses below about a
/// second in all. Further attempts are up to the caller.
const RETRIES_MAX: usize = 6;
/// How long a batch is tried while the database cannot be reached. Then its callers get the error,
/// which serves them better than a longer wait.
const UNAVAILABLE_TIME_MAX: Duration = Duration::from_secs(2);
/// The first pause between two attempts; each is twice the one before, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two attempts, to which the jitter adds at most as much again.
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl WritePath {
    /// Retries a batch that failed with this error.
    pub(super) fn retry(self: &Arc<Self>, batch: Batch, error: ExecuteError) {
        let Ok(permit) = self.retry_permits.clone().try_acquire_owned() else {
            let (error, jobs) = (error.summary(), batch.jobs.len());
            tracing::warn!(error, jobs, "too many batches have failed");
            batch.fail(&Error::DatabaseUnavailable(Some(Outcome::NotApplied)));
            return;
        };
        let path = self.clone();
        tokio::spawn(async move {
            let mut executor = path.executor();
            let mut batches = VecDeque::from(path.next_step(batch, error).await);
            while let Some(mut batch) = batches.pop_front() {
                batch.jobs.retain(|job| job.has_waiter());
                if batch.jobs.is_empty() {
                    continue;
                }
                batch.attempts += 1;
                match attempt(&mut executor, &mut batch).await {
                    // The lock of a peer may be that of a lost transaction of this very batch.
                    Ok(mut left_out) => {
                        path.queue.put_back(mem::take(&mut left_out.with_expired_holds));
                        path.park(left_out.locked(), None);
                    }
                    Err(error) => batches.extend(path.next_step(batch, error).await),
                }
            }
            drop(permit);
        });
    }

    /// What to try next after a failed attempt: the batch, its halves, or nothing.
    async fn next_step(&self, mut batch: Batch, error: ExecuteError) -> Vec<Batch> {
        batch.lookup = Lookup::Before;
        let jobs = batch.jobs.len();
        let error = match error {
            ExecuteError::NotApplied(error) => error,
            ExecuteError::Unknown(error) => {
                tracing::warn!(error, jobs, "attempt in doubt, trying it again");
                // One job may have caused the loss: each half is tried by itself.
                return batch.pause().await.split();
            }
        };
        match error {
            StorageError::LockTimeout(_) => {
                batch.jobs.retain(|job| !job.expire(DEADLINE_MARGIN));
                match (self.store.kind(), batch.mode) {
                    // There is one lock; the only cure is to try again.
                    (DatabaseKind::Sqlite, _) => {}
                    (DatabaseKind::Postgres, LockMode::Wait) => batch.mode = LockMode::SkipLocked,
                    // Not a row, but a key that another transaction has written and not committed.
                    (DatabaseKind::Postgres, LockMode::SkipLocked) => {
                        return batch.pause().await.split();
                    }
                }
                vec![batch]
            }
            StorageError::Aborted(_) | StorageError::RepeatedRequest(_) => {
                if batch.attempts <= RETRIES_MAX {
                    tracing::debug!(%error, jobs, "database transaction aborted");
                    return vec![batch.pause().await];
                }
                tracing::warn!(%error, jobs, "database transaction aborted repeatedly");
                batch.bisect(&Error::Contention)
            }
            StorageError::Unavailable(_) | StorageError::Forbidden(_) => {
                if matches!(error, StorageError::Forbidden(_)) {
                    tracing::error!(%error, jobs, "the database's role may not write");
                } else {
                    tracing::warn!(%error, jobs, "database unavailable");
                }
                if batch.started_at.elapsed() > UNAVAILABLE_TIME_MAX && batch.attempts > 1 {
                    // Jobs in doubt are looked up for as long as their callers wait.
                    let failed = batch.jobs.extract_if(.., |job| !job.is_in_doubt());
                    let failure = Error::DatabaseUnavailable(Some(Outcome::NotApplied));
                    failed.for_each(|job| job.fail(failure.clone()));
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
    let first = match batch.mode {
        LockMode::Wait => WaitFor::Turn,
        LockMode::SkipLocked => WaitFor::Nothing,
    };
    let transaction = executor.begin(first).await?;
    executor.execute(transaction, batch, |_| Vec::new()).await
}

impl Batch {
    /// Waits before the next attempt, longer each time.
    async fn pause(self) -> Self {
        let doubled = PAUSE_MIN * (1 << (self.attempts - 1).min(RETRIES_MAX));
        let jitter = 1.0 + fastrand::f64();
        tokio::time::sleep(doubled.min(PAUSE_MAX).mul_f64(jitter)).await;
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
