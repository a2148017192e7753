//! Polls files and reloads them when their content has changed.
//!
//! Content is compared, not modification times: Kubernetes replaces a mounted file by swapping
//! symbolic links.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::gauge;
use tokio::time::sleep;

/// How often the files are read. A token that is removed from its file stays valid for this long at
/// most, and for [`SETTLE_INTERVAL`].
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Changed files count when two reads with this pause have the same content: a program that writes
/// them may be in the middle.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// Calls `reload` after every change of the files, with the new content or the error of reading it, for
/// as long as the future is polled. If `reload` returns an error, the old content stays in force, and
/// log and metrics say so.
///
/// `files` names the files in log and metrics, and `in_force` is their content at the start.
pub async fn reload_on_change<Content: PartialEq>(
    files: &'static str,
    in_force: Content,
    read: impl Fn() -> Result<Content, String>,
    mut reload: impl FnMut(Result<&Content, &String>) -> Result<(), String>,
) {
    report(files, true);
    let reload = |content: Result<&Content, &String>| {
        let reloaded = reload(content);
        report(files, reloaded.is_ok());
        match reloaded {
            Ok(()) => tracing::info!("{files} reloaded"),
            Err(error) => tracing::error!(error, "{files} not reloaded"),
        }
    };
    poll([POLL_INTERVAL, SETTLE_INTERVAL], in_force, read, reload).await;
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

/// Calls `reload` once for every change that lasts.
async fn poll<Content: PartialEq>(
    [interval, settle]: [Duration; 2],
    in_force: Content,
    read: impl Fn() -> Result<Content, String>,
    mut reload: impl FnMut(Result<&Content, &String>),
) {
    let mut seen = Ok(in_force);
    loop {
        sleep(interval).await;
        let mut content = read();
        while content != seen {
            sleep(settle).await;
            let again = read();
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
    use std::cell::{Cell, RefCell};

    use super::*;

    /// The contents that are reloaded if the reads return these, and the last one from then on.
    async fn reloaded(reads: &[u32]) -> Vec<u32> {
        let (read_count, reloads) = (Cell::new(0), RefCell::new(Vec::new()));
        let read = || {
            read_count.set(read_count.get() + 1);
            Ok(*reads.get(read_count.get() - 1).or(reads.last()).expect("a content"))
        };
        let reload = |content: Result<&u32, &String>| reloads.borrow_mut().extend(content.ok());
        tokio::select! {
            () = poll([Duration::ZERO; 2], 1, read, reload) => {}
            () = async { while read_count.get() < 20 { tokio::task::yield_now().await } } => {}
        }
        reloads.into_inner()
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
}
