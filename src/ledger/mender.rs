//! What is done with a batch that failed: retries, look-ups, bisection.
//!
//! A mender is a second worker with a connection of its own, for one batch. While it pauses and
//! tries again, the first worker goes on.
//!
//! After a panic, a time-out or a connection lost at COMMIT nobody knows whether the batch was
//! applied. It is simply tried again, for as long as anyone waits: the row locks make it wait
//! for the lost transaction to end, and the stored request ids tell it what that did.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::Semaphore;

use crate::{
    ledger::{
        Failure, Outcome,
        attempt::AttemptError,
        worker::{Batch, Worker, expire},
    },
    storage::StorageError,
};

/// Batches that are mended at the same time, each on a connection of its own. When there are
/// more, something is wrong with the database, and callers are told at once.
const MENDERS_MAX: usize = 8;
/// How often a batch is tried again when the database broke it off: with the pauses below
/// about a second in all. Longer is for the caller to decide.
const RETRIES_MAX: usize = 6;
/// How long a batch is tried while the database cannot be reached. Its callers are better told
/// than kept.
const UNAVAILABLE_TIME_MAX: Duration = Duration::from_secs(2);
/// The first pause between two attempts; each is twice the one before, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// All menders of a process.
#[derive(Clone)]
pub struct Menders {
    places: Arc<Semaphore>,
}

impl Default for Menders {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MENDERS_MAX)) }
    }
}

impl Menders {
    /// Has a batch mended that failed with this error.
    pub fn mend(&self, worker: Worker, batch: Batch, error: AttemptError) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!(
                error = error.summary(),
                jobs = batch.jobs.len(),
                "too many batches have failed"
            );
            batch.give_up(&Failure::DatabaseUnavailable(Some(Outcome::NotApplied)));
            return;
        };
        tokio::spawn(async move {
            mend(worker, batch, error).await;
            drop(place);
        });
    }
}

async fn mend(mut worker: Worker, batch: Batch, error: AttemptError) {
    let mut batches = VecDeque::from(next(&worker, batch, error).await);
    while let Some(mut batch) = batches.pop_front() {
        if !batch.is_wanted() {
            continue;
        }
        if let Err(error) = worker.try_once(&mut batch, None).await {
            batches.extend(next(&worker, batch, error).await);
        }
    }
}

/// What is to be tried next after an attempt that failed.
async fn next(worker: &Worker, mut batch: Batch, error: AttemptError) -> Vec<Batch> {
    let jobs = batch.jobs.len();
    let error = match error {
        AttemptError::NotApplied(error) => error,
        AttemptError::Unknown(error) => {
            tracing::warn!(error, jobs, "attempt lost, looking it up");
            // One job may have caused the loss: each half is tried by itself.
            return batch.pause().await.split();
        }
    };
    match error {
        StorageError::LockTimeout(_) if worker.waits_on(&mut batch) => vec![batch],
        StorageError::LockTimeout(_) => {
            expire(&mut batch.jobs);
            batch.pause().await.split()
        }
        StorageError::Aborted(_) | StorageError::Decided(_) if batch.retries < RETRIES_MAX => {
            tracing::debug!(%error, jobs, "transaction broken off");
            vec![batch.pause().await]
        }
        StorageError::Aborted(_) | StorageError::Decided(_) => {
            tracing::warn!(%error, jobs, "transaction broken off repeatedly");
            batch.bisect(&Failure::Contention)
        }
        StorageError::Unavailable(_) => {
            tracing::warn!(%error, jobs, "database unavailable");
            if batch.begun.elapsed() > UNAVAILABLE_TIME_MAX && batch.retries > 0 {
                // What may have been applied is looked up for as long as anyone waits.
                let failure = Failure::DatabaseUnavailable(Some(Outcome::NotApplied));
                batch.jobs.retain(|job| {
                    if !job.is_uncertain() {
                        job.give_up(failure.clone());
                    }
                    job.is_uncertain()
                });
            }
            if batch.jobs.is_empty() { Vec::new() } else { vec![batch.pause().await] }
        }
        StorageError::SchemaNotMigrated(_) => {
            tracing::error!(%error, "schema not migrated");
            batch.give_up(&Failure::SchemaNotMigrated(Some(Outcome::NotApplied)))
        }
        StorageError::Data(_) | StorageError::Corrupt(_) => {
            tracing::error!(error = error.summary(), jobs, "database refused a batch");
            tracing::debug!(%error, "what was refused");
            batch.bisect(&Failure::Internal(Some(Outcome::NotApplied)))
        }
    }
}

impl Batch {
    /// Waits before the next attempt, longer each time.
    async fn pause(mut self) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        let pause = pauses.build().nth(self.retries).unwrap_or(PAUSE_MAX);
        self.retries += 1;
        tokio::time::sleep(pause).await;
        self
    }

    fn give_up(self, failure: &Failure) -> Vec<Self> {
        self.jobs.iter().for_each(|job| job.give_up(failure.clone()));
        Vec::new()
    }

    /// Finds the job that the database refuses: it fails alone, its neighbours do not.
    fn bisect(self, failure: &Failure) -> Vec<Self> {
        if self.jobs.len() > 1 { self.split() } else { self.give_up(failure) }
    }

    /// Two halves, or the one job.
    fn split(mut self) -> Vec<Self> {
        if self.jobs.len() < 2 {
            return vec![self];
        }
        let second = Self { jobs: self.jobs.split_off(self.jobs.len() / 2), ..self };
        vec![self, second]
    }
}
