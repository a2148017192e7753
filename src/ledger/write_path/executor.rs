//! A connection, and the transactions on it. Each worker and each retry has one.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::{
    domain::account::Account,
    ledger::{
        Error,
        metrics::write_path::{WritePathMetrics, WriterGuard, error_label, storage_error_label},
        write_path::{
            job::Job,
            transaction::{Batch, ExecuteError, LeftOut, OpenTransaction, WaitFor},
        },
    },
    panic_message::panic_message,
    storage::{DatabaseKind, StorageError, Store, Writer},
    telemetry::traces::{TransactionFacts, TransactionTrace},
};

/// An attempt that takes longer hangs on a dead connection, and is dropped with the connection.
/// Above the database's own timeouts for statements and for idle transactions, well below the ten
/// seconds within which the service recovers from a partition.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(6);

/// See the module.
pub struct Executor {
    store: Arc<Store>,
    stats: Arc<WritePathMetrics>,
    writer: Option<(Writer, WriterGuard)>,
    /// The connection before was given up, perhaps in the middle of its COMMIT.
    has_given_up: bool,
}

impl Executor {
    /// An executor without a connection yet.
    pub fn new(store: Arc<Store>, stats: Arc<WritePathMetrics>) -> Self {
        Self { store, stats, writer: None, has_given_up: false }
    }

    /// Opens the connection ahead of the first transaction. If that fails, the transaction tries again.
    pub async fn connect(&mut self) {
        self.writer = self.take_writer().await.ok();
    }

    /// Begins a transaction, on a new connection unless there is a usable one.
    pub async fn begin(&mut self, first: WaitFor<'_>) -> Result<OpenTransaction, StorageError> {
        let writer = self.take_writer().await?;
        let begin = OpenTransaction::begin(&writer.0, first);
        let begun = run_guarded(&self.store, begin, StorageError::Unavailable).await;
        let error = begun.as_ref().err();
        self.writer = (!error.is_some_and(loses_connection)).then_some(writer);
        // A row that is still locked is no error.
        let is_row_wait = matches!(first, WaitFor::Row(..));
        let is_expected = |it: &_| is_row_wait && matches!(it, StorageError::LockTimeout(_));
        if let Some(error) = error.filter(|error| !is_expected(*error)) {
            self.stats.record_failure(storage_error_label(error));
        }
        begun
    }

    /// Ends a transaction that has no jobs.
    pub async fn abandon(&mut self, transaction: OpenTransaction) {
        let ended =
            run_guarded(&self.store, transaction.abandon(), StorageError::Unavailable).await;
        if ended.is_err() {
            self.writer = None;
        }
    }

    /// Executes a batch, and the jobs that `join` it once its rows are locked. Completes the jobs with
    /// their results, and returns those that were left out.
    pub async fn execute(
        &mut self,
        transaction: OpenTransaction,
        batch: &mut Batch,
        join: impl FnOnce(&[Account]) -> Vec<Arc<Job>>,
    ) -> Result<LeftOut, ExecuteError> {
        let start = transaction.start;
        let executed = transaction.execute(batch, join);
        let executed = run_guarded(&self.store, executed, ExecuteError::Unknown).await;
        // Before the jobs are completed, which ends their calls.
        trace(self.store.kind(), batch, start, executed.as_ref().err());
        match executed {
            Ok(executed) => {
                if !executed.completed.is_empty() {
                    self.stats.record(&executed);
                    self.stats.set_cannot_write(false);
                }
                executed.completed.into_iter().for_each(|(job, result)| job.complete(result));
                executed.undecided.iter().for_each(|job| job.fail(Error::Contention));
                Ok(executed.left_out)
            }
            Err(error) => {
                self.stats.record_failure(error_label(&error));
                let is_unknown = matches!(error, ExecuteError::Unknown(_));
                if is_unknown
                    || matches!(&error, ExecuteError::NotApplied(it) if may_concern_all(it))
                {
                    self.stats.set_cannot_write(true);
                }
                self.has_given_up |= is_unknown;
                let record = if is_unknown { Job::mark_in_doubt } else { Job::unclaim };
                batch.jobs.iter().for_each(|job| record(job));
                if is_unknown
                    || matches!(&error, ExecuteError::NotApplied(it) if loses_connection(it))
                {
                    self.writer = None;
                }
                Err(error)
            }
        }
    }

    /// The open connection, or a new one if there is none or it is stale.
    async fn take_writer(&mut self) -> Result<(Writer, WriterGuard), StorageError> {
        if let Some(writer) = self.writer.take().filter(|(writer, _)| !self.store.is_stale(writer))
        {
            return Ok(writer);
        }
        let writer = self.open_writer().await.inspect_err(|_| self.stats.set_cannot_write(true))?;
        self.has_given_up = false;
        Ok((writer, self.stats.open_writer()))
    }

    async fn open_writer(&self) -> Result<Writer, StorageError> {
        let writer = self.store.writer().await?;
        // Each connection that waits for a standby waits for as long as there is none.
        if self.has_given_up || self.stats.cannot_write() {
            writer.check_standby().await?;
        }
        Ok(writer)
    }
}

/// Whether the error may come from the tables, the rights on them or the database, so that all changes get
/// it.
fn may_concern_all(error: &StorageError) -> bool {
    loses_connection(error) || matches!(error, StorageError::SchemaNotMigrated(_))
}

fn loses_connection(error: &StorageError) -> bool {
    matches!(error, StorageError::Unavailable(_) | StorageError::Forbidden(_))
}

/// Records the span of a transaction, from `start` until now.
fn trace(kind: DatabaseKind, batch: &Batch, start: Instant, error: Option<&ExecuteError>) {
    let jobs = &batch.jobs;
    let span = TransactionTrace::begin(jobs.iter().map(|job| &job.trace), || TransactionFacts {
        database: match kind {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgresql",
        },
        batch_size: jobs.len(),
        attempts: batch.attempts,
        since: start.elapsed(),
    });
    span.end(error.map(error_label));
}

/// Runs a part of an attempt for at most [`ATTEMPT_TIME_MAX`]. If it panics or hangs, it is dropped, and
/// `lost` makes the error of it; its connection must be dropped with it.
async fn run_guarded<T, E>(
    store: &Store,
    part: impl Future<Output = Result<T, E>>,
    lost: impl FnOnce(String) -> E,
) -> Result<T, E> {
    // Dropping a hanging attempt may panic, too.
    let part = async move { tokio::time::timeout(ATTEMPT_TIME_MAX, part).await };
    // Unwind safe: the unit of work and the connection are dropped.
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_elapsed)) => {
            store.invalidate_connections();
            let seconds = ATTEMPT_TIME_MAX.as_secs();
            Err(lost(format!("no answer from the database within {seconds} s")))
        }
        Err(panic) => Err(lost(format!("panic: {}", panic_message(&*panic)))),
    }
}
