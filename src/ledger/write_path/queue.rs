//! The queue of jobs that wait for a worker.
//!
//! Workers of one process would wait for each other's row locks. So a batch leases its accounts: jobs
//! that need one of them are parked until the lease ends, and then come first, or they join the batch.
//! This is about speed only. Correctness rests on the row lock in the database, which other processes
//! take, too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::{account::Account, ids::AccountId},
    ledger::{
        metrics::contention::Contention,
        write_path::{
            job::{DEADLINE_MARGIN, Job},
            transaction::LockedJobs,
        },
    },
    lock::lock,
};

/// The waiting jobs of a process.
#[derive(Default)]
pub struct CommandQueue {
    state: Mutex<State>,
    arrived: Notify,
    /// The accounts for which jobs have waited.
    pub contention: Contention,
}

#[derive(Default)]
struct State {
    /// Jobs of several accounts, one of which was leased. They come first, and reserve their other
    /// accounts until they are taken: two accounts that are never free at the same moment would
    /// otherwise starve a transfer between them.
    multi_account: VecDeque<Arc<Job>>,
    ready: VecDeque<Arc<Job>>,
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
    /// need no other account. They are older than all ready jobs.
    parked: Vec<Arc<Job>>,
}

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
}

impl CommandQueue {
    /// Appends a job.
    pub fn enqueue(&self, job: Arc<Job>) {
        let mut state = self.state();
        // A job that no worker can take now wakes none.
        let leased = state.leased_of(&job);
        if let Some(account_id) = &leased {
            job.start_wait(account_id);
        }
        // Also if a batch uses its account: other jobs may have come before it.
        if let Some(job) = state.park_if_locked(job) {
            state.ready.push_back(job);
        }
        drop(state);
        if leased.is_none() {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is a job whose accounts are free.
    pub async fn ready(&self) {
        while !self.is_ready() {
            self.arrived.notified().await;
        }
    }

    /// Whether there is a job whose accounts are free. It may still be reserved for an older job.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        let mut waiting = state.multi_account.iter().chain(&state.ready);
        waiting.any(|job| !job.command.account_ids().any(|id| state.leased.contains_key(id)))
    }

    /// Waits until a job arrives or an account is released.
    pub async fn changed(&self) {
        self.arrived.notified().await;
    }

    /// Takes all jobs whose accounts are free, up to this cost, or one larger job by itself.
    pub fn try_dequeue(self: &Arc<Self>, cost_max: usize) -> Option<DequeuedBatch> {
        let mut state = self.state();
        let (mut jobs, mut accounts, mut cost) = (Vec::new(), HashSet::new(), 0);
        let mut given_up = Vec::new();
        let mut reserved = HashSet::new();
        let mut queue = std::mem::take(&mut state.multi_account);
        queue.append(&mut state.ready);
        while let Some(job) = queue.pop_front() {
            // An abandoned job must not delay others.
            if !job.has_waiter() {
                given_up.push(job);
                continue;
            }
            let Some(job) = state.park_if_locked(job) else { continue };
            let is_leased = state.leased_of(&job).is_some();
            let is_reserved = job.command.account_ids().any(|id| reserved.contains(id));
            if !is_leased && !is_reserved {
                cost += job.command.cost();
                if cost > cost_max && !jobs.is_empty() {
                    queue.push_front(job);
                    break;
                }
                accounts.extend(job.command.account_ids().cloned());
                jobs.push(job);
            } else {
                if !job.command.has_one_account() {
                    reserved.extend(job.command.account_ids().cloned());
                }
                state.set_aside(job);
            }
        }
        let is_full = !queue.is_empty();
        state.ready.append(&mut queue);
        if jobs.is_empty() {
            drop(state);
            self.contention.end_waits(given_up.iter());
            return None;
        }
        let lease = |account_id: &AccountId| (account_id.clone(), Lease::default());
        state.leased.extend(accounts.iter().map(lease));
        drop(state);
        self.contention.end_waits(jobs.iter().chain(&given_up));
        if is_full {
            // The rest is for another worker.
            self.arrived.notify_one();
        }
        Some(DequeuedBatch { jobs, queue: self.clone(), accounts })
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
        drop(state);
        self.arrived.notify_one();
        (leases, refused)
    }

    /// Fails the jobs that have no time left, because all of them wait for the lock of the whole
    /// database.
    pub fn expire(&self) {
        let mut state = self.state();
        let State { multi_account, ready, leased, .. } = &mut *state;
        let mut gone = Vec::new();
        let mut keep = |job: &Arc<Job>| {
            let is_kept = !job.expire(DEADLINE_MARGIN);
            if !is_kept {
                gone.push(job.clone());
            }
            is_kept
        };
        multi_account.retain(&mut keep);
        ready.retain(&mut keep);
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

    /// Parks a job behind an account of it that has a foreign lock, or returns the job if none has: a
    /// foreign lock delays only the jobs that need that account.
    fn park_if_locked(&mut self, job: Arc<Job>) -> Option<Arc<Job>> {
        let is_locked =
            |id: &&AccountId| self.leased.get(*id).is_some_and(|it| it.has_foreign_lock);
        let locked = job.command.account_ids().find(is_locked).cloned();
        let Some(account_id) = locked else { return Some(job) };
        job.start_wait(&account_id);
        self.leased.entry(account_id).or_default().parked.push(job);
        None
    }

    /// Keeps a job until its accounts are free.
    fn set_aside(&mut self, job: Arc<Job>) {
        let account_id = self.leased_of(&job);
        if let Some(account_id) = &account_id {
            job.start_wait(account_id);
        }
        if !job.command.has_one_account() {
            self.multi_account.push_back(job);
        } else if let Some(lease) = account_id.and_then(|id| self.leased.get_mut(&id)) {
            lease.parked.push(job);
        } else {
            self.ready.push_back(job);
        }
    }

    /// Ends the lease of an account. Its parked jobs come first: they are older than the ready ones.
    fn release(&mut self, account_id: &AccountId) {
        let parked = self.leased.remove(account_id).unwrap_or_default().parked;
        for job in parked.into_iter().rev() {
            self.ready.push_front(job);
        }
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

    /// Takes the first parked jobs, up to this cost, or one larger job by itself.
    pub fn take(&self, cost_max: usize) -> Vec<Arc<Job>> {
        let mut cost = 0;
        let jobs: Vec<_> = self.parked(|jobs| {
            let fits = jobs.iter().take_while(|job| {
                cost += job.command.cost();
                cost <= cost_max
            });
            let count = fits.count().max(1).min(jobs.len());
            jobs.drain(..count).collect()
        });
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

impl DequeuedBatch {
    /// Takes, up to this cost, the jobs that need only these accounts, which the batch has locked. They
    /// have arrived since the batch was taken, and join it. A job that needs an account that did not
    /// exist when the batch locked its rows does not join: another server may have opened it since.
    pub fn join(&self, locked: &[Account], cost_max: usize) -> Vec<Arc<Job>> {
        let mut state = self.queue.state();
        let State { multi_account, ready, leased, .. } = &mut *state;
        let locked: HashSet<_> = locked.iter().map(|account| &account.account_id).collect();
        let (mut joined, mut cost) = (Vec::new(), 0);
        // Accounts of jobs that stay in the queue: a later job must not overtake these.
        let accounts = multi_account.iter().flat_map(|job| job.command.account_ids());
        let mut passed: HashSet<AccountId> = accounts.cloned().collect();
        let mut joins = |job: &Arc<Job>| {
            let fits = cost + job.command.cost() <= cost_max;
            let can = |id| locked.contains(id) && !passed.contains(id);
            if fits && job.command.account_ids().all(can) {
                cost += job.command.cost();
                joined.push(job.clone());
                return true;
            }
            let ours = job.command.account_ids().filter(|id| locked.contains(*id));
            passed.extend(ours.cloned());
            false
        };
        // Parked jobs came first.
        for account_id in &self.accounts {
            if let Some(lease) = leased.get_mut(account_id) {
                lease.parked.retain(|job| !joins(job));
            }
        }
        ready.retain(|job| !joins(job));
        drop(state);
        self.queue.contention.end_waits(joined.iter());
        joined.retain(|job| job.has_waiter());
        joined
    }

    /// Ends the lease and puts the jobs back at the front of the queue.
    pub fn put_back(mut self, jobs: Vec<Arc<Job>>) {
        let mut state = self.queue.state();
        self.accounts.drain().for_each(|account_id| state.release(&account_id));
        for job in jobs.into_iter().rev() {
            state.ready.push_front(job);
        }
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
