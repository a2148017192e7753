//! Turns among the servers that change the same accounts.
//!
//! A server that is alone takes no turns: it locks the rows of a batch at once, without an extra
//! round trip. If another server keeps one of the rows locked for longer than a moment, the next batch
//! leaves out the requests whose rows are locked. A few are no harm: servers with a common ledger meet
//! now and then. If they are most, the servers change the same accounts: each would go on to lock some
//! rows while it waits for others, and batches would become many and small. So the servers take turns:
//! the server that has the turn takes all jobs that wait in its queue by then, in one large
//! transaction, and is the only one that waits for a row while it has locked others.
//!
//! ```text
//!            most requests were left out of batches
//!   no turns -------------------------------------> turns
//!            <-------------------------------------
//!             256 turns were taken, or a turn timed out after 500 ms
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::storage::DatabaseKind;

/// Turns that a server takes before it tries to do without again. With fewer, servers that still
/// collide pay for more collisions; with more, a server that is alone again, or that collides seldom,
/// takes turns for longer than it must.
const TURNS: usize = 256;
/// So many more requests left out than executed start turns. With fewer, a single request that met
/// another server twice would start them; with more, servers collide for longer before they take
/// turns.
const LEFT_OUT_MAX: usize = 8;

/// Whether the workers of this process take turns.
pub struct Turns {
    /// On SQLite, BEGIN is the turn.
    is_needed: bool,
    /// Turns that this server still takes.
    left: AtomicUsize,
    /// How many more requests were left out of batches than executed in them, counting only batches
    /// that leave out what is locked. Zero if fewer.
    left_out: AtomicUsize,
    /// Locked by the worker that has the turn or waits for it. The other worker waits here, so that it
    /// does not take half of the jobs into a second wait in the database.
    waiting: Mutex<()>,
}

impl Turns {
    /// Without turns, until [`Turns::record_left_out`] starts them.
    pub fn new(kind: DatabaseKind) -> Self {
        Self {
            is_needed: kind == DatabaseKind::Postgres,
            left: AtomicUsize::new(0),
            left_out: AtomicUsize::new(0),
            waiting: Mutex::new(()),
        }
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

    /// Records that a turn was taken.
    pub fn record_turn(&self) {
        update(&self.left, |left| left.saturating_sub(1));
    }

    /// Stops taking turns until servers collide again: the server that has the turn may hang.
    pub fn stop(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Records a batch that left out the requests whose rows other servers had locked, and executed
    /// the others.
    pub fn record_left_out(&self, left_out: usize, executed: usize) {
        let left_out = update(&self.left_out, |sum| (sum + left_out).saturating_sub(executed));
        if left_out > LEFT_OUT_MAX && self.is_needed {
            self.left_out.store(0, Ordering::Relaxed);
            if self.left.swap(TURNS, Ordering::Relaxed) == 0 {
                tracing::debug!("other servers change the same accounts: servers take turns");
            }
        }
    }
}

/// Changes a number, and returns the new one.
fn update(number: &AtomicUsize, change: impl Fn(usize) -> usize) -> usize {
    let before = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| Some(change(it)));
    change(before.unwrap_or_else(|same| same))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Turns {
        Turns::new(DatabaseKind::Postgres)
    }

    async fn are_taken(turns: &Turns) -> bool {
        turns.claim().await.is_some()
    }

    #[tokio::test]
    async fn servers_that_seldom_collide_take_no_turns() {
        let turns = turns();
        for _ in 0..1_000 {
            // A batch with one request that was left out, and then this request by itself.
            turns.record_left_out(1, 20);
            turns.record_left_out(1, 0);
            assert!(!are_taken(&turns).await);
        }
    }

    #[tokio::test]
    async fn servers_that_leave_out_most_requests_take_turns() {
        let turns = turns();
        turns.record_left_out(15, 5);
        assert!(are_taken(&turns).await);
    }

    #[tokio::test]
    async fn a_request_that_is_left_out_again_and_again_starts_turns() {
        let turns = turns();
        for _ in 0..LEFT_OUT_MAX {
            turns.record_left_out(1, 0);
            assert!(!are_taken(&turns).await);
        }
        turns.record_left_out(1, 0);
        assert!(are_taken(&turns).await);
    }

    #[tokio::test]
    async fn turns_end_after_their_number_or_when_one_hangs() {
        let turns = turns();
        turns.record_left_out(15, 5);
        for _ in 0..TURNS {
            assert!(are_taken(&turns).await);
            turns.record_turn();
        }
        assert!(!are_taken(&turns).await);

        turns.record_left_out(15, 5);
        assert!(are_taken(&turns).await);
        turns.stop();
        assert!(!are_taken(&turns).await);
    }

    #[tokio::test]
    async fn sqlite_takes_no_turns() {
        let turns = Turns::new(DatabaseKind::Sqlite);
        turns.record_left_out(15, 5);
        assert!(!are_taken(&turns).await);
    }
}
