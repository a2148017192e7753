//! Where jobs wait for an account that someone else has locked.
//!
//! A lock that is held for milliseconds is waited for in the batch. One that is held for
//! longer must not hold up other accounts: the jobs that need it are parked in a lane of that
//! account, which has a connection and a task of its own and waits in the database, for as
//! long as the most impatient of them allows. While the lane is there, all new jobs for the
//! account go to it.
//!
//! # The lock
//!
//! A lane's transaction waits for the one row while it holds no other, and then takes the
//! other rows that its jobs need only if they are free (SKIP LOCKED). So it never holds up
//! anybody while it waits for a row, and can be in no deadlock, whatever the order of the ids.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    domain::ids::AccountId,
    ledger::{
        Failure,
        attempt::{AttemptError, Attempted, Lookup, attempt_in},
        job::Job,
        worker::{DEADLINE_MARGIN, expire, note, portions, supervised},
    },
    storage::{LockWait, StorageError, Store, Writer},
};

/// Accounts held by someone else at the same time that are waited for, each on a connection
/// of its own. Jobs for further ones go back to the worker after a pause.
const LANES_MAX: usize = 16;
/// That pause: each such job makes the worker wait for its row once more.
const LANES_FULL_PAUSE: Duration = Duration::from_millis(50);
/// The longest single wait in the database; then the lane looks up who is still there.
const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// How long a lane without jobs goes on waiting, so that the next job for an account that is
/// held for long does not hold up a batch again.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// All lanes of a process.
#[derive(Clone)]
pub struct Lanes {
    store: Arc<Store>,
    returned: mpsc::UnboundedSender<Arc<Job>>,
    waiting: Arc<Mutex<HashMap<AccountId, Vec<Arc<Job>>>>>,
    batch_size_max: usize,
}

impl Lanes {
    /// No lanes yet; jobs that a lane cannot settle go back to the worker through `returned`.
    pub fn new(
        store: Arc<Store>,
        returned: mpsc::UnboundedSender<Arc<Job>>,
        batch_size_max: usize,
    ) -> Self {
        Self { store, returned, waiting: Arc::default(), batch_size_max }
    }

    /// Puts the jobs that need a held account into its lane; the others are returned.
    pub fn divert(&self, jobs: impl Iterator<Item = Arc<Job>>) -> Vec<Arc<Job>> {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return jobs.collect();
        }
        let mut ready = Vec::new();
        for job in jobs {
            let held = job.command.account_ids().find(|id| waiting.contains_key(*id)).cloned();
            match held.and_then(|account_id| waiting.get_mut(&account_id)) {
                Some(lane) => lane.push(job),
                None => ready.push(job),
            }
        }
        ready
    }

    /// Puts a job into the lane of this account, which is opened if need be.
    fn park(&self, job: Arc<Job>, account_id: AccountId) {
        let mut waiting = self.waiting();
        if let Some(jobs) = waiting.get_mut(&account_id) {
            jobs.push(job);
        } else if waiting.len() < LANES_MAX {
            tracing::debug!(%account_id, "account locked elsewhere, its requests wait in a lane");
            waiting.insert(account_id.clone(), vec![job]);
            tokio::spawn(self.clone().supervise(account_id));
        } else if job.deadline > Instant::now() + LANES_FULL_PAUSE {
            let returned = self.returned.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LANES_FULL_PAUSE).await;
                // Fails only if the worker is gone, and then nobody waits any more.
                let _ = returned.send(job);
            });
        } else {
            job.give_up(Failure::LockTimeout);
        }
    }

    /// Answers the jobs of an attempt that committed; those that were left out wait on.
    pub fn hand_out(&self, attempted: Attempted) {
        for (job, verdict) in attempted.judged {
            job.answer(verdict.map_err(Failure::Rejected));
        }
        for (job, account_id) in attempted.held_elsewhere {
            self.park(job, account_id);
        }
    }

    /// Runs a lane and, however it ends, sends what is left in it back to the worker.
    async fn supervise(self, account_id: AccountId) {
        let lane = Lane { lanes: self.clone(), account_id: account_id.clone() };
        let ended = lane.run().await;
        // Under the lock: a job is either in the lane now or finds none.
        let left = self.waiting().remove(&account_id).unwrap_or_default();
        if let Err(error) = ended {
            note(&left, &error);
            tracing::warn!(%error, jobs = left.len(), "lane closed, its requests are tried again");
        }
        for job in left {
            // Fails only if the worker is gone, and then nobody waits any more.
            let _ = self.returned.send(job);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<AccountId, Vec<Arc<Job>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One account's lane.
#[derive(Clone)]
struct Lane {
    lanes: Lanes,
    account_id: AccountId,
}

/// What came of one wait for the row.
enum Round {
    /// Not had in time.
    LockTimeout,
    /// Had, and nobody wanted it any more.
    Idle,
    /// Had, and this many jobs were settled.
    Settled(usize, Attempted),
}

impl Lane {
    /// Until the account was free once, or nobody wants it any more.
    async fn run(self) -> Result<(), AttemptError> {
        let writer = Arc::new(self.lanes.store.writer().await?);
        let mut wanted_at = Instant::now();
        loop {
            let lock_timeout = self.lock_timeout();
            if lock_timeout.is_some() {
                wanted_at = Instant::now();
            } else if wanted_at.elapsed() > IDLE_TIME_MAX {
                return Ok(());
            }
            let round = self.clone().round(writer.clone(), lock_timeout);
            match supervised(round).await? {
                Round::LockTimeout => self.expire(),
                Round::Idle => return Ok(()),
                Round::Settled(jobs, attempted) => {
                    self.forget(jobs);
                    self.lanes.hand_out(attempted);
                    // The row was free: who has come since may try the short way again.
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the row, and settles the jobs that have gathered meanwhile. They stay in the
    /// lane until they are answered: if this attempt fails the worker makes the next one.
    async fn round(
        self,
        writer: Arc<Writer>,
        lock_timeout: Option<Duration>,
    ) -> Result<Round, AttemptError> {
        let transaction = writer.begin().await?;
        let lock_timeout = lock_timeout.unwrap_or(LOCK_TIMEOUT_MAX);
        match transaction.wait_for(&self.account_id, lock_timeout).await {
            Ok(()) => {}
            Err(StorageError::LockTimeout(_)) => {
                transaction.roll_back().await?;
                return Ok(Round::LockTimeout);
            }
            Err(error) => return Err(error.into()),
        }
        let jobs = self.jobs();
        if jobs.is_empty() {
            transaction.roll_back().await?;
            return Ok(Round::Idle);
        }
        let attempted = attempt_in(transaction, &jobs, LockWait::Never, Lookup::First).await?;
        Ok(Round::Settled(jobs.len(), attempted))
    }

    /// How long to wait: until shortly before the first of the jobs must be answered. None if
    /// there are no jobs.
    fn lock_timeout(&self) -> Option<Duration> {
        let mut waiting = self.lanes.waiting();
        let jobs = waiting.get_mut(&self.account_id)?;
        jobs.retain(|job| job.is_wanted());
        let first = jobs.iter().map(|job| job.deadline).min()?;
        let left = first.saturating_duration_since(Instant::now());
        Some(left.saturating_sub(DEADLINE_MARGIN / 2).min(LOCK_TIMEOUT_MAX))
    }

    fn jobs(&self) -> Vec<Arc<Job>> {
        let waiting = self.lanes.waiting();
        let jobs = waiting.get(&self.account_id).map(Vec::as_slice).unwrap_or_default();
        let portions = portions(jobs.iter().cloned(), self.lanes.batch_size_max);
        portions.into_iter().next().unwrap_or_default()
    }

    /// Takes out the first jobs, which were settled; more may have come in behind them.
    fn forget(&self, settled: usize) {
        if let Some(jobs) = self.lanes.waiting().get_mut(&self.account_id) {
            jobs.drain(..settled.min(jobs.len()));
        }
    }

    fn expire(&self) {
        if let Some(jobs) = self.lanes.waiting().get_mut(&self.account_id) {
            expire(jobs);
        }
    }
}
