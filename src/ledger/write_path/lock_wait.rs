//! Lock waits: jobs that need a row which another program has locked.
//!
//! A long foreign lock must delay only jobs that need that account. So these jobs, and all new ones,
//! are parked behind the account in the queue, and a task waits for the row on a connection of its
//! own, until the earliest of their deadlines.
//!
//! A transaction that waits for one row has locked no other meanwhile, and then locks the other rows
//! of its jobs only if they are free (SKIP LOCKED). So it delays nobody while it waits, and cannot
//! deadlock, whatever the order of the ids.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    ledger::write_path::{
        job::{DEADLINE_MARGIN, Job},
        queue::{AccountLease, DequeuedBatch},
        shared::WritePath,
        transaction::{Batch, LeftOut, LockedJobs, Lookup, WaitFor},
    },
    storage::{LockMode, StorageError},
};

/// The pause before a job with a foreign lock goes back into the queue while all connections for row
/// waits are in use: the job makes a worker wait for its row once more.
const LOCK_WAITS_FULL_PAUSE: Duration = Duration::from_millis(50);
/// The longest single wait in the database. After it, callers who have gone are dropped.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// How long a task waits for the row without any job, so that the next job for an account with a long
/// foreign lock does not delay a batch again.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

impl WritePath {
    /// Puts aside the jobs that a transaction has left out. Those whose rows another program has locked
    /// are parked. Those whose rows another server has locked go to the end of the queue, so that they
    /// do not keep others waiting. Of accounts with expired holds, one job each keeps its place: the next
    /// transaction records more of the holds.
    pub(super) fn set_aside(self: &Arc<Self>, left_out: LeftOut, batch: Option<DequeuedBatch>) {
        // Before the lease ends, and later jobs of the accounts with it.
        self.queue.put_back(left_out.with_expired_holds);
        self.park(left_out.elsewhere, batch);
        for (job, account_id) in left_out.by_peers {
            job.start_wait(&account_id);
            self.queue.enqueue(job);
        }
    }

    /// Parks jobs behind the accounts that are locked elsewhere, and starts to wait for their rows.
    /// Releases the other accounts of the batch that found the locks.
    pub(super) fn park(self: &Arc<Self>, left_out: LockedJobs, batch: Option<DequeuedBatch>) {
        if left_out.is_empty() {
            return;
        }
        let locks_max = self.store.connection_counts().row_waits as usize;
        let (leases, mut refused) = self.queue.park(left_out, batch, locks_max);
        for lease in leases {
            let account_id = &lease.account_id;
            tracing::debug!(%account_id, "account locked elsewhere, its requests are parked");
            tokio::spawn(self.clone().wait_for_row(lease));
        }
        refused.retain(|job| !job.expire(LOCK_WAITS_FULL_PAUSE));
        if !refused.is_empty() {
            let queue = self.queue.clone();
            tokio::spawn(async move {
                sleep(LOCK_WAITS_FULL_PAUSE).await;
                refused.into_iter().for_each(|job| queue.enqueue(job));
            });
        }
    }

    /// Waits for the row of an account for as long as jobs need it, and executes them when it is free.
    /// Jobs that arrive during the execution are parked, too, until the lease ends with this.
    async fn wait_for_row(self: Arc<Self>, lease: AccountLease) {
        let mut executor = self.executor();
        let mut wanted_at = Instant::now();
        let transaction = loop {
            let is_kept = |job: &Job| job.has_waiter() && !job.expire(DEADLINE_MARGIN);
            let time_max = match lease.retain(is_kept) {
                Some(deadline) => {
                    wanted_at = Instant::now();
                    let left = deadline.saturating_duration_since(wanted_at);
                    left.saturating_sub(DEADLINE_MARGIN / 2)
                }
                None if wanted_at.elapsed() < IDLE_TIME_MAX => LOCK_TIMEOUT_MAX,
                None => return,
            };
            let row = WaitFor::Row(&lease.account_id, time_max.min(LOCK_TIMEOUT_MAX));
            match executor.begin(row).await {
                Ok(transaction) => break transaction,
                Err(StorageError::LockTimeout(_)) => {}
                // The parked jobs go back into the queue.
                Err(error) => {
                    let error = error.summary();
                    tracing::warn!(error, "the wait for a locked account failed");
                    return;
                }
            }
        };
        let jobs = lease.take(self.cost_max);
        if jobs.is_empty() {
            return executor.abandon(transaction).await;
        }
        // The jobs have waited for long, and may have been tried before.
        let mut batch = Batch::new(jobs, LockMode::SkipLocked, Lookup::Before, self.expired_max());
        match executor.execute(transaction, &mut batch, |_| Vec::new()).await {
            Ok(left_out) => self.set_aside(left_out, None),
            Err(error) => self.retry(batch, error),
        }
    }
}
