//! A connection, and the transactions on it. Each worker and each retry has one.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::{
    domain::{account::Account, ids::AccountId, rejection::Rejection, unit_of_work::CommandResult},
    ledger::{
        Error, Outcome,
        metrics::write_path::{WritePathMetrics, WriterGuard, error_label, storage_error_label},
        write_path::{
            job::Job,
            transaction::{ExecuteError, LeftOut, Lookup, execute, roll_back},
        },
    },
    panic_message::panic_message,
    storage::{DatabaseKind, LockMode, StorageError, Store, WriteTransaction, Writer},
    telemetry::traces::{TransactionFacts, TransactionTrace},
};

/// An attempt that takes longer hangs on a dead connection, and is dropped with the connection.
/// Above the database's own timeouts for statements and for idle transactions, well below the ten
/// seconds within which the service recovers from a partition.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(6);

/// Jobs that are executed together.
pub struct Batch {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    /// How to treat locked rows.
    pub mode: LockMode,
    /// When to look up records.
    pub lookup: Lookup,
    /// When the batch was first tried.
    pub started_at: Instant,
    /// How often it was tried again after a pause.
    pub retries: usize,
    /// How often it was tried in all.
    pub attempts: usize,
}

/// What a transaction waits for before it locks its rows.
pub enum WaitFor<'a> {
    /// It does not wait.
    Nothing,
    /// The turn among the servers.
    Turn,
    /// One row, for at most this time.
    Row(&'a AccountId, Duration),
}

/// See the module.
pub struct Executor {
    store: Arc<Store>,
    stats: Arc<WritePathMetrics>,
    writer: Option<(Writer, WriterGuard)>,
}

impl Executor {
    /// An executor without a connection yet.
    pub fn new(store: Arc<Store>, stats: Arc<WritePathMetrics>) -> Self {
        Self { store, stats, writer: None }
    }

    /// Opens a connection, unless there is a usable one.
    pub async fn connect(&mut self) -> Result<(), StorageError> {
        if self.writer.as_ref().is_some_and(|(writer, _)| !self.store.is_stale(writer)) {
            return Ok(());
        }
        self.writer = None;
        let writer = self.store.writer().await;
        self.stats.set_lacks_writer(writer.is_err());
        self.writer = Some((writer?, self.stats.open_writer()));
        Ok(())
    }

    /// Begins a transaction, and returns whether it waited for the turn.
    pub async fn begin(
        &mut self,
        first: WaitFor<'_>,
    ) -> Result<(WriteTransaction, bool), StorageError> {
        self.connect().await?;
        let Some(writer) = self.writer.take() else {
            return Err(StorageError::Unavailable("no connection".to_owned()));
        };
        let is_row_wait = matches!(first, WaitFor::Row(..));
        let begun = run_guarded(&self.store, begin(&writer.0, first)).await;
        self.writer = is_reusable(&begun).then_some(writer);
        begun.map_err(|error| {
            let error = match error {
                ExecuteError::NotApplied(error) => error,
                // The transaction has written nothing yet.
                error @ (ExecuteError::Unknown(_) | ExecuteError::Partial) => {
                    StorageError::Unavailable(error.to_string())
                }
            };
            // A row that is still locked is no error.
            if !(is_row_wait && matches!(error, StorageError::LockTimeout(_))) {
                self.stats.record_failure(storage_error_label(&error));
            }
            error
        })
    }

    /// Ends a transaction that has no jobs.
    pub async fn abandon(&mut self, transaction: WriteTransaction) {
        let ended = run_guarded(&self.store, async { Ok(transaction.roll_back().await?) }).await;
        if !is_reusable(&ended) {
            self.writer = None;
        }
    }

    /// Executes a batch, and the jobs that `join` it once its rows are locked, in a transaction that
    /// began at `start`. Completes the jobs with their results, and returns those that were left out.
    pub async fn execute(
        &mut self,
        transaction: WriteTransaction,
        start: Instant,
        batch: &mut Batch,
        join: impl FnOnce(&[Account]) -> Vec<Arc<Job>>,
    ) -> Result<LeftOut, ExecuteError> {
        batch.attempts += 1;
        let Batch { jobs, mode, lookup, .. } = batch;
        let executed = execute(transaction, start, jobs, *mode, *lookup, join);
        let result = run_guarded(&self.store, executed).await;
        if !is_reusable(&result) {
            self.writer = None;
        }
        // Before the jobs are completed, which ends their calls.
        trace(self.store.kind(), jobs, batch.attempts, start, result.as_ref().err());
        match result {
            Ok(executed) => {
                self.stats.record(&executed);
                let completed = executed.completed.into_iter();
                completed.for_each(|(job, result)| complete_job(&job, result));
                Ok(executed.left_out)
            }
            Err(error) => {
                record_outcome(jobs, &error);
                self.stats.record_failure(error_label(&error));
                Err(error)
            }
        }
    }
}

impl Batch {
    /// A batch of jobs that have not been tried yet.
    pub fn new(jobs: Vec<Arc<Job>>, mode: LockMode, lookup: Lookup) -> Self {
        Self { jobs, mode, lookup, started_at: Instant::now(), retries: 0, attempts: 0 }
    }

    /// Drops the jobs whose callers have gone, and returns whether any job is left.
    pub fn has_waiter(&mut self) -> bool {
        self.jobs.retain(|job| job.has_waiter());
        !self.jobs.is_empty()
    }
}

async fn begin(
    writer: &Writer,
    first: WaitFor<'_>,
) -> Result<(WriteTransaction, bool), ExecuteError> {
    let transaction = writer.begin().await?;
    let waited = match first {
        WaitFor::Nothing => Ok(false),
        WaitFor::Turn => transaction.take_turn().await,
        WaitFor::Row(account_id, time_max) => {
            transaction.wait_for(account_id, time_max).await.map(|()| true)
        }
    };
    match waited {
        Ok(waited) => Ok((transaction, waited)),
        Err(error) => Err(roll_back(transaction, error).await.into()),
    }
}

fn is_reusable<T>(result: &Result<T, ExecuteError>) -> bool {
    match result {
        Ok(_) => true,
        Err(ExecuteError::NotApplied(error)) => {
            !matches!(error, StorageError::Unavailable(_) | StorageError::Forbidden(_))
        }
        Err(ExecuteError::Partial) => true,
        Err(ExecuteError::Unknown(_)) => false,
    }
}

/// Completes a job whose result is committed.
fn complete_job(job: &Job, result: Result<CommandResult, Rejection>) {
    match result {
        // An earlier attempt in doubt may have applied this very change. A command without a request
        // id has no record that would say so.
        Err(_) if job.is_in_doubt() && job.command.key().is_none() => {
            job.fail(Error::DatabaseUnavailable(Some(Outcome::Unknown)));
        }
        result => job.complete(result.map_err(Error::Rejected)),
    }
}

/// Writes down on each job what an attempt that failed may have done.
fn record_outcome(jobs: &[Arc<Job>], error: &ExecuteError) {
    for job in jobs {
        match error {
            ExecuteError::NotApplied(_) | ExecuteError::Partial => job.unclaim(),
            ExecuteError::Unknown(_) => job.mark_in_doubt(),
        }
    }
}

/// Records the span of a transaction for these jobs, from `start` until now.
fn trace(
    kind: DatabaseKind,
    jobs: &[Arc<Job>],
    attempts: usize,
    start: Instant,
    error: Option<&ExecuteError>,
) {
    let span = TransactionTrace::begin(jobs.iter().map(|job| &job.trace), || TransactionFacts {
        database: match kind {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgresql",
        },
        batch_size: jobs.len(),
        attempts,
        since: start.elapsed(),
    });
    span.end(error.map(error_label));
}

/// Runs an attempt for at most [`ATTEMPT_TIME_MAX`]. If it panics or hangs, its commit is in doubt; the
/// attempt is dropped, and its connection must be dropped with it.
async fn run_guarded<T>(
    store: &Store,
    attempt: impl Future<Output = Result<T, ExecuteError>>,
) -> Result<T, ExecuteError> {
    // Dropping a hanging attempt may panic, too.
    let attempt = async move { tokio::time::timeout(ATTEMPT_TIME_MAX, attempt).await };
    // Unwind safe: the unit of work and the connection are dropped.
    match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(Ok(result)) => result,
        Err(panic) => {
            let text = format!("panic: {}", panic_message(&*panic));
            Err(ExecuteError::Unknown(text))
        }
        Ok(Err(_elapsed)) => {
            store.invalidate_connections();
            let seconds = ATTEMPT_TIME_MAX.as_secs();
            let text = format!("no answer from the database within {seconds} s");
            Err(ExecuteError::Unknown(text))
        }
    }
}
