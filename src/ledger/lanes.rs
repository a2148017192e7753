//! Where jobs wait for an account that someone else has locked.
//!
//! A lock that is held for milliseconds is waited for in the batch. One that is held for
//! longer must not hold up other accounts: the jobs that need it are parked in a lane of that
//! account, which has a connection and a task of its own and waits in the database, for as
//! long as the most impatient of them allows. While the lane is there, all new jobs for the
//! account stand aside for it in the line.
//!
//! # The lock
//!
//! A lane's transaction waits for the one row while it holds no other, and then takes the
//! other rows that its jobs need only if they are free (SKIP LOCKED). So it never holds up
//! anybody while it waits for a row, and can be in no deadlock, whatever the order of the ids.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::ids::AccountId,
    ledger::{
        Failure, Outcome,
        attempt::{AttemptError, Attempted, Lookup, attempt},
        job::Job,
        line::{Line, Taken},
        stats::{Stats, cause},
        worker::{DEADLINE_MARGIN, expire, note, supervised, trace},
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

/// All lanes of a process. Their jobs stand aside in the line.
#[derive(Clone)]
pub struct Lanes {
    store: Arc<Store>,
    line: Arc<Line>,
    /// What all attempts tell.
    pub stats: Arc<Stats>,
    batch_size_max: usize,
}

impl Lanes {
    /// No lanes yet; jobs that a lane cannot settle go back into the line.
    pub fn new(
        store: Arc<Store>,
        line: Arc<Line>,
        stats: Arc<Stats>,
        batch_size_max: usize,
    ) -> Self {
        Self { store, line, stats, batch_size_max }
    }

    /// Answers the jobs of an attempt that committed; those that were left out wait on. The
    /// accounts of the batch, if it has any to itself, are released.
    pub fn hand_out(&self, attempted: Attempted, batch: Option<&mut Taken>) {
        self.stats.record(&attempted);
        for (job, verdict) in attempted.judged {
            match verdict {
                // An earlier attempt, whose commit was not confirmed, may have made this very
                // change; without a request id nothing is stored that would tell.
                Err(_) if job.is_uncertain() && job.command.key().is_none() => {
                    job.give_up(Failure::DatabaseUnavailable(Some(Outcome::Unknown)));
                }
                verdict => job.answer(verdict.map_err(Failure::Rejected)),
            }
        }
        if attempted.held_elsewhere.is_empty() {
            return;
        }
        let (lanes, refused) = self.line.park(attempted.held_elsewhere, batch, LANES_MAX);
        for account_id in lanes {
            tracing::debug!(%account_id, "account locked elsewhere, its requests wait in a lane");
            tokio::spawn(self.clone().supervise(account_id));
        }
        for job in refused {
            if job.deadline <= Instant::now() + LANES_FULL_PAUSE {
                job.give_up(Failure::LockTimeout);
                continue;
            }
            let line = self.line.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LANES_FULL_PAUSE).await;
                line.push(job);
            });
        }
    }

    /// Runs a lane to its end.
    async fn supervise(self, account_id: AccountId) {
        let lane = Lane { lanes: self.clone(), account_id: account_id.clone() };
        if let Err(error) = lane.run().await {
            self.stats.record_failure(&error);
            let jobs = self.line.aside(&account_id, |left| {
                note(left, &error);
                left.len()
            });
            tracing::warn!(
                error = error.summary(),
                jobs,
                "lane closed, its requests are tried again"
            );
        }
    }
}

/// One account's lane.
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

/// However it ends, what is left in it goes back into the line.
impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.line.close_lane(&self.account_id);
    }
}

impl Lane {
    /// Until the account was free once, or nobody wants it any more.
    async fn run(&self) -> Result<(), AttemptError> {
        let writer = self.lanes.store.writer().await?;
        let _open = self.lanes.stats.open_writer();
        let mut wanted_at = Instant::now();
        loop {
            let lock_timeout = self.lock_timeout();
            if lock_timeout.is_some() {
                wanted_at = Instant::now();
            } else if wanted_at.elapsed() > IDLE_TIME_MAX {
                return Ok(());
            }
            match supervised(self.round(&writer, lock_timeout)).await? {
                Round::LockTimeout => self.expire(),
                Round::Idle => return Ok(()),
                Round::Settled(jobs, attempted) => {
                    self.forget(jobs);
                    self.lanes.hand_out(attempted, None);
                    // The row was free: who has come since may try the short way again.
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the row, and settles the jobs that have gathered meanwhile. They stay in the
    /// lane until they are answered: if this attempt fails the worker makes the next one.
    async fn round(
        &self,
        writer: &Writer,
        lock_timeout: Option<Duration>,
    ) -> Result<Round, AttemptError> {
        let start = Instant::now();
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
        self.lanes.line.contention.end_waits(jobs.iter());
        let traced = trace(self.lanes.store.kind(), &jobs, 1, start);
        let result = attempt(transaction, start, &jobs, LockWait::Never, Lookup::First).await;
        traced.end(result.as_ref().err().map(cause));
        Ok(Round::Settled(jobs.len(), result?))
    }

    /// How long to wait: until shortly before the first of the jobs must be answered. None if
    /// there are no jobs.
    fn lock_timeout(&self) -> Option<Duration> {
        let first = self.thin_out(|jobs| {
            jobs.retain(|job| job.is_wanted());
            jobs.iter().map(|job| job.deadline).min()
        })?;
        let left = first.saturating_duration_since(Instant::now());
        Some(left.saturating_sub(DEADLINE_MARGIN / 2).min(LOCK_TIMEOUT_MAX))
    }

    /// The first of the jobs, as many as go into one transaction.
    fn jobs(&self) -> Vec<Arc<Job>> {
        let (weight_max, mut weight) = (self.lanes.batch_size_max, 0);
        self.aside(|jobs| {
            let fits = jobs.iter().take_while(|job| {
                weight += job.command.weight();
                weight <= weight_max
            });
            // One that is heavier goes by itself.
            let count = fits.count().max(1);
            jobs.iter().take(count).cloned().collect()
        })
    }

    /// Takes out the first jobs, which were settled; more may have come in behind them.
    fn forget(&self, settled: usize) {
        self.aside(|jobs| drop(jobs.drain(..settled.min(jobs.len()))));
    }

    fn expire(&self) {
        self.thin_out(expire);
    }

    /// Takes out jobs for which nobody waits any more, and which so wait no more themselves.
    fn thin_out<T>(&self, act: impl FnOnce(&mut Vec<Arc<Job>>) -> T) -> T {
        let (result, before) = self.aside(|jobs| {
            let before = jobs.clone();
            (act(jobs), before)
        });
        let gone = before.iter().filter(|job| !job.is_wanted());
        self.lanes.line.contention.end_waits(gone);
        result
    }

    fn aside<T>(&self, act: impl FnOnce(&mut Vec<Arc<Job>>) -> T) -> T {
        self.lanes.line.aside(&self.account_id, act)
    }
}
