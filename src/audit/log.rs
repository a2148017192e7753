//! The queue of the audit log, and the thread that writes it.

use std::{
    fmt, io, mem,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use metrics::counter;
use serde_json::json;
use tokio::sync::oneshot;

use crate::{
    audit::{
        Source,
        denials::{DenialCount, Denials, Denied},
        entry::{Change, Denial, Entry, Event},
        file::AuditFile,
    },
    lock::lock,
};

/// Entries that wait to be written. Lower, and a pause of the disk loses lines or stops changes;
/// higher, and they take more memory: an entry has some hundred bytes.
const ENTRIES_MAX: usize = 32_768;
/// How long the thread lets entries gather for which nobody waits. One write for many lines.
const GATHER_TIME: Duration = Duration::from_millis(5);
/// The interval at which the thread looks for the end of a period of denials, and tries again after
/// an error.
const WAKE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of the server waits for its last lines.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// The settings of the audit log.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The file, or `-` for standard output.
    pub file: PathBuf,
    /// Whether a change needs a line with its intent before it begins.
    pub is_required: bool,
    /// Whether lines have amounts.
    pub has_amounts: bool,
}

/// A line that is required cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// The audit log of a server.
pub struct AuditLog {
    config: AuditConfig,
    queue: Mutex<Queue>,
    /// Notified of the first entry, and of the first wait.
    filled: Condvar,
    denials: Mutex<Denials>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Answered when the entries before them are written, dropped if they cannot be written.
    waiters: Vec<oneshot::Sender<()>>,
    /// Entries that were left out because the queue was full.
    lost: u64,
    /// The last write failed.
    is_failing: bool,
}

impl AuditLog {
    /// Opens the file, starts the thread that writes, and records the start of the server with its
    /// files of credentials.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread. One line, with the name of the file.
    pub fn start(config: AuditConfig, sources: &[Source]) -> Result<Arc<Self>, String> {
        let failed = |error: io::Error| format!("audit_file {}: {error}", config.file.display());
        let file = AuditFile::open(&config.file).map_err(failed)?;
        let log = Arc::new(Self {
            config: config.clone(),
            queue: Mutex::default(),
            filled: Condvar::new(),
            denials: Mutex::new(Denials::new(Instant::now())),
        });
        let fields = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "audit_required": config.is_required,
            "files": sources,
        });
        log.push_result(Event::Server("start", fields));
        let writer = log.clone();
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(file)).map_err(failed)?;
        Ok(log)
    }

    /// Records that a file of credentials has changed: the new content is in force, or the error is
    /// why it is not.
    pub fn reloaded(&self, before: &Source, after: &Source, result: Result<(), &str>) {
        let (outcome, error) = match result {
            Ok(()) => ("applied", None),
            Err(error) => ("rejected", Some(error)),
        };
        let fields =
            json!({ "before": before, "after": after, "outcome": outcome, "error": error });
        self.push_result(Event::Server("reload", fields));
    }

    /// Records the end of the server, and waits for the last lines.
    pub async fn stop(&self) {
        self.push_denials(lock(&self.denials).take(Instant::now()));
        let written = self.push_awaited(lock(&self.queue), Event::Server("stop", json!({})));
        if !matches!(tokio::time::timeout(STOP_TIME_MAX, written).await, Ok(Ok(()))) {
            tracing::error!("the last lines of the audit log were not written");
        }
    }

    /// Records a denial: by a line of its own, or in the count of its caller.
    pub(super) fn deny(&self, denial: Denial) {
        let address = denial.origin.peer.map(|peer| peer.ip());
        let who = match denial.identity.is_anonymous() {
            true => Denied::Address(address),
            false => Denied::Identity(denial.identity.clone()),
        };
        if lock(&self.denials).count(who, denial.reason) {
            self.push(Event::Denial(denial), false);
        }
    }

    /// Records the intent of a change, if that is required, and returns what to wait for.
    pub(super) fn push_intent(
        &self,
        change: &Arc<Change>,
    ) -> Result<Option<oneshot::Receiver<()>>, Unavailable> {
        if !self.config.is_required {
            return Ok(None);
        }
        let queue = lock(&self.queue);
        if queue.is_failing || queue.entries.len() >= ENTRIES_MAX {
            return Err(Unavailable);
        }
        Ok(Some(self.push_awaited(queue, Event::Intent(change.clone()))))
    }

    /// Records an event. If the audit log is required, its changes are never left out: the queue of
    /// the ledger bounds how many have begun.
    pub(super) fn push_result(&self, event: Event) {
        self.push(event, self.config.is_required);
    }

    fn push(&self, event: Event, beyond_the_limit: bool) {
        let mut queue = lock(&self.queue);
        if queue.entries.len() >= ENTRIES_MAX && !beyond_the_limit {
            queue.lost += 1;
            counter!("passbook_audit_lines_lost_total").increment(1);
            return;
        }
        queue.entries.push(Entry::now(event));
        if queue.entries.len() == 1 {
            self.filled.notify_one();
        }
    }

    fn push_awaited(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        event: Event,
    ) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        queue.entries.push(Entry::now(event));
        queue.waiters.push(sender);
        if queue.waiters.len() == 1 {
            self.filled.notify_one();
        }
        receiver
    }

    fn push_denials(&self, counts: Vec<DenialCount>) {
        for count in counts {
            self.push_result(Event::DenialCount(count));
        }
    }

    /// Writes, for as long as the process runs.
    fn run(&self, mut file: AuditFile) {
        let mut unwritten = Vec::new();
        loop {
            let counts = lock(&self.denials).take_if_over(Instant::now());
            self.push_denials(counts);
            let waiters = match unwritten.is_empty() {
                true => self.take(&mut unwritten),
                false => self.pause(),
            };
            let lines = unwritten.iter().filter(|byte| **byte == b'\n').count();
            let result = file.append(&mut unwritten);
            let left = unwritten.iter().filter(|byte| **byte == b'\n').count();
            counter!("passbook_audit_lines_total").increment((lines - left) as u64);
            self.finish(result, waiters);
        }
    }

    /// Waits for entries, for up to an interval, and formats them. Returns those who wait for them.
    fn take(&self, text: &mut Vec<u8>) -> Vec<oneshot::Sender<()>> {
        let queue = lock(&self.queue);
        let queue = self.wait_while(queue, WAKE_INTERVAL, |queue| queue.entries.is_empty());
        let is_unwanted = |queue: &mut Queue| queue.waiters.is_empty();
        let gather = if queue.entries.is_empty() { Duration::ZERO } else { GATHER_TIME };
        let mut queue = self.wait_while(queue, gather, is_unwanted);
        let (mut entries, waiters) = (mem::take(&mut queue.entries), mem::take(&mut queue.waiters));
        let lost = mem::take(&mut queue.lost);
        drop(queue);
        if lost > 0 {
            entries.push(Entry::now(Event::Lost(lost)));
        }
        for entry in entries {
            entry.format(self.config.has_amounts, text);
        }
        waiters
    }

    /// Waits an interval after an error. Those who wait meanwhile get an error.
    fn pause(&self) -> Vec<oneshot::Sender<()>> {
        let queue = lock(&self.queue);
        self.wait_while(queue, WAKE_INTERVAL, |_| true).waiters.clear();
        Vec::new()
    }

    fn wait_while<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        limit: Duration,
        condition: impl FnMut(&mut Queue) -> bool,
    ) -> MutexGuard<'a, Queue> {
        let waited = self.filled.wait_timeout_while(queue, limit, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Answers those who wait, and logs the first error and the first success after it.
    fn finish(&self, result: io::Result<()>, waiters: Vec<oneshot::Sender<()>>) {
        let is_failing = result.is_err();
        let was_failing = mem::replace(&mut lock(&self.queue).is_failing, is_failing);
        let file = self.config.file.display();
        match result {
            Ok(()) => {
                for waiter in waiters {
                    // A caller who has gone waits no longer.
                    let _ = waiter.send(());
                }
                if was_failing {
                    tracing::info!(%file, "audit lines are written again");
                }
            }
            Err(error) => {
                counter!("passbook_audit_write_failures_total").increment(1);
                if !was_failing {
                    tracing::error!(%file, %error, "audit lines cannot be written");
                }
            }
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuditLog").field("config", &self.config).finish_non_exhaustive()
    }
}
