//! Statistics of the write path since the process started.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use metrics::{counter, histogram};

use crate::{
    ledger::write_path::transaction::{ExecuteError, Executed},
    lock::lock,
    storage::{OpenConnections, StorageError},
};

/// A summary of values; times are in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Half of them are at most this.
    pub p50: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// The statistics of the write path: a summary of each, or what records it.
#[derive(Clone, Copy, Debug)]
pub struct WritePathStats<T = Summary> {
    /// Requests in a transaction, a value a transaction.
    pub batch_size: T,
    /// From a request's acceptance to the begin of its transaction, a value a request.
    pub queue_time: T,
    /// From BEGIN until the rows were locked and read, a value a transaction.
    pub lock_wait: T,
    /// From there until all was written, a value a transaction.
    pub write_time: T,
    /// The COMMIT, a value a transaction.
    pub commit_time: T,
}

/// The present load of a process.
#[derive(Clone, Copy, Debug)]
pub struct LoadSnapshot {
    /// Commands in the queue or in a transaction.
    pub queue_length: usize,
    /// The most commands that may be in the queue or in a transaction.
    pub queue_capacity: usize,
    /// Streams of WatchEntries, and 20 for each stream of WatchEvents.
    pub watchers: usize,
    /// Connections to the database. A writer's connection is in use for as long as it is open.
    pub connections: OpenConnections,
}

/// Records transactions, with one lock each. Prometheus gets the same values.
pub struct WritePathMetrics {
    recorders: Mutex<WritePathStats<Recorder>>,
    writers: Arc<()>,
    /// The last attempt to write has shown that nothing can be written.
    cannot_write: AtomicBool,
}

/// Keeps a writer counted as open.
pub struct WriterGuard(#[expect(dead_code, reason = "it is counted, not read")] Arc<()>);

struct Recorder {
    prometheus: metrics::Histogram,
    /// Made with the first value; grows with the largest, at three digits at most a few hundred
    /// kilobytes.
    histogram: Option<Histogram<u64>>,
    sum: u64,
}

impl Default for WritePathMetrics {
    fn default() -> Self {
        let recorder = |prometheus| Recorder { prometheus, histogram: None, sum: 0 };
        let recorders = Mutex::new(WritePathStats {
            batch_size: recorder(histogram!("passbook_batch_size")),
            queue_time: recorder(histogram!("passbook_queue_seconds")),
            lock_wait: recorder(histogram!("passbook_lock_wait_seconds")),
            write_time: recorder(metrics::Histogram::noop()),
            commit_time: recorder(histogram!("passbook_commit_seconds")),
        });
        for label in ERROR_LABELS {
            counter!("passbook_retries_total", "cause" => label).absolute(0);
        }
        Self { recorders, writers: Arc::default(), cannot_write: AtomicBool::new(false) }
    }
}

impl WritePathMetrics {
    /// Counts a writer as open until the result is dropped.
    pub fn open_writer(&self) -> WriterGuard {
        WriterGuard(self.writers.clone())
    }

    /// Whether the last attempt to write has shown that nothing can be written.
    pub fn cannot_write(&self) -> bool {
        self.cannot_write.load(Ordering::Relaxed)
    }

    /// Records whether changes can be written.
    pub fn set_cannot_write(&self, cannot_write: bool) {
        self.cannot_write.store(cannot_write, Ordering::Relaxed);
    }

    /// Writers that are open.
    pub fn writers(&self) -> usize {
        Arc::strong_count(&self.writers) - 1
    }

    /// Counts a failed attempt.
    pub fn record_failure(&self, label: &'static str) {
        counter!("passbook_retries_total", "cause" => label).increment(1);
    }

    /// Records a committed attempt.
    pub fn record(&self, executed: &Executed) {
        let mut recorders = lock(&self.recorders);
        recorders.batch_size.add_number(executed.completed.len());
        recorders.lock_wait.add_time(executed.lock_wait);
        recorders.write_time.add_time(executed.write_time);
        recorders.commit_time.add_time(executed.commit_time);
        for (job, _) in &executed.completed {
            recorders.queue_time.add_time(executed.start.saturating_duration_since(job.accepted));
        }
    }

    /// The statistics so far.
    pub fn snapshot(&self) -> WritePathStats {
        let recorders = lock(&self.recorders);
        WritePathStats {
            batch_size: recorders.batch_size.snapshot(),
            queue_time: recorders.queue_time.snapshot(),
            lock_wait: recorders.lock_wait.snapshot(),
            write_time: recorders.write_time.snapshot(),
            commit_time: recorders.commit_time.snapshot(),
        }
    }
}

impl Recorder {
    fn add_time(&mut self, time: Duration) {
        self.prometheus.record(time);
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn add_number(&mut self, number: usize) {
        self.prometheus.record(number as f64);
        self.add(number as u64);
    }

    fn add(&mut self, value: u64) {
        if self.histogram.is_none() {
            // Fails only for a precision above five digits.
            self.histogram = Histogram::new(3).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            // It grows as needed, up to values that are no time of this process.
            let _ = histogram.record(value);
        }
        self.sum = self.sum.saturating_add(value);
    }

    fn snapshot(&self) -> Summary {
        let Some(histogram) = &self.histogram else { return Summary::default() };
        Summary {
            count: histogram.len(),
            sum: self.sum,
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}

/// All that [`error_label`] can be.
const ERROR_LABELS: [&str; 8] = [
    "lock_timeout",
    "repeat",
    "aborted",
    "unavailable",
    "forbidden",
    "schema",
    "data",
    "commit_unknown",
];

/// Why an attempt failed, in a word.
pub fn error_label(error: &ExecuteError) -> &'static str {
    match error {
        ExecuteError::NotApplied(error) => storage_error_label(error),
        ExecuteError::Unknown(_) => "commit_unknown",
    }
}

/// The same where it is known that nothing was committed.
pub fn storage_error_label(error: &StorageError) -> &'static str {
    match error {
        StorageError::LockTimeout(_) => "lock_timeout",
        StorageError::RepeatedRequest(_) => "repeat",
        StorageError::Aborted(_) => "aborted",
        StorageError::Unavailable(_) => "unavailable",
        StorageError::Forbidden(_) => "forbidden",
        StorageError::SchemaNotMigrated(_) => "schema",
        StorageError::Data(_) | StorageError::Corrupt(_) => "data",
    }
}
