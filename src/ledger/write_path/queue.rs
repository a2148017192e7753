//! The queue of jobs that wait for a worker.
//!
//! Workers of one process would wait for each other's row locks, so an account of a running batch is
//! *busy*: jobs that need it are parked until it is released, and then come first, or they join the
//! batch. This is about speed only. Correctness rests on the row lock in the database, which other
//! processes take, too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::{
    domain::{account::Account, ids::AccountId},
    ledger::{
        metrics::contention::Contention,
        write_path::{job::Job, transaction::LockedJobs},
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
    /// Jobs of several accounts, one of which was busy. They come first, and reserve their other
    /// accounts until they are taken: two accounts that are never free at the same moment would
    /// otherwise starve a transfer between them.
    multi_account: VecDeque<Arc<Job>>,
    ready: VecDeque<Arc<Job>>,
    /// Accounts of running batches, and leased ones.
    busy: HashMap<AccountId, BusyAccount>,
    leases: usize,
}

/// An account of a running batch, or a leased one.
#[derive(Default)]
struct BusyAccount {
    is_leased: bool,
    /// Jobs that wait for it: all that need it if it is leased, otherwise those that need no other
    /// account. They are older than all ready jobs.
    parked: Vec<Arc<Job>>,
}

/// The jobs of one batch. Their accounts are released when it is dropped.
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
        let busy = state.busy_of(&job);
        if let Some(account_id) = &busy {
            job.start_wait(account_id);
        }
        // Also if its account is busy with a batch: other jobs may have come before it.
        if let Some(job) = state.park_if_leased(job) {
            state.ready.push_back(job);
        }
        drop(state);
        if busy.is_none() {
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
        waiting.any(|job| !job.command.account_ids().any(|id| state.busy.contains_key(id)))
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
            let Some(job) = state.park_if_leased(job) else { continue };
            let is_busy = state.busy_of(&job).is_some();
            let is_reserved = job.command.account_ids().any(|id| reserved.contains(id));
            if !is_busy && !is_reserved {
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
        let busy = |account_id: &AccountId| (account_id.clone(), BusyAccount::default());
        state.busy.extend(accounts.iter().map(busy));
        drop(state);
        self.contention.end_waits(jobs.iter().chain(&given_up));
        if is_full {
            // The rest is for another worker.
            self.arrived.notify_one();
        }
        Some(DequeuedBatch { jobs, queue: self.clone(), accounts })
    }

    /// Parks jobs behind accounts that another program has locked, and releases the accounts of the
    /// batch that found the locks. Returns the newly leased accounts, and the jobs that would need more
    /// than `leases_max` leases.
    pub fn park(
        &self,
        left_out: LockedJobs,
        batch: Option<&mut DequeuedBatch>,
        leases_max: usize,
    ) -> (Vec<AccountId>, Vec<Arc<Job>>) {
        let (mut leased, mut refused) = (Vec::new(), Vec::new());
        // In one step, so that no worker takes another job for such an account in between.
        let mut state = self.state();
        if let Some(batch) = batch {
            batch.accounts.drain().for_each(|account_id| state.release(&account_id));
        }
        for (job, account_id) in left_out {
            job.start_wait(&account_id);
            if let Some(busy) = state.busy.get_mut(&account_id) {
                busy.parked.push(job);
            } else if state.leases < leases_max {
                state.leases += 1;
                let busy = BusyAccount { is_leased: true, parked: vec![job] };
                state.busy.insert(account_id.clone(), busy);
                leased.push(account_id);
            } else {
                refused.push(job);
            }
        }
        drop(state);
        self.arrived.notify_one();
        (leased, refused)
    }

    /// Runs `act` on the jobs that are parked behind an account.
    pub fn parked<T>(
        &self,
        account_id: &AccountId,
        act: impl FnOnce(&mut Vec<Arc<Job>>) -> T,
    ) -> T {
        match self.state().busy.get_mut(account_id) {
            Some(busy) => act(&mut busy.parked),
            None => act(&mut Vec::new()),
        }
    }

    /// Ends the lease of an account.
    pub fn end_lease(&self, account_id: &AccountId) {
        let mut state = self.state();
        state.leases -= 1;
        state.release(account_id);
        self.arrived.notify_one();
    }

    /// Fails the jobs that have no time left, because all of them wait for the lock of the whole
    /// database.
    pub fn expire(&self) {
        let mut state = self.state();
        let State { multi_account, ready, busy, .. } = &mut *state;
        let mut gone = Vec::new();
        let mut keep = |job: &Arc<Job>| {
            let is_kept = !job.expire();
            if !is_kept {
                gone.push(job.clone());
            }
            is_kept
        };
        multi_account.retain(&mut keep);
        ready.retain(&mut keep);
        busy.values_mut().for_each(|busy| busy.parked.retain(&mut keep));
        drop(state);
        self.contention.end_waits(gone.iter());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// An account of the job that is busy.
    fn busy_of(&self, job: &Job) -> Option<AccountId> {
        job.command.account_ids().find(|id| self.busy.contains_key(*id)).cloned()
    }

    /// Parks a job behind a leased account of it, or returns the job if none is leased: a foreign lock
    /// delays only the jobs that need that account.
    fn park_if_leased(&mut self, job: Arc<Job>) -> Option<Arc<Job>> {
        let mut account_ids = job.command.account_ids();
        let leased =
            account_ids.find(|id| self.busy.get(*id).is_some_and(|it| it.is_leased)).cloned();
        drop(account_ids);
        let Some(account_id) = leased else { return Some(job) };
        job.start_wait(&account_id);
        match self.busy.get_mut(&account_id) {
            Some(busy) => {
                busy.parked.push(job);
                None
            }
            None => Some(job),
        }
    }

    /// Keeps a job until its accounts are free.
    fn set_aside(&mut self, job: Arc<Job>) {
        let account_id = self.busy_of(&job);
        if let Some(account_id) = &account_id {
            job.start_wait(account_id);
        }
        if !job.command.has_one_account() {
            self.multi_account.push_back(job);
        } else if let Some(busy) = account_id.and_then(|id| self.busy.get_mut(&id)) {
            busy.parked.push(job);
        } else {
            self.ready.push_back(job);
        }
    }

    /// Releases an account. Its parked jobs come first: they are older than the ready ones.
    fn release(&mut self, account_id: &AccountId) {
        let parked = self.busy.remove(account_id).unwrap_or_default().parked;
        for job in parked.into_iter().rev() {
            self.ready.push_front(job);
        }
    }
}

impl DequeuedBatch {
    /// Takes, up to this cost, the jobs that need only these accounts, which the batch has locked. They
    /// have arrived since the batch was taken, and join it. A job that needs an account that did not
    /// exist when the batch locked its rows does not join: another server may have opened it since.
    pub fn join(&self, locked: &[Account], cost_max: usize) -> Vec<Arc<Job>> {
        let mut state = self.queue.state();
        let State { multi_account, ready, busy, .. } = &mut *state;
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
            if let Some(busy) = busy.get_mut(account_id) {
                busy.parked.retain(|job| !joins(job));
            }
        }
        ready.retain(|job| !joins(job));
        drop(state);
        self.queue.contention.end_waits(joined.iter());
        joined.retain(|job| job.has_waiter());
        joined
    }

    /// Releases the accounts and puts the jobs back at the front.
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
