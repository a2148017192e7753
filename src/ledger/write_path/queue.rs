//! The queue of jobs that wait for a worker.
//!
//! Workers of one process would wait for each other's row locks. So a batch leases its accounts: jobs
//! that need one of them wait until the lease ends, or they join the batch.
//! This is about speed only. Correctness rests on the row lock in the database, which other processes
//! take, too.
//!
//! One identity does not wait for the backlog of another one: see [`FairQueue`].

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    domain::{account::Account, ids::AccountId},
    ledger::{
        metrics::contention::Contention,
        write_path::{
            fair_queue::{CostMax, Costs, Decision, FairQueue, Taken},
            job::{DEADLINE_MARGIN, Job},
            transaction::LockedJobs,
        },
    },
    lock::lock,
};

/// Free jobs for which a worker starts a batch while another worker is busy. With fewer, there are more
/// database transactions, each with its own round trips and COMMIT; with more, the second worker of a
/// server with some 64 requests in flight would seldom start.
pub(super) const SECOND_BATCH_JOBS_MIN: usize = 24;
/// A worker waits no longer than this for the batch of another one, which may hang.
pub(super) const SECOND_BATCH_WAIT_MAX: Duration = Duration::from_millis(10);

/// The waiting jobs of a process.
#[derive(Default)]
pub struct CommandQueue {
    state: Mutex<State>,
    arrived: Notify,
    busy_workers: AtomicUsize,
    /// The accounts for which jobs have waited.
    pub contention: Contention,
}

#[derive(Default)]
struct State {
    /// All jobs but the parked ones.
    waiting: FairQueue,
    leased: HashMap<AccountId, Lease>,
    /// Leased accounts that have a foreign lock.
    foreign_locks: usize,
}

/// The state of a leased account.
#[derive(Default)]
struct Lease {
    /// Another program has locked the row. Otherwise a batch uses the account.
    has_foreign_lock: bool,
    /// Jobs that wait for the account: all that need it if it has a foreign lock, otherwise those that
    /// need no other account.
    parked: Vec<Arc<Job>>,
}

/// A worker that has a batch or is about to take one, until this is dropped.
pub struct BusyWorker<'a>(&'a AtomicUsize);

/// The lease of an account with a foreign lock. It ends when this is dropped.
pub struct AccountLease {
    /// The account.
    pub account_id: AccountId,
    queue: Arc<CommandQueue>,
}

/// The jobs of one batch, with the lease of their accounts, which ends when this is dropped.
pub struct DequeuedBatch {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    queue: Arc<CommandQueue>,
    accounts: HashSet<AccountId>,
    costs: Costs,
    cost_max: CostMax,
}

impl CommandQueue {
    /// Appends a job.
    pub fn enqueue(&self, job: Arc<Job>) {
        let mut state = self.state();
        job.renumber();
        // A job that no worker can take now wakes none.
        let leased = state.leased_of(&job);
        if let Some(account_id) = &leased {
            job.start_wait(account_id);
        }
        // Also if a batch uses its account: other jobs may have come before it.
        if !state.park_if_locked(&job) {
            state.waiting.push(job);
        }
        drop(state);
        if leased.is_none() {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is a job whose accounts are free, or several if another worker is busy.
    pub async fn ready(&self) -> BusyWorker<'_> {
        while !self.is_ready() {
            self.arrived.notified().await;
        }
        let enough = async {
            while self.busy_workers.load(Ordering::Relaxed) > 0
                && !self.has_free_jobs(SECOND_BATCH_JOBS_MIN)
            {
                self.arrived.notified().await;
            }
        };
        let _ = timeout(SECOND_BATCH_WAIT_MAX, enough).await;
        self.busy_workers.fetch_add(1, Ordering::Relaxed);
        BusyWorker(&self.busy_workers)
    }

    /// Whether there is a job whose accounts are free. It may still be reserved for an older job.
    pub fn is_ready(&self) -> bool {
        self.has_free_jobs(1)
    }

    /// Whether there are so many jobs whose accounts are free.
    fn has_free_jobs(&self, count: usize) -> bool {
        let state = self.state();
        let is_free = |job: &&Arc<Job>| state.leased_of(job).is_none();
        state.waiting.iter().filter(is_free).take(count).count() == count
    }

    /// Whether several identities use it.
    pub fn is_shared(&self) -> bool {
        self.state().waiting.is_shared()
    }

    /// Waits until a job arrives or an account is released.
    pub async fn changed(&self) {
        self.arrived.notified().await;
    }

    /// Takes all jobs whose accounts are free, up to this cost.
    pub fn try_dequeue(self: &Arc<Self>, cost_max: CostMax) -> Option<DequeuedBatch> {
        let mut state = self.state();
        let mut given_up = Vec::new();
        // Accounts of jobs that wait for another account: two accounts that are never free at the same
        // moment would otherwise starve a transfer between them.
        let mut reserved = HashSet::new();
        let mut waiting = std::mem::take(&mut state.waiting);
        let taken = waiting.take(cost_max, |job, is_behind| {
            // An abandoned job must not delay others.
            if !job.has_waiter() {
                given_up.push(job.clone());
                return Decision::Remove;
            }
            state.decide(job, is_behind, &mut reserved)
        });
        state.waiting = waiting;
        let Taken { jobs, costs, is_full, .. } = taken;
        let account_ids = jobs.iter().flat_map(|job| job.command.account_ids());
        let accounts: HashSet<_> = account_ids.cloned().collect();
        let lease = |account_id: &AccountId| (account_id.clone(), Lease::default());
        state.leased.extend(accounts.iter().map(lease));
        drop(state);
        self.contention.end_waits(jobs.iter().chain(&given_up));
        if jobs.is_empty() {
            return None;
        }
        if is_full {
            // The rest is for another worker.
            self.arrived.notify_one();
        }
        Some(DequeuedBatch { jobs, queue: self.clone(), accounts, costs, cost_max })
    }

    /// Puts jobs back that were left out because of an account, for another attempt: the first one of each
    /// account to the place that it had, the others to the end, so that they keep no others waiting.
    pub fn put_back(&self, left_out: LockedJobs) {
        if left_out.is_empty() {
            return;
        }
        let mut state = self.state();
        let mut accounts = HashSet::new();
        for (job, account_id) in left_out {
            if !accounts.insert(account_id) {
                job.renumber();
            }
            state.waiting.push(job);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Parks jobs behind accounts that another program has locked, and ends the lease of the batch that
    /// found the locks. Returns the new leases, and the jobs of further accounts if there are already
    /// `locks_max` accounts with foreign locks.
    pub fn park(
        self: &Arc<Self>,
        left_out: LockedJobs,
        mut batch: Option<DequeuedBatch>,
        locks_max: usize,
    ) -> (Vec<AccountLease>, Vec<Arc<Job>>) {
        let (mut leases, mut refused) = (Vec::new(), Vec::new());
        // In one step, so that no worker takes another job for such an account in between.
        let mut state = self.state();
        if let Some(batch) = &mut batch {
            batch.accounts.drain().for_each(|account_id| state.release(&account_id));
        }
        for (job, account_id) in left_out {
            job.start_wait(&account_id);
            if let Some(lease) = state.leased.get_mut(&account_id) {
                lease.parked.push(job);
            } else if state.foreign_locks < locks_max {
                state.foreign_locks += 1;
                let lease = Lease { has_foreign_lock: true, parked: vec![job] };
                state.leased.insert(account_id.clone(), lease);
                leases.push(AccountLease { account_id, queue: self.clone() });
            } else {
                refused.push(job);
            }
        }
        if !leases.is_empty() {
            // They came before those that will be parked as they arrive.
            let mut waiting = std::mem::take(&mut state.waiting);
            waiting.retain(|job| !state.park_if_locked(job));
            state.waiting = waiting;
        }
        drop(state);
        self.arrived.notify_one();
        (leases, refused)
    }

    /// Fails the jobs that have no time left, because all of them wait for the lock of the whole
    /// database.
    pub fn expire(&self) {
        let mut state = self.state();
        let State { waiting, leased, .. } = &mut *state;
        let mut gone = Vec::new();
        let mut keep = |job: &Arc<Job>| {
            let is_kept = !job.expire(DEADLINE_MARGIN);
            if !is_kept {
                gone.push(job.clone());
            }
            is_kept
        };
        waiting.retain(&mut keep);
        leased.values_mut().for_each(|lease| lease.parked.retain(&mut keep));
        drop(state);
        self.contention.end_waits(gone.iter());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// The first leased account of the job.
    fn leased_of(&self, job: &Job) -> Option<AccountId> {
        job.command.account_ids().find(|id| self.leased.contains_key(*id)).cloned()
    }

    /// Whether a batch takes this job now. A job that is behind an earlier one of its identity is left.
    fn decide(
        &mut self,
        job: &Arc<Job>,
        is_behind: bool,
        reserved: &mut HashSet<AccountId>,
    ) -> Decision {
        if self.park_if_locked(job) {
            return Decision::Remove;
        }
        let leased = self.leased_of(job);
        if let Some(account_id) = &leased {
            job.start_wait(account_id);
        }
        if let Some(lease) = leased.as_ref().and_then(|account_id| self.leased.get_mut(account_id))
            && job.command.has_one_account()
        {
            lease.parked.push(job.clone());
            return Decision::Remove;
        }
        if is_behind {
            return Decision::Leave;
        }
        let is_reserved = job.command.account_ids().any(|id| reserved.contains(id));
        if leased.is_none() && !is_reserved {
            return Decision::Take;
        }
        reserved.extend(job.command.account_ids().cloned());
        Decision::Leave
    }

    /// Parks a job behind an account of it that has a foreign lock, and returns whether one has: a
    /// foreign lock delays only the jobs that need that account.
    fn park_if_locked(&mut self, job: &Arc<Job>) -> bool {
        let is_locked =
            |id: &&AccountId| self.leased.get(*id).is_some_and(|it| it.has_foreign_lock);
        let Some(account_id) = job.command.account_ids().find(is_locked).cloned() else {
            return false;
        };
        job.start_wait(&account_id);
        self.leased.entry(account_id).or_default().parked.push(job.clone());
        true
    }

    /// Ends the lease of an account.
    fn release(&mut self, account_id: &AccountId) {
        let lease = self.leased.remove(account_id).unwrap_or_default();
        lease.parked.into_iter().for_each(|job| self.waiting.push(job));
    }
}

impl AccountLease {
    /// Keeps the parked jobs for which `is_kept` is true. Returns the earliest of their deadlines.
    pub fn retain(&self, is_kept: impl Fn(&Job) -> bool) -> Option<Instant> {
        let (gone, first) = self.parked(|jobs| {
            let gone: Vec<_> = jobs.extract_if(.., |job| !is_kept(job)).collect();
            (gone, jobs.iter().map(|job| job.deadline).min())
        });
        self.queue.contention.end_waits(gone.iter());
        first
    }

    /// Takes parked jobs, up to this cost. Their identities are charged in the queue of the others.
    pub fn take(&self, cost_max: CostMax) -> Vec<Arc<Job>> {
        let (uncharged, jobs) = self.parked(|parked| {
            let uncharged: Vec<_> = parked.iter().filter(|it| !it.is_charged()).cloned().collect();
            let mut waiting = FairQueue::default();
            parked.drain(..).for_each(|job| waiting.push(job));
            let taken = waiting.take(cost_max, |_, _| Decision::Take);
            parked.extend(waiting.into_jobs());
            (uncharged, taken.jobs)
        });
        let mut state = self.queue.state();
        for job in uncharged.iter().filter(|it| it.is_charged()) {
            state.waiting.charge(&job.identity, job.command.cost());
        }
        drop(state);
        self.queue.contention.end_waits(jobs.iter());
        jobs
    }

    /// Runs `act` on the parked jobs.
    fn parked<T>(&self, act: impl FnOnce(&mut Vec<Arc<Job>>) -> T) -> T {
        match self.queue.state().leased.get_mut(&self.account_id) {
            Some(lease) => act(&mut lease.parked),
            None => act(&mut Vec::new()),
        }
    }
}

impl Drop for AccountLease {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.foreign_locks -= 1;
        state.release(&self.account_id);
        drop(state);
        self.queue.arrived.notify_one();
    }
}

impl Drop for BusyWorker<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DequeuedBatch {
    /// Takes the jobs that need only these accounts, which the batch has locked, as far as they fit. They
    /// have arrived since the batch was taken, and join it. A job that needs an account that did not
    /// exist when the batch locked its rows does not join: another server may have opened it since.
    pub fn join(&self, locked: &[Account]) -> Vec<Arc<Job>> {
        if self.costs.sum() >= self.cost_max.of_all {
            return Vec::new();
        }
        let locked: HashSet<_> = locked.iter().map(|account| &account.account_id).collect();
        let mut state = self.queue.state();
        let State { waiting, leased, .. } = &mut *state;
        for account_id in &self.accounts {
            if let Some(lease) = leased.get_mut(account_id) {
                lease.parked.drain(..).for_each(|job| waiting.push(job));
            }
        }
        let mut joined = waiting.take_more(&self.costs, self.cost_max, |job, is_behind| {
            let can_join = !is_behind && job.command.account_ids().all(|id| locked.contains(id));
            if can_join { Decision::Take } else { Decision::Leave }
        });
        drop(state);
        self.queue.contention.end_waits(joined.iter());
        joined.retain(|job| job.has_waiter());
        joined
    }

    /// Ends the lease and puts the jobs back into the queue, to the places that they had, for another
    /// attempt. Fails those that have no time for it.
    pub fn put_back_in_time(self, mut jobs: Vec<Arc<Job>>) {
        jobs.retain(|job| !job.expire(DEADLINE_MARGIN));
        self.put_back(jobs);
    }

    /// Ends the lease and puts the jobs back into the queue, to the places that they had.
    pub fn put_back(mut self, jobs: Vec<Arc<Job>>) {
        let mut state = self.queue.state();
        self.accounts.drain().for_each(|account_id| state.release(&account_id));
        jobs.into_iter().for_each(|job| state.waiting.push(job));
    }
}

impl Drop for DequeuedBatch {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        self.accounts.drain().for_each(|account_id| state.release(&account_id));
        drop(state);
        self.queue.arrived.notify_one();
    }
}
