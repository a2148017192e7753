//! The worker: takes all that waits into one transaction, again and again.
//!
//! It owns its connection and makes one attempt at each batch (two, if rows are locked by
//! someone else), so that nothing that goes wrong with one batch holds up the next. What
//! failed it hands to the [`super::mender`].

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::{
    ledger::{
        Failure,
        attempt::{AttemptError, Attempted, Lookup, attempt},
        job::Job,
        lanes::Lanes,
        line::{Line, Taken},
        mender::Menders,
        stats::{OpenWriter, Stats, cause},
    },
    storage::{DatabaseKind, LockWait, StorageError, Store, Writer},
    telemetry::traces::{TransactionFacts, TransactionTrace},
};

/// An attempt that takes longer hangs on a connection to nowhere. It is abandoned together
/// with the connection; above the database's own statement time-out, below the ten seconds in
/// which the service is to be back after a partition.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(8);
/// A job this close to its deadline is answered rather than tried again.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

/// Workers of a process on PostgreSQL: while one waits for the disk or the network the other
/// keeps the database busy. SQLite has one writer at a time.
const POSTGRES_WORKERS: usize = 2;

/// After a request that turned out to have its verdict already, so many batches are looked up
/// before they are judged: callers who repeat themselves seldom come alone, and an attempt that
/// finds it out by itself is made twice.
const LOOKUPS_AFTER_DECIDED: usize = 64;

/// A connection, and attempts on it.
pub struct Worker {
    store: Arc<Store>,
    lanes: Lanes,
    writer: Option<(Writer, OpenWriter)>,
    /// Batches that are still to be looked up.
    lookups: usize,
}

/// Jobs that are tried together.
pub struct Batch {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    /// What to do about rows that someone else has locked.
    pub wait: LockWait,
    /// Whether to look up verdicts first.
    pub lookup: Lookup,
    /// When it was first tried.
    pub begun: Instant,
    /// How often it was tried again, after a pause.
    pub retries: usize,
    /// How often it was tried.
    pub attempts: usize,
}

/// Starts the workers and keeps them running.
pub fn spawn(store: &Arc<Store>, line: &Arc<Line>, stats: &Arc<Stats>, batch_size_max: usize) {
    let workers = match store.kind() {
        DatabaseKind::Sqlite => 1,
        DatabaseKind::Postgres => POSTGRES_WORKERS,
    };
    let lanes = Lanes::new(store.clone(), line.clone(), stats.clone(), batch_size_max);
    let menders = Menders::default();
    for _ in 0..workers {
        let (store, line) = (store.clone(), line.clone());
        let (lanes, menders) = (lanes.clone(), menders.clone());
        tokio::spawn(async move {
            loop {
                let worker = Worker::new(store.clone(), lanes.clone());
                let run = worker.run(line.clone(), menders.clone(), batch_size_max);
                if let Err(error) = tokio::spawn(run).await {
                    tracing::error!(%error, "worker panicked and is started again");
                }
            }
        });
    }
}

impl Worker {
    /// A worker without a connection yet.
    pub fn new(store: Arc<Store>, lanes: Lanes) -> Self {
        Self { store, lanes, writer: None, lookups: 0 }
    }

    async fn run(mut self, line: Arc<Line>, menders: Menders, batch_size_max: usize) {
        loop {
            let mut taken = line.take(batch_size_max).await;
            let batch = Batch::new(std::mem::take(&mut taken.jobs), self.lookup());
            self.settle(batch, &mut taken, &menders).await;
        }
    }

    /// Whether the next batch is looked up first.
    fn lookup(&mut self) -> Lookup {
        if self.lookups == 0 {
            return Lookup::Unneeded;
        }
        self.lookups = self.lookups.saturating_sub(1);
        Lookup::First
    }

    async fn settle(&mut self, mut batch: Batch, taken: &mut Taken, menders: &Menders) {
        while batch.is_wanted() {
            match self.try_once(&mut batch, Some(taken)).await {
                Ok(()) => return,
                Err(AttemptError::NotApplied(StorageError::LockTimeout(_)))
                    if self.waits_on(&mut batch) => {}
                Err(AttemptError::NotApplied(StorageError::Decided(_)))
                    if batch.lookup == Lookup::Unneeded =>
                {
                    batch.lookup = Lookup::First;
                    self.lookups = LOOKUPS_AFTER_DECIDED;
                }
                Err(error) => {
                    batch.lookup = Lookup::First;
                    let mender = Self::new(self.store.clone(), self.lanes.clone());
                    return menders.mend(mender, batch, error);
                }
            }
        }
    }

    /// After a lock that was not had in time: whether there is anything to be tried at once.
    pub fn waits_on(&self, batch: &mut Batch) -> bool {
        match (self.store.kind(), batch.wait) {
            // There is one lock, and the only thing to do is to try again.
            (DatabaseKind::Sqlite, _) => {
                expire(&mut batch.jobs);
                true
            }
            (DatabaseKind::Postgres, LockWait::Briefly) => {
                batch.wait = LockWait::Never;
                true
            }
            // No row, then, but a key that someone else has written and not yet committed.
            (DatabaseKind::Postgres, LockWait::Never) => false,
        }
    }

    /// One attempt; the jobs are answered if it succeeds. The connection is kept only if all
    /// is well with it.
    pub async fn try_once(
        &mut self,
        batch: &mut Batch,
        taken: Option<&mut Taken>,
    ) -> Result<(), AttemptError> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => (self.store.writer().await?, self.lanes.stats.open_writer()),
        };
        batch.attempts += 1;
        let Batch { jobs, wait, lookup, attempts, .. } = batch;
        let start = Instant::now();
        let traced = trace(self.store.kind(), jobs, *attempts, start);
        let result: Result<Attempted, _> = supervised(async {
            attempt(writer.0.begin().await?, start, jobs, *wait, *lookup).await
        })
        .await;
        let reusable = match &result {
            Ok(_) => true,
            Err(AttemptError::NotApplied(error)) => !matches!(error, StorageError::Unavailable(_)),
            Err(AttemptError::Unknown(_)) => false,
        };
        self.writer = reusable.then_some(writer);
        if let Err(error) = &result {
            note(&batch.jobs, error);
            traced.end(Some(cause(error)));
            self.lanes.stats.record_failure(error);
        }
        let attempted = result?;
        // Before its calls are answered, and end.
        traced.end(None);
        self.lanes.hand_out(attempted, taken);
        Ok(())
    }
}

/// The span of a transaction for these jobs, that began back then.
pub fn trace(
    kind: DatabaseKind,
    jobs: &[Arc<Job>],
    attempts: usize,
    start: Instant,
) -> TransactionTrace {
    TransactionTrace::begin(jobs.iter().map(|job| &job.trace), || TransactionFacts {
        database: match kind {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgresql",
        },
        batch_size: jobs.len(),
        attempts,
        since: start.elapsed(),
    })
}

/// Runs an attempt for as long as it may take at most. If it panics or hangs nobody knows whether
/// it committed; it is dropped, and its connection must be dropped with it.
pub async fn supervised<T>(
    attempt: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    // The drop of what hangs may panic too.
    let attempt = async move { tokio::time::timeout(ATTEMPT_TIME_MAX, attempt).await };
    // What the attempt leaves half done is thrown away: its book, and its connection.
    match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(Ok(result)) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = format!("panic: {}", text.unwrap_or("without a text"));
            Err(AttemptError::Unknown(text))
        }
        Ok(Err(_elapsed)) => {
            let seconds = ATTEMPT_TIME_MAX.as_secs();
            let text = format!("no answer from the database within {seconds} s");
            Err(AttemptError::Unknown(text))
        }
    }
}

/// Writes down on each job what an attempt that failed may have done.
pub fn note(jobs: &[Arc<Job>], error: &AttemptError) {
    for job in jobs {
        match error {
            AttemptError::NotApplied(_) => job.unclaim(),
            AttemptError::Unknown(_) => job.mark_uncertain(),
        }
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
    /// Jobs that have not been tried yet.
    pub fn new(jobs: Vec<Arc<Job>>, lookup: Lookup) -> Self {
        Self {
            jobs,
            wait: LockWait::Briefly,
            lookup,
            begun: Instant::now(),
            retries: 0,
            attempts: 0,
        }
    }

    /// Whether anyone still waits for any of it; forgets those that nobody does.
    pub fn is_wanted(&mut self) -> bool {
        self.jobs.retain(|job| job.is_wanted());
        !self.jobs.is_empty()
    }
}
