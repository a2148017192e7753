//! The ledger: one write path for all changes, and the reads beside it.
//!
//! A request alone is a batch of one; there is no other way to change anything. The future of an
//! RPC keeps nothing but a `write_path::job::Completion`: dropping it drops no transaction.
//! Correctness rests on the row lock and the stored request ids, never on this process: an attempt
//! in doubt is repeated, and finds what it did.
//!
//! In here: queues, batches, retries, deadlines, permits. Not in here: SQL, types of the wire, rules
//! about money.

mod commands;
mod context;
mod effective_times;
mod error;
mod expiry;
mod metrics;
mod queries;
mod reading;
mod sqlite_wal;
mod watch;
mod write_path;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

pub use crate::ledger::{
    commands::{PendingRequest, StreamPermit, Submission},
    context::CallContext,
    error::{Error, NotReady, Outcome},
    metrics::{
        contention::ContendedAccount,
        write_path::{LoadSnapshot, Summary, WritePathStats},
    },
    watch::{EventStart, EventWatcher, FeedState, Page, Watcher},
};
use crate::{
    budget::{Budgets, Gate},
    domain::balancing::ContraAccounts,
    ledger::{
        expiry::ExpiryRecorder,
        metrics::write_path::WritePathMetrics,
        write_path::{WritePath, queue::CommandQueue},
    },
    storage::{DatabaseKind, OpenConnections, SchemaStatus, StorageError, Store},
};

/// Requests of streams may have a half of the queue, so that unary calls always find room.
const STREAMS_PART: usize = 2;
/// Those of one identity may have a quarter, which is half of that.
const IDENTITY_STREAMS_PART: usize = 4;

/// How many checks of readiness in a row may find that the last change failed.
const FAILED_CHECKS_MAX: u32 = 2;

/// The ledger: commands, queries and watchers, each with a deadline and the rights of its caller.
pub struct Ledger {
    store: Arc<Store>,
    /// The same database with reserved connections for reads of the service itself: references of
    /// changes, new entries, readiness. Reads of callers cannot delay them.
    own_reads: Arc<Store>,
    queue: Arc<CommandQueue>,
    stats: Arc<WritePathMetrics>,
    /// The checks of readiness since the last one that did not find that the last change failed.
    failed_checks: AtomicU32,
    feed: Arc<watch::EntryFeed>,
    event_feed: Arc<watch::EventFeed>,
    /// What commands, reads and watchers take shares of.
    budgets: Arc<Budgets>,
    /// See [`identity_reads_max`].
    read_gate: Arc<Gate>,
    /// One read that examines many rows, for one identity.
    scan_gate: Gate,
    /// Half of the reserved connections for the holds and transactions that changes of one identity
    /// name.
    reference_gate: Gate,
    /// A quarter of the queue for the streams of one identity. Results that are not read yet count.
    stream_gate: Gate,
    /// The half of the queue that streams may fill. Streams wait for a permit, so without this bound
    /// they would keep the queue full, and all unary calls would be shed.
    stream_permits: Arc<Semaphore>,
    expiry: ExpiryRecorder,
    /// With them, all transactions are balanced.
    contra_accounts: Option<ContraAccounts>,
    closed: AtomicBool,
    /// The tables could be used when they were checked last.
    has_checked_tables: AtomicBool,
    /// Whether the database lacks a primary key: nothing is changed then, because a repeat would be
    /// applied again.
    lacks_key: AtomicBool,
}

/// How many reads of one identity run at the same time: half of what the database has connections for.
/// On SQLite a read is work of this process: with more of them than processors, one identity would take
/// the processors from all others. Two let one of them wait for the disk.
fn identity_reads_max(store: &Store) -> usize {
    let half = store.connection_counts().readers as usize / 2;
    match store.kind() {
        DatabaseKind::Postgres => half,
        DatabaseKind::Sqlite => {
            let processors = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
            half.min(processors.max(2))
        }
    }
}

impl Ledger {
    /// Starts the workers and the feeds. A database transaction gets at most `batch_size_max`
    /// changes of accounts (legs).
    ///
    /// # Errors
    /// On SQLite, the file cannot be opened.
    pub async fn start(
        store: Arc<Store>,
        budgets: Arc<Budgets>,
        batch_size_max: usize,
        contra_accounts: Option<ContraAccounts>,
    ) -> Result<Self, StorageError> {
        let own_reads = Arc::new(store.reserve().await?);
        // The budget bounds the queue.
        let queue = Arc::new(CommandQueue::default());
        let stats = Arc::new(WritePathMetrics::default());
        WritePath::start(store.clone(), queue.clone(), stats.clone(), batch_size_max);
        let feed = watch::EntryFeed::start(own_reads.clone(), &budgets);
        let event_feed = watch::EventFeed::start(own_reads.clone(), &budgets);
        tokio::spawn(sqlite_wal::keep_short(Arc::downgrade(&store)));
        let queue_capacity = budgets.queue.capacity();
        Ok(Self {
            read_gate: Arc::new(budgets.gate(identity_reads_max(&store))),
            scan_gate: budgets.gate(1),
            reference_gate: budgets.gate(store.connection_counts().reserved as usize / 2),
            stream_gate: budgets.gate(queue_capacity / IDENTITY_STREAMS_PART),
            stream_permits: Arc::new(Semaphore::new((queue_capacity / STREAMS_PART).max(1))),
            expiry: ExpiryRecorder::start(queue.clone(), budgets.clone()),
            contra_accounts,
            store,
            own_reads,
            queue,
            stats,
            feed,
            event_feed,
            budgets,
            closed: AtomicBool::new(false),
            has_checked_tables: AtomicBool::new(false),
            failed_checks: AtomicU32::new(0),
            lacks_key: AtomicBool::new(false),
        })
    }

    /// Statistics of the write path since the start.
    pub fn write_path_stats(&self) -> WritePathStats {
        self.stats.snapshot()
    }

    /// The accounts for which requests wait, those with the most waits first.
    pub fn most_contended_accounts(&self, limit: usize) -> Vec<ContendedAccount> {
        self.queue.contention.most_contended(limit)
    }

    /// The present load.
    pub fn load(&self) -> LoadSnapshot {
        let readers = self.store.reader_connections();
        let own = self.own_reads.reader_connections();
        let in_use = readers.in_use + own.in_use + self.stats.writers();
        LoadSnapshot {
            queue_length: self.budgets.queue.used(),
            queue_capacity: self.budgets.queue.capacity(),
            watchers: self.budgets.watchers.used(),
            connections: OpenConnections { in_use, idle: readers.idle + own.idle },
        }
    }

    /// The shares of what the server has.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Whether no command is in the queue or in a transaction.
    pub fn is_idle(&self) -> bool {
        self.budgets.queue.used() == 0
    }

    /// Ends the changes that no caller waits for. Reads go on.
    pub fn stop_background(&self) {
        self.expiry.stop();
    }

    /// Accepts no more commands, waits until all accepted ones are answered, and closes the
    /// database.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.budgets.queue.idle().await;
        let closed = [self.own_reads.close_readers().await, self.store.close().await];
        for error in closed.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "cannot close the connections to the database; nothing is lost");
        }
    }

    /// Checks that changes can be applied: the database answers, has tables that this program can use,
    /// and commits, if the last change could not be written.
    ///
    /// # Errors
    /// The reason.
    pub async fn check_ready(&self, timeout: Duration) -> Result<(), NotReady> {
        self.store.check_backend().await.map_err(NotReady::Database)?;
        let failed = match tokio::time::timeout(timeout, self.own_reads.schema_status()).await {
            Ok(Ok(status @ (SchemaStatus::Current | SchemaStatus::Ahead(_)))) => {
                self.measure_oldest_snapshot().await;
                // A newer server migrates before the older ones are stopped: they go on meanwhile, if
                // they can.
                let is_ahead = status != SchemaStatus::Current;
                let checked = tokio::time::timeout(timeout, self.check_writes(is_ahead)).await;
                return checked.unwrap_or_else(|_| {
                    Err(NotReady::Database(format!("no commit is made within {timeout:?}")))
                });
            }
            Ok(Ok(SchemaStatus::Missing)) => {
                return Err(NotReady::Schema("the database has no schema".to_owned()));
            }
            Ok(Ok(SchemaStatus::Behind(pending))) => {
                let pending = pending.join(", ");
                return Err(NotReady::Schema(format!("the schema lacks {pending}")));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the database does not answer within {timeout:?}"),
        };
        // Finds the primary if it has moved, or gives a better reason.
        self.store.select_server().await.map_err(|error| NotReady::Database(error.to_string()))?;
        Err(NotReady::Database(failed))
    }

    /// Checks that the tables can be used: at the start, if the schema is a newer program's, and if the
    /// last change could not be written. Then also that a commit is made. Checks keys and guards
    /// each time, unless the schema is a newer program's, which may have others.
    async fn check_writes(&self, is_ahead: bool) -> Result<(), NotReady> {
        let cannot_write = self.stats.cannot_write();
        if is_ahead || cannot_write || !self.has_checked_tables.load(Ordering::Relaxed) {
            self.own_reads.check_tables().await.map_err(|error| match error {
                StorageError::SchemaNotMigrated(_) => NotReady::Schema(error.summary()),
                _ => NotReady::Database(error.summary()),
            })?;
            self.has_checked_tables.store(true, Ordering::Relaxed);
        }
        if !is_ahead {
            let missing = self.own_reads.missing_guard().await;
            let missing = missing.map_err(|error| NotReady::Database(error.summary()))?;
            if let Some(missing) = missing {
                let key = self.own_reads.missing_key().await;
                self.lacks_key.store(!matches!(key, Ok(None)), Ordering::Relaxed);
                return Err(NotReady::Unsafe(missing));
            }
            self.lacks_key.store(false, Ordering::Relaxed);
        }
        self.own_reads
            .note_newest_commit()
            .await
            .map_err(|error| NotReady::Database(error.summary()))?;
        if cannot_write {
            let commit = async { self.store.writer().await?.check_commit().await };
            commit.await.map_err(|error| NotReady::Database(error.summary()))?;
            self.stats.set_cannot_write(false);
            if self.failed_checks.fetch_add(1, Ordering::Relaxed) >= FAILED_CHECKS_MAX {
                // A commit of nothing needs no room in the tables.
                let reason = "a commit can be made, and changes fail: see the errors in the log";
                return Err(NotReady::Database(reason.to_owned()));
            }
        } else {
            self.failed_checks.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Measures the age of the oldest snapshot: old ones make changes of hot accounts slow.
    async fn measure_oldest_snapshot(&self) {
        // The next check is a second away.
        if let Ok(age) = self.own_reads.oldest_snapshot().await {
            ::metrics::gauge!("passbook_database_oldest_snapshot_seconds").set(age.as_secs_f64());
        }
    }
}
