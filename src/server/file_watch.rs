//! Polls files and reloads them when their content has changed.
//!
//! Content is compared, not modification times: Kubernetes replaces a mounted file by swapping
//! symbolic links.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::gauge;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use crate::audit::Source;

/// How often the files are read. A token that is removed from its file stays valid for this long at
/// most, and for [`SETTLE_INTERVAL`].
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Changed files count when two reads with this pause have the same content: a program that writes
/// them may be in the middle.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);
/// A read that takes longer counts as failed: the file system hangs.
const FILE_READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Why files were not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// One of them cannot be read. One line, with its name.
    Unreadable(String),
    /// Reading them takes longer than this: their file system hangs.
    Late(Duration),
}

impl ReadFailure {
    /// A file that was not read for this reason, as the audit log names it. A file system that hangs is
    /// asked for nothing more.
    #[must_use]
    pub fn source(&self, file: &Path) -> Source {
        match self {
            Self::Unreadable(_) => Source::read(file),
            Self::Late(_) => Source::untouched(file),
        }
    }
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => formatter.write_str(why),
            Self::Late(limit) => write!(formatter, "not read within {limit:?}"),
        }
    }
}

/// Calls `reload` after every change of the files, with the new content or the error of reading it, for
/// as long as the future is polled. If `reload` returns an error, the old content stays in force, and
/// log and metrics say so. `read` may block: it has a thread of its own.
///
/// `files` names the files in log and metrics, and `in_force` is their content at the start.
pub async fn reload_on_change<Content: PartialEq + Send + 'static>(
    files: &'static str,
    in_force: Content,
    read: impl Fn() -> Result<Content, String> + Clone + Send + 'static,
    mut reload: impl FnMut(Result<&Content, &ReadFailure>) -> Result<(), String>,
) {
    report(files, true);
    let reload = |content: Result<&Content, &ReadFailure>| {
        let reloaded = reload(content);
        report(files, reloaded.is_ok());
        match reloaded {
            Ok(()) => tracing::info!("{files} reloaded"),
            Err(error) => tracing::error!(error, "{files} not reloaded"),
        }
    };
    let reader = Reader { read, time_max: FILE_READ_TIME_MAX, pending: None };
    poll([FILE_POLL_INTERVAL, SETTLE_INTERVAL], in_force, reader, reload).await;
}

/// Publishes whether the last content could be used, and since when the content in force is.
fn report(files: &'static str, is_in_force: bool) {
    gauge!("passbook_files_reload_failed", "files" => files).set(f64::from(u8::from(!is_in_force)));
    if is_in_force {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!("passbook_files_in_force_timestamp_seconds", "files" => files)
            .set(now.as_secs_f64());
    }
}

/// Reads files in time.
struct Reader<Read, Content> {
    read: Read,
    time_max: Duration,
    /// The read that is late.
    pending: Option<JoinHandle<Result<Content, String>>>,
}

impl<Read, Content> Reader<Read, Content>
where
    Read: Fn() -> Result<Content, String> + Clone + Send + 'static,
    Content: Send + 'static,
{
    /// Reads the files. While a read hangs, it is waited for again, and no other begins.
    async fn read(&mut self) -> Result<Content, ReadFailure> {
        let pending = self.pending.get_or_insert_with(|| spawn_blocking(self.read.clone()));
        let Ok(read) = timeout(self.time_max, pending).await else {
            return Err(ReadFailure::Late(self.time_max));
        };
        self.pending = None;
        read.unwrap_or_else(|panic| Err(panic.to_string())).map_err(ReadFailure::Unreadable)
    }
}

/// Calls `reload` once for every change that lasts.
async fn poll<Content: PartialEq + Send + 'static>(
    [interval, settle]: [Duration; 2],
    in_force: Content,
    mut reader: Reader<impl Fn() -> Result<Content, String> + Clone + Send + 'static, Content>,
    mut reload: impl FnMut(Result<&Content, &ReadFailure>),
) {
    let mut seen = Ok(in_force);
    loop {
        sleep(interval).await;
        let mut content = reader.read().await;
        while content != seen {
            sleep(settle).await;
            let again = reader.read().await;
            if again == content {
                reload(content.as_ref());
                seen = again;
                break;
            }
            content = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::lock::lock;

    /// The contents that are reloaded if the reads return these, and the last one from then on.
    async fn reloaded(reads: &'static [u32]) -> Vec<u32> {
        let (read_count, reloads) = (Arc::new(AtomicUsize::new(0)), Mutex::new(Vec::new()));
        let count = read_count.clone();
        let read = move || {
            let index = count.fetch_add(1, Ordering::Relaxed);
            Ok(*reads.get(index).or(reads.last()).expect("a content"))
        };
        let reader = Reader { read, time_max: FILE_READ_TIME_MAX, pending: None };
        let reload = |content: Result<&u32, &ReadFailure>| lock(&reloads).extend(content.ok());
        tokio::select! {
            () = poll([Duration::ZERO; 2], 1, reader, reload) => {}
            () = async {
                while read_count.load(Ordering::Relaxed) < 20 {
                    sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
        reloads.into_inner().unwrap()
    }

    #[tokio::test]
    async fn every_change_that_lasts_is_reloaded_once() {
        assert_eq!(reloaded(&[1, 2, 2, 2, 3, 3, 1]).await, [2, 3, 1]);
        assert_eq!(reloaded(&[2, 3, 4, 4]).await, [4], "2 and 3 were being written");
    }

    #[tokio::test]
    async fn content_that_is_there_for_one_read_does_not_count() {
        assert!(reloaded(&[1, 0, 1]).await.is_empty());
        assert_eq!(reloaded(&[1, 0, 2]).await, [2]);
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_an_error_and_no_second_one_begins() {
        let (begun, (sender, receiver)) =
            (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel::<()>());
        let (count, receiver) = (begun.clone(), Arc::new(Mutex::new(receiver)));
        let read = move || {
            count.fetch_add(1, Ordering::Relaxed);
            // Until the test ends the wait.
            let _ = lock(&receiver).recv();
            Ok(1)
        };
        let mut reader = Reader { read, time_max: Duration::from_millis(20), pending: None };
        for _ in 0..3 {
            assert_eq!(reader.read().await, Err(ReadFailure::Late(reader.time_max)));
        }
        drop(sender);
        reader.time_max = FILE_READ_TIME_MAX;
        assert_eq!(reader.read().await, Ok(1));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }
}
