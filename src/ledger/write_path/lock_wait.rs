//! Jobs that wait for an account whose row another program has locked.
//!
//! A long foreign lock must delay only jobs that need that account. So these jobs, and all new ones,
//! are parked behind the account in the queue, and a retry waits for the row on a connection of its
//! own, until the earliest of their deadlines.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::ids::AccountId,
    ledger::write_path::{
        job::{self, Job},
        queue::CommandQueue,
    },
};

/// The longest single wait in the database. After it, callers who have gone are dropped.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// How long a retry waits for the row without any job, so that the next job for an account with a long
/// foreign lock does not delay a batch again.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// An account whose jobs are parked. When it is dropped, they go back into the queue.
pub struct AccountLease {
    queue: Arc<CommandQueue>,
    account_id: AccountId,
    /// When a job last waited for it.
    wanted_at: Instant,
}

impl AccountLease {
    /// A lease of an account that the queue has marked as leased.
    pub fn new(queue: Arc<CommandQueue>, account_id: AccountId) -> Self {
        Self { queue, account_id, wanted_at: Instant::now() }
    }

    /// The account.
    pub fn account_id(&self) -> &AccountId {
        &self.account_id
    }

    /// Whether to go on waiting for the row.
    pub fn has_waiter(&mut self) -> bool {
        if self.retain(|job| job.has_waiter()) > 0 {
            self.wanted_at = Instant::now();
        }
        self.wanted_at.elapsed() < IDLE_TIME_MAX
    }

    /// How long to wait for the row: until shortly before the earliest deadline of the jobs.
    pub fn lock_timeout(&self) -> Duration {
        let first = self.parked(|jobs| jobs.iter().map(|job| job.deadline).min());
        let Some(first) = first else { return LOCK_TIMEOUT_MAX };
        let left = first.saturating_duration_since(Instant::now());
        left.saturating_sub(job::DEADLINE_MARGIN / 2).min(LOCK_TIMEOUT_MAX)
    }

    /// Fails the jobs that have no time left.
    pub fn expire(&self) {
        self.retain(|job| !job.expire());
    }

    /// Takes as many jobs as go into one transaction, in their order.
    pub fn take(&self, cost_max: usize) -> Vec<Arc<Job>> {
        let mut cost = 0;
        let jobs: Vec<_> = self.parked(|jobs| {
            let fits = jobs.iter().take_while(|job| {
                cost += job.command.cost();
                cost <= cost_max
            });
            // A larger job goes by itself.
            let count = fits.count().max(1).min(jobs.len());
            jobs.drain(..count).collect()
        });
        self.queue.contention.end_waits(jobs.iter());
        jobs
    }

    /// Keeps the jobs for which `is_kept` is true, and returns how many are left.
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
