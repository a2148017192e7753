//! Turns among the servers that change the same accounts.
//!
//! A server that is alone takes no turns: it locks the rows of a batch at once, without an extra
//! round trip. If another server keeps one of the rows locked for longer than a moment, the batch
//! collides: it goes back into the queue, and the worker's next batch leaves out the requests whose
//! rows are locked. If that is the exception, it costs less than turns. If more than a quarter of the
//! batches collide, the servers change the same accounts: each would go on to lock some rows while it
//! waits for others, and batches would become many and small. So the servers take turns: the server
//! that has the turn takes all jobs that wait in its queue by then, in one large transaction.
//!
//! ```text
//!            more than a quarter of the batches collide
//!   no turns --------------------------------------------> turns
//!            <--------------------------------------------
//!             256 turns were taken, or a turn was not granted in 500 ms
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::storage::DatabaseKind;

/// Turns that a server takes before it tries to do without again. With fewer, servers that still
/// collide pay for more collisions; with more, a server that is alone again, or that collides seldom,
/// takes turns for longer than it must.
const TURNS: usize = 256;
/// So many batches that were granted all rows make up for one that collided. With fewer, servers take
/// turns too late: batches are small while servers collide. With more, servers that collide seldom
/// take turns, too, and work one after another.
const GRANTED_PER_COLLISION: usize = 3;
/// Turns start when the collisions for which batches have not made up yet are worth more batches than
/// this. With fewer, one chance collision would start turns.
const NOT_MADE_UP_MAX: usize = 4;

/// Whether the workers of this process take turns.
pub struct Turns {
    /// On SQLite, BEGIN is the turn.
    is_needed: bool,
    /// Turns that this server still takes.
    left: AtomicUsize,
    /// Batches that must be granted all rows to make up for the collisions so far.
    not_made_up: AtomicUsize,
    /// Locked by the worker that has the turn or waits for it. The other worker waits here, so that it
    /// does not take half of the jobs into a second wait in the database.
    waiting: Mutex<()>,
}

impl Turns {
    /// Without turns, until they are started.
    pub fn new(kind: DatabaseKind) -> Self {
        Self {
            is_needed: kind == DatabaseKind::Postgres,
            left: AtomicUsize::new(0),
            not_made_up: AtomicUsize::new(0),
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
        decrease(&self.left);
    }

    /// Stops taking turns until servers collide again: the server that has the turn may hang.
    pub fn stop(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Records a batch that was granted all its rows.
    pub fn record_granted(&self) {
        decrease(&self.not_made_up);
    }

    /// Records a batch that was not granted a row in time.
    pub fn record_collision(&self) {
        let before = self.not_made_up.fetch_add(GRANTED_PER_COLLISION, Ordering::Relaxed);
        if before + GRANTED_PER_COLLISION > NOT_MADE_UP_MAX {
            self.start();
        }
    }

    /// Starts to take turns.
    pub fn start(&self) {
        if !self.is_needed {
            return;
        }
        self.not_made_up.store(0, Ordering::Relaxed);
        if self.left.swap(TURNS, Ordering::Relaxed) == 0 {
            tracing::debug!("other servers change the same accounts: servers take turns");
        }
    }
}

/// Takes one away, unless the number is zero.
fn decrease(number: &AtomicUsize) {
    let one_less = |number: usize| number.checked_sub(1);
    let _ = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn turns() -> Turns {
        Turns::new(DatabaseKind::Postgres)
    }

    async fn are_taken(turns: &Turns) -> bool {
        turns.claim().await.is_some()
    }

    /// Two collisions in a row.
    fn collide_until_turns(turns: &Turns) {
        (0..2).for_each(|_| turns.record_collision());
    }

    #[tokio::test]
    async fn servers_that_seldom_collide_take_no_turns() {
        let turns = turns();
        for _ in 0..1_000 {
            turns.record_collision();
            assert!(!are_taken(&turns).await);
            (0..GRANTED_PER_COLLISION).for_each(|_| turns.record_granted());
        }
    }

    #[tokio::test]
    async fn servers_take_turns_if_more_than_a_quarter_of_their_batches_collide() {
        let turns = turns();
        let mut batches = 0;
        while !are_taken(&turns).await {
            turns.record_collision();
            (1..GRANTED_PER_COLLISION).for_each(|_| turns.record_granted());
            batches += GRANTED_PER_COLLISION;
            assert!(batches < 20, "a third of the batches collide");
        }
    }

    #[tokio::test]
    async fn turns_end_after_their_number_or_when_one_hangs() {
        let turns = turns();
        collide_until_turns(&turns);
        for _ in 0..TURNS {
            assert!(are_taken(&turns).await);
            turns.record_turn();
        }
        assert!(!are_taken(&turns).await);

        turns.record_collision();
        assert!(!are_taken(&turns).await, "the collisions before the turns do not count");
        turns.record_collision();
        assert!(are_taken(&turns).await);
        turns.stop();
        assert!(!are_taken(&turns).await);
    }

    #[tokio::test]
    async fn while_a_worker_has_the_turn_the_other_one_waits_for_it() {
        let turns = turns();
        collide_until_turns(&turns);
        let turn = turns.claim().await;
        let mut other = pin!(turns.claim());
        assert!((&mut other).now_or_never().is_none(), "a worker has the turn");
        drop(turn);
        let turn = other.now_or_never().expect("no worker has it").expect("turns are taken");

        let mut other = pin!(turns.claim());
        assert!((&mut other).now_or_never().is_none(), "a worker has the turn");
        turns.stop();
        drop(turn);
        let turn = other.now_or_never().expect("no worker has it");
        assert!(turn.is_none(), "turns have ended during the wait");
    }

    #[tokio::test]
    async fn sqlite_takes_no_turns() {
        let turns = Turns::new(DatabaseKind::Sqlite);
        collide_until_turns(&turns);
        assert!(!are_taken(&turns).await);
    }
}
