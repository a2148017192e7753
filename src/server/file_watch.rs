//! Polls files and calls back when their content has changed.
//!
//! Content is compared, not modification times: Kubernetes replaces a mounted file by swapping
//! symbolic links.

use std::time::Duration;

use tokio::time::sleep;

/// How often the files are read. A token that is removed from its file stays valid for this long at
/// most.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Calls `reload` after every change of the files, for as long as the future is polled.
///
/// `read` returns what identifies the content: a text, a digest, or the error of a file that cannot
/// be read. `seen` is the content that is in force. A content that `reload` cannot use causes one
/// call, not one at every poll.
pub async fn on_change<Content: PartialEq>(
    interval: Duration,
    mut seen: Content,
    read: impl Fn() -> Content,
    reload: impl Fn(),
) {
    loop {
        sleep(interval).await;
        let content = read();
        if content != seen {
            seen = content;
            reload();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn every_change_is_reported_once() {
        let contents = RefCell::new(vec![3, 1, 2, 2, 1].into_iter());
        let (polls, reloads) = (Cell::new(0), Cell::new(0));
        let read = || {
            polls.set(polls.get() + 1);
            contents.borrow_mut().next().unwrap_or(1)
        };
        let polling = on_change(Duration::ZERO, 1, read, || reloads.set(reloads.get() + 1));
        tokio::select! {
            () = polling => {}
            () = async { while polls.get() < 10 { tokio::task::yield_now().await } } => {}
        }
        // 1 -> 3 -> 1 -> 2, the same 2, and 1 for the rest.
        assert_eq!(reloads.get(), 4);
    }
}
