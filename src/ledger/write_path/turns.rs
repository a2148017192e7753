//! Turns among the servers that change the same accounts.
//!
//! A server that is alone takes no turns: it locks the rows of a batch at once, without an extra
//! round trip. If another server keeps one of the rows locked for longer than a moment, both change
//! the same accounts. Each would go on to lock some rows while it waits for others, and batches would
//! become many and small. So the servers take turns: the server that has the turn takes all jobs that
//! wait in its queue by then, in one large transaction, and is the only one that waits for a row while
//! it has locked others.
//!
//! ```text
//!            a lock timed out after 2 ms
//!   no turns ------------------------------> turns
//!            <------------------------------
//!             64 turns without a wait, or
//!             a turn timed out after 500 ms
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::storage::DatabaseKind;

/// Turns without a wait after which this server stops taking them. With fewer, servers that still
/// collide stop and start again and again; with more, a server that is alone again pays for so many
/// round trips.
const FREE_TURNS_MAX: usize = 64;

/// Whether the workers of this process take turns.
pub struct Turns {
    /// On SQLite, BEGIN is the turn.
    is_needed: bool,
    /// Turns that this server still takes without a wait for another server.
    left: AtomicUsize,
    /// Locked by the worker that has the turn or waits for it. The other worker waits here, so that it
    /// does not take half of the jobs into a second wait in the database.
    waiting: Mutex<()>,
}

impl Turns {
    /// Without turns, until [`Turns::start`].
    pub fn new(kind: DatabaseKind) -> Self {
        let is_needed = kind == DatabaseKind::Postgres;
        Self { is_needed, left: AtomicUsize::new(0), waiting: Mutex::new(()) }
    }

    /// Waits until no other worker of this process has the turn or waits for it. None if no turns
    /// are taken.
    pub async fn claim(&self) -> Option<MutexGuard<'_, ()>> {
        if self.left.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let guard = self.waiting.lock().await;
        (self.left.load(Ordering::Relaxed) > 0).then_some(guard)
    }

    /// Stops taking turns until servers collide again: the server that has the turn may hang.
    pub fn stop(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Starts to take turns: a lock of another server timed out.
    pub fn start(&self) {
        if self.is_needed {
            self.left.store(FREE_TURNS_MAX, Ordering::Relaxed);
        }
    }

    /// Records a turn, which came at once or after a wait for another server.
    pub fn record(&self, has_waited: bool) {
        if has_waited {
            return self.start();
        }
        let one_less = |left: usize| Some(left.saturating_sub(1));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}
