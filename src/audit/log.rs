//! The queue of the audit log, and the thread that writes it.

use std::{
    fmt, io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
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
        entry::{Change, Denial, Entry, Event, Outcome, line_bytes},
        file::AuditFile,
        queue::Queue,
    },
    domain::command::Command,
    lock::lock,
    network::network_of,
};

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

impl AuditLog {
    /// Opens the file, starts the thread that writes, and records the start of the server with the
    /// files that it reads again when they change.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread. One line, with the name of the file.
    pub fn start(config: AuditConfig, files: &[Source]) -> Result<Arc<Self>, String> {
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
            "files": files,
        });
        log.push(Event::Server("start", fields), true);
        let writer = log.clone();
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(file)).map_err(failed)?;
        Ok(log)
    }

    /// Records that files have a new content: it is in force, or the error is why it is not.
    pub(super) fn reloaded(&self, before: &[Source], after: &[Source], error: Option<&String>) {
        let mut fields = json!({ "before": before, "after": after, "outcome": "applied" });
        if let Some(error) = error {
            fields["outcome"] = "rejected".into();
            fields["error"] = error.as_str().into();
        }
        self.push(Event::Server("reload", fields), true);
    }

    /// Records the end of the server, and waits for the last lines.
    pub async fn stop(&self) {
        self.push_denials(lock(&self.denials).take(Instant::now()));
        self.push(Event::Server("stop", json!({})), true);
        // After an error the thread tries again.
        let written = async { while self.push_awaited(lock(&self.queue), []).await.is_err() {} };
        if tokio::time::timeout(STOP_TIME_MAX, written).await.is_err() {
            tracing::error!("the last lines of the audit log were not written");
        }
    }

    /// Records a denial: by a line of its own, or in the count of its caller.
    pub(super) fn deny(&self, denial: Denial) {
        let network = denial.origin.peer.map(|peer| network_of(peer.ip()));
        let identity = denial.identity.clone();
        let who = match denial.has_rights {
            _ if identity.is_anonymous() => Denied::Network(network),
            true => Denied::Identity(identity),
            false => Denied::WithoutRights(identity),
        };
        let has_room = lock(&self.queue).has_room(&denial.identity);
        if lock(&self.denials).count(who, denial.reason, has_room) {
            self.push(Event::Denial(denial), true);
        }
    }

    /// Records the intents of changes, if that is required, and returns what to wait for.
    pub(super) fn push_intents(
        &self,
        changes: &[Arc<Change>],
    ) -> Result<Option<oneshot::Receiver<()>>, Unavailable> {
        if !self.config.is_required {
            return Ok(None);
        }
        let queue = lock(&self.queue);
        let has_room = changes.iter().all(|change| queue.has_room(&change.identity));
        if queue.is_failing || !has_room {
            return Err(Unavailable);
        }
        let intents = changes.iter().map(|change| Event::Intent(change.clone()));
        Ok(Some(self.push_awaited(queue, intents)))
    }

    /// About the length of the lines of a change, in bytes.
    pub(super) fn lines_bytes(&self, command: &Command) -> usize {
        let lines = if self.config.is_required { 2 } else { 1 };
        lines * line_bytes(command, self.config.has_amounts)
    }

    /// Records the result of a change. If the audit log is required, no result is left out: the
    /// queue of the ledger bounds how many changes have begun.
    pub(super) fn push_result(&self, change: Arc<Change>, outcome: Outcome) {
        self.push(Event::Result(change, outcome), self.config.is_required);
    }

    fn push(&self, event: Event, beyond_the_limit: bool) {
        let mut queue = lock(&self.queue);
        let has_room = event.identity().is_none_or(|identity| queue.has_room(identity));
        if !has_room && !beyond_the_limit {
            queue.lost += 1;
            counter!("passbook_audit_lines_lost_total").increment(1);
            return;
        }
        queue.push(event);
        if queue.entries.len() == 1 {
            self.filled.notify_one();
        }
    }

    fn push_awaited(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        events: impl IntoIterator<Item = Event>,
    ) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        for event in events {
            queue.push(event);
        }
        queue.waiters.push(sender);
        if queue.waiters.len() == 1 {
            self.filled.notify_one();
        }
        receiver
    }

    fn push_denials(&self, counts: Vec<DenialCount>) {
        for count in counts {
            self.push(Event::DenialCount(count), true);
        }
    }

    /// Writes, for as long as the process runs: a panic must not end the audit log.
    fn run(&self, mut file: AuditFile) {
        let mut unwritten = Vec::new();
        loop {
            let write = AssertUnwindSafe(|| self.write(&mut file, &mut unwritten));
            if catch_unwind(write).is_err() {
                self.pause();
            }
        }
    }

    /// Writes the lines that the last write has left, or else waits for entries and writes them.
    fn write(&self, file: &mut AuditFile, unwritten: &mut Vec<u8>) {
        let waiters = if unwritten.is_empty() {
            // While lines cannot be written, denials stay in their counts, which are bounded.
            let counts = lock(&self.denials).take_if_over(Instant::now());
            self.push_denials(counts);
            self.take(unwritten)
        } else {
            self.pause();
            Vec::new()
        };
        let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        let lines = count(unwritten);
        let mut result = file.append(unwritten);
        if result.is_ok() && self.config.is_required && !waiters.is_empty() {
            result = file.sync();
        }
        counter!("passbook_audit_lines_total").increment((lines - count(unwritten)) as u64);
        self.finish(result, waiters);
    }

    /// Waits for entries, for up to an interval, and formats them. Returns those who wait for them.
    fn take(&self, text: &mut Vec<u8>) -> Vec<oneshot::Sender<()>> {
        let queue = lock(&self.queue);
        let queue = self.wait_while(queue, WAKE_INTERVAL, |queue| queue.entries.is_empty());
        let is_unwanted = |queue: &mut Queue| queue.waiters.is_empty();
        let gather = if queue.entries.is_empty() { Duration::ZERO } else { GATHER_TIME };
        let mut queue = self.wait_while(queue, gather, is_unwanted);
        let (mut entries, waiters) = (queue.take_entries(), mem::take(&mut queue.waiters));
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
    fn pause(&self) {
        let queue = lock(&self.queue);
        self.wait_while(queue, WAKE_INTERVAL, |_| true).waiters.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Credential, Origin},
        domain::ids::Identity,
    };

    fn log(is_required: bool) -> AuditLog {
        AuditLog {
            config: AuditConfig { file: PathBuf::new(), is_required, has_amounts: false },
            queue: Mutex::default(),
            filled: Condvar::new(),
            denials: Mutex::new(Denials::new(Instant::now())),
        }
    }

    fn denial() -> Denial {
        let (method, peer, credential) = ("m", None, Credential::None);
        Denial {
            origin: Arc::new(Origin { method, is_unary: true, peer, credential }),
            identity: Identity::from_stored("a"),
            has_rights: true,
            reason: "permission_denied",
            command: None,
        }
    }

    #[test]
    fn a_full_queue_loses_neither_denials_nor_reloads() {
        let log = log(false);
        while lock(&log.queue).has_room(&denial().identity) {
            log.push(Event::Denial(denial()), false);
        }
        let count = lock(&log.queue).entries.len();
        for _ in 0..3 {
            log.deny(denial());
        }
        let who = Denied::Identity(Identity::from_stored("a"));
        let counted = DenialCount { who, reason: "permission_denied", count: 3 };
        assert_eq!(lock(&log.denials).take(Instant::now()), [counted]);
        log.reloaded(&[], &[], None);
        log.push(Event::Denial(denial()), false);
        let queue = lock(&log.queue);
        assert_eq!((queue.entries.len(), queue.lost), (count + 1, 1));
    }

    #[test]
    fn a_required_log_that_cannot_be_written_takes_no_intent() {
        let log = log(true);
        let written = log.push_intents(&[]).unwrap().expect("required");
        let waiters = mem::take(&mut lock(&log.queue).waiters);
        log.finish(Err(io::ErrorKind::StorageFull.into()), waiters);
        assert!(written.blocking_recv().is_err(), "not written");
        assert_eq!(log.push_intents(&[]).unwrap_err(), Unavailable);
        log.finish(Ok(()), Vec::new());
        assert!(log.push_intents(&[]).is_ok(), "it can be written again");
    }
}
