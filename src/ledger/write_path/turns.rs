//! When this server takes turns with the others.
//!
//! A server that is alone takes none: it locks the rows of a batch at once, with no round trip
//! more. If another server has one of them for longer than a moment, both change the same
//! accounts. If they went on like that, each would hold some rows while it waits for others, and
//! their batches would become many and small. So they take turns: whoever has the turn takes all
//! that waits in its queue by then, in one large transaction, and is the only one who waits for a
//! row while it holds others.
//!
//! ```text
//!            a lock was not had within 2 ms
//!   no turns ------------------------------> turns
//!            <------------------------------
//!             64 turns had without a wait, or
//!             a turn not had within 500 ms
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::storage::DatabaseKind;

/// So many turns must have been free at once before this server stops taking them. Fewer, and
/// servers that still collide try again and again without; more, and a server that is alone
/// again pays a round trip for each.
const FREE_TURNS_MAX: usize = 64;

/// Whether the workers of this process take turns.
pub struct Turns {
    /// On SQLite, BEGIN is the turn.
    is_needed: bool,
    /// Turns that are still taken although nobody else wants them.
    left: AtomicUsize,
    /// Held by the worker that has the turn or waits for it: the other one waits here, rather
    /// than that it stands in the database's queue as well, with half of the jobs.
    waiting: Mutex<()>,
}

impl Turns {
    /// No turns are taken yet.
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

    /// The turn was not had in time: whoever has it may hang. No turns are taken until servers
    /// collide again.
    pub fn stop(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// A lock of another server was in the way: turns are taken from now on.
    pub fn start(&self) {
        if self.is_needed {
            self.left.store(FREE_TURNS_MAX, Ordering::Relaxed);
        }
    }

    /// A turn was had, at once or after a wait for another server's.
    pub fn record(&self, has_waited: bool) {
        if has_waited {
            return self.start();
        }
        let one_less = |left: usize| Some(left.saturating_sub(1));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}
