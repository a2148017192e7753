//! The jobs that wait for an account that another program has locked.
//!
//! A lock that is held for long must hold up nobody but those who need that account. So its jobs
//! are parked behind the account in the queue, as all new ones are, and a retry waits for the row
//! on a connection of its own, for as long as the most impatient of them allows.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::ids::AccountId,
    ledger::write_path::{
        job::{self, Job},
        queue::CommandQueue,
    },
};

/// The longest single wait in the database; then it is looked up who still waits.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// How long the row is waited for although nobody wants it, so that the next job for an account
/// that is locked for long does not hold up a batch again.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// An account whose jobs are parked. However it is dropped, they go back into the queue.
pub struct AccountLease {
    queue: Arc<CommandQueue>,
    account_id: AccountId,
    /// When somebody last waited for it.
    wanted_at: Instant,
}

impl AccountLease {
    /// The queue has marked the account as leased.
    pub fn new(queue: Arc<CommandQueue>, account_id: AccountId) -> Self {
        Self { queue, account_id, wanted_at: Instant::now() }
    }

    /// Which account.
    pub fn account_id(&self) -> &AccountId {
        &self.account_id
    }

    /// Whether the row is still to be waited for.
    pub fn has_waiter(&mut self) -> bool {
        if self.retain(|job| job.has_waiter()) > 0 {
            self.wanted_at = Instant::now();
        }
        self.wanted_at.elapsed() < IDLE_TIME_MAX
    }

    /// How long to wait for the row: until shortly before the first of the jobs must be answered.
    pub fn lock_timeout(&self) -> Duration {
        let first = self.parked(|jobs| jobs.iter().map(|job| job.deadline).min());
        let Some(first) = first else { return LOCK_TIMEOUT_MAX };
        let left = first.saturating_duration_since(Instant::now());
        left.saturating_sub(job::DEADLINE_MARGIN / 2).min(LOCK_TIMEOUT_MAX)
    }

    /// Answers the jobs that have no time left.
    pub fn expire(&self) {
        self.retain(|job| !job.expire());
    }

    /// Takes the first of the jobs, as many as go into one transaction.
    pub fn take(&self, weight_max: usize) -> Vec<Arc<Job>> {
        let mut weight = 0;
        let jobs: Vec<_> = self.parked(|jobs| {
            let fits = jobs.iter().take_while(|job| {
                weight += job.command.cost();
                weight <= weight_max
            });
            // One that is heavier goes by itself.
            let count = fits.count().max(1).min(jobs.len());
            jobs.drain(..count).collect()
        });
        self.queue.contention.end_waits(jobs.iter());
        jobs
    }

    /// Forgets the jobs of which this is not so, and returns how many are left.
    fn retain(&self, is_kept: impl Fn(&Job) -> bool) -> usize {
        let (gone, left) = self.parked(|jobs| {
            let (kept, gone): (Vec<_>, Vec<_>) = jobs.drain(..).partition(|job| is_kept(job));
            *jobs = kept;
            (gone, jobs.len())
        });
        self.queue.contention.end_waits(gone.iter());
        left
    }

    fn parked<T>(&self, act: impl FnOnce(&mut Vec<Arc<Job>>) -> T) -> T {
        self.queue.parked(&self.account_id, act)
    }
}

impl Drop for AccountLease {
    fn drop(&mut self) {
        self.queue.end_lease(&self.account_id);
    }
}
