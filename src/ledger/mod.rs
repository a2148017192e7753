//! The write path, and the reads beside it.
//!
//! ```text
//! Ledger::make -> queue -> worker: takes all that waits and is free, 1..N jobs, into one transaction
//!                       transaction: begin -> lock -> read -> fold -> write -> commit
//!                          executor: only now: answer each job with its own verdict
//! ```
//!
//! A request alone is a batch of one; there is no other way to change anything. The future of
//! an RPC holds nothing but a completion (`write_path::job::Completion`): when it is dropped, no transaction is.
//! Correctness rests on the row lock and the stored request ids, never on this process: an
//! attempt whose outcome is not known is simply made again, and finds what it did.

mod commands;
mod context;
mod error;
mod metrics;
mod queries;
mod reading;
mod sqlite_wal;
mod watch;
mod write_path;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

pub use crate::ledger::{
    commands::{PendingRequest, StreamPermit},
    context::CallContext,
    error::{Error, Outcome},
    metrics::{
        contention::ContendedAccount,
        write_path::{LoadSnapshot, Summary, WritePathStats},
    },
    watch::{Page, WatchPermit, Watcher},
};
use crate::{
    ledger::{metrics::write_path::WritePathMetrics, write_path::queue::CommandQueue},
    storage::{Connections, SchemaStatus, StorageError, Store},
};

/// How much may wait, and how much goes into one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands accepted and not yet answered; one more is refused as overloaded.
    pub queue_capacity: usize,
    /// Changes of accounts (legs) in one database transaction.
    pub batch_size_max: usize,
}

/// A handle to the ledger: one method an RPC.
pub struct Ledger {
    store: Arc<Store>,
    /// The same with connections of its own for what the service itself reads: what a change
    /// names, what is new for those who watch, whether it is ready. No caller's read is in its way.
    own_reads: Arc<Store>,
    queue: Arc<CommandQueue>,
    stats: Arc<WritePathMetrics>,
    feed: Arc<watch::EntryFeed>,
    /// A permit for every command that is accepted and not yet answered.
    queue_permits: Arc<Semaphore>,
    /// Of these, as many as all streams together may have: they wait for one, so a queue that they
    /// fill would be full for ever to those who are refused.
    stream_permits: Arc<Semaphore>,
    /// Commands for which there was none.
    shed: ::metrics::Counter,
    limits: Limits,
    closed: AtomicBool,
}

impl Ledger {
    /// Starts the workers.
    ///
    /// # Errors
    /// On SQLite, the file cannot be opened.
    pub async fn start(store: Arc<Store>, limits: Limits) -> Result<Self, StorageError> {
        let own_reads = Arc::new(store.reserve().await?);
        // The queue has no bound of its own: what bounds it is the number of queue_permits.
        let queue = Arc::new(CommandQueue::default());
        let stats = Arc::new(WritePathMetrics::default());
        write_path::worker::spawn(&store, &queue, &stats, limits.batch_size_max);
        let feed = watch::EntryFeed::start(own_reads.clone());
        tokio::spawn(sqlite_wal::keep_short(Arc::downgrade(&store)));
        Ok(Self {
            store,
            own_reads,
            queue,
            stats,
            feed,
            queue_permits: Arc::new(Semaphore::new(limits.queue_capacity)),
            stream_permits: Arc::new(Semaphore::new((limits.queue_capacity / 2).max(1))),
            shed: ::metrics::counter!("passbook_calls_shed_total", "limit" => "queue"),
            limits,
            closed: AtomicBool::new(false),
        })
    }

    /// What the write path has done since it started.
    #[must_use]
    pub fn write_path_stats(&self) -> WritePathStats {
        self.stats.snapshot()
    }

    /// The accounts that make requests wait, those with the most waits first.
    #[must_use]
    pub fn most_contended_accounts(&self, limit: usize) -> Vec<ContendedAccount> {
        self.queue.contention.most_contended(limit)
    }

    /// What there is to do at the moment.
    #[must_use]
    pub fn load(&self) -> LoadSnapshot {
        let readers = self.store.reader_connections();
        let own = self.own_reads.reader_connections();
        let in_use = readers.in_use + own.in_use + self.stats.writers();
        LoadSnapshot {
            queue_length: self.limits.queue_capacity - self.queue_permits.available_permits(),
            queue_capacity: self.limits.queue_capacity,
            watchers: self.feed.watchers(),
            connections: Connections { in_use, idle: readers.idle + own.idle },
        }
    }

    /// Commands that may be accepted and not yet answered.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.limits.queue_capacity
    }

    /// Whether everything that was accepted is answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue_permits.available_permits() == self.limits.queue_capacity
    }

    /// Takes nothing more, waits until everything that was accepted is answered, and leaves the
    /// database tidy.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let all = u32::try_from(self.limits.queue_capacity).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which nobody does.
        let _ = self.queue_permits.acquire_many(all).await;
        if let Err(error) = self.own_reads.close_readers().await {
            tracing::warn!(%error, "closing the database failed; nothing is lost");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "closing the database failed; nothing is lost");
        }
    }

    /// Whether changes can be made now: the database answers and has this program's schema.
    ///
    /// # Errors
    /// Why not, for the log.
    pub async fn check_ready(&self, timeout: Duration) -> Result<(), String> {
        self.store.check_place().await?;
        let failed = match tokio::time::timeout(timeout, self.own_reads.schema_status()).await {
            // A newer server migrates before the older ones are stopped: they go on meanwhile.
            Ok(Ok(SchemaStatus::Current | SchemaStatus::Ahead(_))) => {
                self.measure_oldest_snapshot().await;
                return self.check_writer().await;
            }
            Ok(Ok(status @ (SchemaStatus::Missing | SchemaStatus::Behind(_)))) => {
                return Err(format!("the schema is {status:?}"));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the database does not answer within {timeout:?}"),
        };
        // Finds the primary if it has moved, or says better what is the matter.
        self.store.find().await.map_err(|error| error.to_string())?;
        Err(failed)
    }

    /// For who asks why changes of hot accounts have become slow.
    async fn measure_oldest_snapshot(&self) {
        // If it cannot be read now, it is in a second.
        if let Ok(age) = self.own_reads.oldest_snapshot().await {
            ::metrics::gauge!("passbook_database_oldest_snapshot_seconds").set(age.as_secs_f64());
        }
    }

    /// Whether a connection that writes can be had, if the last one could not.
    async fn check_writer(&self) -> Result<(), String> {
        if !self.stats.lacks_writer() {
            return Ok(());
        }
        match self.store.writer().await {
            Ok(_) => self.stats.set_lacks_writer(false),
            Err(error) => return Err(error.summary()),
        }
        Ok(())
    }
}
