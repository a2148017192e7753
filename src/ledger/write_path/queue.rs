//! Where jobs wait for a worker.
//!
//! Several workers of a process would wait for each other's row locks, so an account that one
//! batch changes is *busy*: jobs that need it stand parked until it is released, and then come
//! first, or they join the batch. This is about speed only. What keeps changes apart is the lock in the database,
//! which other processes take too.

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

/// The jobs of a process that wait.
#[derive(Default)]
pub struct CommandQueue {
    state: Mutex<State>,
    arrived: Notify,
    /// Which accounts jobs have waited for.
    pub contention: Contention,
}

#[derive(Default)]
struct State {
    /// Jobs of multi_account accounts of which one was busy. They come first, and until they are taken
    /// nobody else gets the others of their accounts: or two accounts that are never free at the
    /// same moment would keep a transfer between them waiting for ever.
    multi_account: VecDeque<Arc<Job>>,
    ready: VecDeque<Arc<Job>>,
    /// Accounts that a batch has, or that are leased.
    busy: HashMap<AccountId, BusyAccount>,
    leases: usize,
}

/// An account that a batch has, or that is leased.
#[derive(Default)]
struct BusyAccount {
    is_leased: bool,
    /// Jobs that wait for it: all that need it if it is leased, otherwise those that need no
    /// other account. They are older than all that is ready.
    parked: Vec<Arc<Job>>,
}

/// Jobs for one batch. Their accounts are released when it is dropped, however that happens.
pub struct DequeuedBatch {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    queue: Arc<CommandQueue>,
    accounts: HashSet<AccountId>,
}

impl CommandQueue {
    /// Puts a job at the end.
    pub fn enqueue(&self, job: Arc<Job>) {
        let mut state = self.state();
        // If nobody can take it now, nobody is woken.
        let busy = state.busy_of(&job);
        if let Some(account_id) = &busy {
            job.start_wait(account_id);
        }
        // Also where its account is busy with a batch: others may have come before it.
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

    /// Whether there is a job whose accounts are free. It cannot be taken nevertheless if one of
    /// them is reserved.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        let mut waiting = state.multi_account.iter().chain(&state.ready);
        waiting.any(|job| !job.command.account_ids().any(|id| state.busy.contains_key(id)))
    }

    /// Waits until a job has come or an account was released.
    pub async fn changed(&self) {
        self.arrived.notified().await;
    }

    /// Takes all jobs whose accounts are not busy, up to this weight, or one that is heavier by
    /// itself.
    pub fn try_dequeue(self: &Arc<Self>, weight_max: usize) -> Option<DequeuedBatch> {
        let mut state = self.state();
        let (mut jobs, mut accounts, mut weight) = (Vec::new(), HashSet::new(), 0);
        let mut given_up = Vec::new();
        let mut reserved = HashSet::new();
        let mut queue = std::mem::take(&mut state.multi_account);
        queue.append(&mut state.ready);
        while let Some(job) = queue.pop_front() {
            // Whoever was given up must not hold up others.
            if !job.has_waiter() {
                given_up.push(job);
                continue;
            }
            let Some(job) = state.park_if_leased(job) else { continue };
            let is_busy = state.busy_of(&job).is_some();
            let is_reserved = job.command.account_ids().any(|id| reserved.contains(id));
            if !is_busy && !is_reserved {
                weight += job.command.cost();
                if weight > weight_max && !jobs.is_empty() {
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
            // What did not fit is for another worker.
            self.arrived.notify_one();
        }
        Some(DequeuedBatch { jobs, queue: self.clone(), accounts })
    }

    /// Parks jobs behind accounts that another program has locked, after the batch that found
    /// them has released its own. Returns the accounts that are leased from now on, and the jobs
    /// for which there would be too many leases.
    pub fn park(
        &self,
        left_out: LockedJobs,
        batch: Option<&mut DequeuedBatch>,
        leases_max: usize,
    ) -> (Vec<AccountId>, Vec<Arc<Job>>) {
        let (mut leased, mut refused) = (Vec::new(), Vec::new());
        // In one step: nobody is to take another job for such an account in between.
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

    /// Answers the jobs that have no time left: the lock of the whole database was not had, for
    /// which all of them wait.
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

    /// Parks a job behind one of its accounts that is leased, or gives it back if none is: a lock of
    /// another program delays only the jobs that need that account.
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

    /// Those who stood parked have waited longer than all who came since.
    fn release(&mut self, account_id: &AccountId) {
        let parked = self.busy.remove(account_id).unwrap_or_default().parked;
        for job in parked.into_iter().rev() {
            self.ready.push_front(job);
        }
    }
}

impl DequeuedBatch {
    /// Takes, up to this weight, the jobs that need only these accounts, which the batch has locked:
    /// they have come since it was taken, and join it. A job does not join for an account that did
    /// not exist when the batch locked its rows: another server may have opened it since.
    pub fn join(&self, locked: &[Account], weight_max: usize) -> Vec<Arc<Job>> {
        let mut state = self.queue.state();
        let State { multi_account, ready, busy, .. } = &mut *state;
        let locked: HashSet<_> = locked.iter().map(|account| &account.account_id).collect();
        let (mut joined, mut weight) = (Vec::new(), 0);
        // Accounts of jobs that stay in the queue: a later job must not overtake them.
        let accounts = multi_account.iter().flat_map(|job| job.command.account_ids());
        let mut passed: HashSet<AccountId> = accounts.cloned().collect();
        let mut joins = |job: &Arc<Job>| {
            let fits = weight + job.command.cost() <= weight_max;
            let can = |id| locked.contains(id) && !passed.contains(id);
            if fits && job.command.account_ids().all(can) {
                weight += job.command.cost();
                joined.push(job.clone());
                return true;
            }
            let ours = job.command.account_ids().filter(|id| locked.contains(*id));
            passed.extend(ours.cloned());
            false
        };
        // Those who stand parked came first.
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

    /// Releases the accounts, and puts jobs of the batch back: they come first again.
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
