//! The worker: takes all that waits into one transaction, again and again.
//!
//! It owns its connection, runs each attempt in a task of its own, and outlives whatever
//! happens there. After a panic, a time-out or a connection lost at COMMIT it throws the
//! connection away and hands the batch to a second worker, which makes the attempt again, for
//! as long as anyone waits: the row locks make it wait for the lost transaction to end, and
//! the request ids in the database tell it what that did.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};

use crate::{
    ledger::{
        Failure, Outcome,
        attempt::{AttemptError, Attempted, attempt},
        job::Job,
        lanes::Lanes,
    },
    storage::{DatabaseKind, LockWait, StorageError, Store, Writer},
};

/// An attempt that takes longer hangs on a connection to nowhere. It is abandoned together
/// with the connection; above the database's own statement time-out.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(20);
/// How often a batch is tried again when the database broke it off, or cannot be reached.
/// With the pauses below about a second in all: longer is for the caller to decide.
const RETRIES_MAX: usize = 6;
/// How long a batch is tried while the database cannot be reached: one wait for a connection,
/// or a few quick refusals. Its callers are better told than kept.
const UNAVAILABLE_TIME_MAX: Duration = Duration::from_secs(2);
/// The first pause between two attempts; each is twice the one before, with jitter.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// A job this close to its deadline is answered rather than tried again.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

/// Jobs as they come in.
pub type Queue = mpsc::UnboundedReceiver<Arc<Job>>;

struct Worker {
    store: Arc<Store>,
    lanes: Lanes,
    batch_size_max: usize,
    writer: Option<Arc<Writer>>,
}

/// Jobs that are tried together, and how often they were tried again.
struct Batch {
    jobs: Vec<Arc<Job>>,
    begun: Instant,
    retries: usize,
    wait: LockWait,
}

/// Starts the worker and keeps it running.
pub fn spawn(
    store: Arc<Store>,
    queue: Queue,
    returned: mpsc::UnboundedSender<Arc<Job>>,
    batch_size_max: usize,
) {
    let queue = Arc::new(Mutex::new(queue));
    let lanes = Lanes::new(store.clone(), returned);
    tokio::spawn(async move {
        loop {
            let worker =
                Worker { store: store.clone(), lanes: lanes.clone(), batch_size_max, writer: None };
            match tokio::spawn(worker.run(queue.clone())).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "worker panicked and is started again"),
            }
        }
    });
}

impl Worker {
    async fn run(mut self, queue: Arc<Mutex<Queue>>) {
        let mut queue = queue.lock().await;
        let mut jobs = Vec::with_capacity(self.batch_size_max);
        while queue.recv_many(&mut jobs, self.batch_size_max).await > 0 {
            let ready = self.lanes.divert(jobs.drain(..));
            self.settle(Batch::new(ready)).await;
        }
    }

    /// Tries a batch until each of its jobs is answered or handed on.
    async fn settle(&mut self, batch: Batch) {
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            batch.jobs.retain(|job| job.is_wanted());
            if batch.jobs.is_empty() {
                continue;
            }
            match self.try_once(&batch).await {
                Ok(attempted) => self.lanes.hand_out(attempted),
                Err(AttemptError::NotApplied(error)) => {
                    batch.jobs.iter().for_each(|job| job.unclaim());
                    batches.extend(self.after_failure(batch, error).await);
                }
                Err(AttemptError::Unknown(error)) => {
                    tracing::warn!(error, jobs = batch.jobs.len(), "attempt lost, looking it up");
                    batch.jobs.iter().for_each(|job| job.mark_uncertain());
                    self.look_up(batch);
                }
            }
        }
    }

    /// One attempt, in a task of its own. Its connection is given back only if all went well.
    async fn try_once(&mut self, batch: &Batch) -> Result<Attempted, AttemptError> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => Arc::new(self.store.writer().await?),
        };
        let (jobs, wait, held) = (batch.jobs.clone(), batch.wait, writer.clone());
        let mut task = tokio::spawn(async move { attempt(&held, &jobs, wait).await });
        let result = match tokio::time::timeout(ATTEMPT_TIME_MAX, &mut task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(AttemptError::Unknown(panic.to_string())),
            Err(_elapsed) => {
                task.abort();
                let limit = humantime::format_duration(ATTEMPT_TIME_MAX);
                Err(AttemptError::Unknown(format!("no answer from the database for {limit}")))
            }
        };
        let reusable = match &result {
            Ok(_) => true,
            Err(AttemptError::NotApplied(error)) => !matches!(error, StorageError::Unavailable(_)),
            Err(AttemptError::Unknown(_)) => false,
        };
        self.writer = reusable.then_some(writer);
        result
    }

    /// What is to be tried next after an attempt that changed nothing.
    async fn after_failure(&self, mut batch: Batch, error: StorageError) -> Vec<Batch> {
        let jobs = batch.jobs.len();
        match error {
            StorageError::LockTimeout(_) => {
                // On SQLite there is one lock, and the only thing to do is to try again.
                if self.store.kind() == DatabaseKind::Postgres {
                    batch.wait = LockWait::Never;
                }
                expire(&mut batch.jobs);
                vec![batch]
            }
            StorageError::Aborted(_) => {
                tracing::debug!(%error, jobs, "transaction broken off");
                batch.retry_or_give_up(&Failure::Contention).await
            }
            StorageError::Unavailable(_) => {
                tracing::warn!(%error, jobs, "database unavailable");
                let failure = Failure::DatabaseUnavailable(Some(Outcome::NotApplied));
                if batch.begun.elapsed() > UNAVAILABLE_TIME_MAX && !batch.is_uncertain() {
                    return batch.give_up(&failure);
                }
                batch.retry_or_give_up(&failure).await
            }
            StorageError::SchemaNotMigrated(_) => {
                tracing::error!(%error, jobs, "schema not migrated");
                batch.give_up(&Failure::SchemaNotMigrated)
            }
            StorageError::Data(_) | StorageError::Corrupt(_) => {
                tracing::error!(%error, jobs, "database refused a batch");
                batch.bisect()
            }
        }
    }

    /// Has a second worker try the batch again, so that this one can go on. It was committed as
    /// a whole or not at all; one job may have caused the loss, so each half is tried by itself.
    fn look_up(&self, batch: Batch) {
        let mut second = Self {
            store: self.store.clone(),
            lanes: self.lanes.clone(),
            batch_size_max: self.batch_size_max,
            writer: None,
        };
        tokio::spawn(async move {
            tokio::time::sleep(RETRY_PAUSE_MIN).await;
            // Popped from the end: the half that came first is tried first.
            for half in batch.split().into_iter().rev() {
                second.settle(half).await;
            }
        });
    }
}

/// Answers the jobs that have no time left.
pub fn expire(jobs: &mut Vec<Arc<Job>>) {
    let soon = Instant::now() + DEADLINE_MARGIN;
    jobs.retain(|job| {
        let expired = job.deadline <= soon;
        if expired {
            job.give_up(Failure::LockTimeout);
        }
        !expired
    });
}

impl Batch {
    fn new(jobs: Vec<Arc<Job>>) -> Self {
        Self { jobs, begun: Instant::now(), retries: 0, wait: LockWait::Briefly }
    }

    /// Whether any of it may have been committed.
    fn is_uncertain(&self) -> bool {
        self.jobs.iter().any(|job| job.is_uncertain())
    }

    /// How long to wait before the next retry; None if there were enough. What may have been
    /// committed is looked up for as long as anyone waits.
    fn next_pause(&mut self) -> Option<Duration> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(RETRY_PAUSE_MIN)
            .with_max_delay(RETRY_PAUSE_MAX)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        self.retries += 1;
        pauses.build().nth(self.retries - 1).or(self.is_uncertain().then_some(RETRY_PAUSE_MAX))
    }

    async fn retry_or_give_up(mut self, failure: &Failure) -> Vec<Self> {
        match self.next_pause() {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                vec![self]
            }
            None => self.give_up(failure),
        }
    }

    fn give_up(self, failure: &Failure) -> Vec<Self> {
        self.jobs.iter().for_each(|job| job.give_up(failure.clone()));
        Vec::new()
    }

    /// Finds the job that the database refuses: it fails alone, its neighbours do not.
    fn bisect(self) -> Vec<Self> {
        if self.jobs.len() == 1 {
            return self.give_up(&Failure::Internal(Outcome::NotApplied));
        }
        self.split()
    }

    /// Two halves, the one that came first on top of the stack.
    fn split(mut self) -> Vec<Self> {
        let second = self.jobs.split_off(self.jobs.len().div_ceil(2));
        let second = Self { jobs: second, ..self };
        vec![second, self]
    }
}
