//! Where jobs wait for a worker.
//!
//! Several workers of a process would wait for each other's row locks, so an account that one
//! batch changes is *busy*: jobs that need it stand aside until it is released, and then come
//! first. This is about speed only. What keeps changes apart is the lock in the database,
//! which other processes take too.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    domain::ids::AccountId,
    ledger::{contention::Contention, job::Job},
};

/// The jobs of a process that wait.
#[derive(Default)]
pub struct Line {
    state: Mutex<State>,
    arrived: Notify,
    /// Which accounts jobs have waited for.
    pub contention: Contention,
}

#[derive(Default)]
struct State {
    /// Jobs of several accounts of which one was busy. They come first, and until they are taken
    /// nobody else gets the others of their accounts: or two accounts that are never free at the
    /// same moment would keep a transfer between them waiting for ever.
    several: VecDeque<Arc<Job>>,
    ready: VecDeque<Arc<Job>>,
    /// Accounts that a batch or a lane has.
    busy: HashMap<AccountId, Busy>,
    lanes: usize,
}

/// An account that a batch or a lane has.
#[derive(Default)]
struct Busy {
    has_lane: bool,
    /// Jobs that wait for it: all that need it if it has a lane, otherwise those that need no
    /// other account. They are older than all that is ready.
    aside: Vec<Arc<Job>>,
}

/// Jobs for one batch. Their accounts are released when it is dropped, however that happens.
pub struct Taken {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    line: Arc<Line>,
    accounts: HashSet<AccountId>,
}

impl Line {
    /// Puts a job at the end.
    pub fn push(&self, job: Arc<Job>) {
        let mut state = self.state();
        // If nobody can take it now, nobody is woken.
        let busy = state.busy_of(&job);
        if let Some(account_id) = &busy {
            job.block(account_id);
        }
        // Also where it could stand aside for a batch: others may have come before it.
        if let Some(job) = state.leave_to_lane(job) {
            state.ready.push_back(job);
        }
        drop(state);
        if busy.is_none() {
            self.arrived.notify_one();
        }
    }

    /// Takes all jobs whose accounts are not busy, up to this weight, or one that is heavier by
    /// itself. Waits until there is one.
    pub async fn take(self: &Arc<Self>, weight_max: usize) -> Taken {
        loop {
            if let Some(taken) = self.try_take(weight_max) {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>, weight_max: usize) -> Option<Taken> {
        let mut state = self.state();
        let (mut jobs, mut accounts, mut weight) = (Vec::new(), HashSet::new(), 0);
        let mut given_up = Vec::new();
        let mut reserved = HashSet::new();
        let mut queue = std::mem::take(&mut state.several);
        queue.append(&mut state.ready);
        while let Some(job) = queue.pop_front() {
            // Whoever was given up must not hold up others.
            if !job.is_wanted() {
                given_up.push(job);
                continue;
            }
            let Some(job) = state.leave_to_lane(job) else { continue };
            let is_busy = state.busy_of(&job).is_some();
            let is_reserved = job.command.account_ids().any(|id| reserved.contains(id));
            if !is_busy && !is_reserved {
                weight += job.command.weight();
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
            return None;
        }
        let busy = |account_id: &AccountId| (account_id.clone(), Busy::default());
        state.busy.extend(accounts.iter().map(busy));
        drop(state);
        self.contention.end_waits(jobs.iter().chain(&given_up));
        if is_full {
            // What did not fit is for another worker.
            self.arrived.notify_one();
        }
        Some(Taken { jobs, line: self.clone(), accounts })
    }

    /// Lets jobs stand aside for accounts that someone else holds, after the batch that found
    /// them has released its own. Returns the accounts that are to have a lane, and the jobs for
    /// which there would be too many.
    pub fn park(
        &self,
        held: Vec<(Arc<Job>, AccountId)>,
        batch: Option<&mut Taken>,
        lanes_max: usize,
    ) -> (Vec<AccountId>, Vec<Arc<Job>>) {
        let (mut lanes, mut refused) = (Vec::new(), Vec::new());
        // In one step: nobody is to take another job for such an account in between.
        let mut state = self.state();
        if let Some(batch) = batch {
            batch.accounts.drain().for_each(|account_id| state.release(&account_id));
        }
        for (job, account_id) in held {
            job.block(&account_id);
            if let Some(busy) = state.busy.get_mut(&account_id) {
                busy.aside.push(job);
            } else if state.lanes < lanes_max {
                state.lanes += 1;
                let busy = Busy { has_lane: true, aside: vec![job] };
                state.busy.insert(account_id.clone(), busy);
                lanes.push(account_id);
            } else {
                refused.push(job);
            }
        }
        drop(state);
        self.arrived.notify_one();
        (lanes, refused)
    }

    /// Does something with the jobs that stand aside for an account.
    pub fn aside<T>(&self, account_id: &AccountId, act: impl FnOnce(&mut Vec<Arc<Job>>) -> T) -> T {
        match self.state().busy.get_mut(account_id) {
            Some(busy) => act(&mut busy.aside),
            None => act(&mut Vec::new()),
        }
    }

    /// Ends the lane of an account.
    pub fn close_lane(&self, account_id: &AccountId) {
        let mut state = self.state();
        state.lanes -= 1;
        state.release(account_id);
        self.arrived.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An account of the job that is busy.
    fn busy_of(&self, job: &Job) -> Option<AccountId> {
        job.command.account_ids().find(|id| self.busy.contains_key(*id)).cloned()
    }

    /// Gives a job to the lane of one of its accounts, or gives it back if none has one: someone
    /// else's lock must hold up nobody but those who need that account.
    fn leave_to_lane(&mut self, job: Arc<Job>) -> Option<Arc<Job>> {
        let mut account_ids = job.command.account_ids();
        let held = account_ids.find(|id| self.busy.get(*id).is_some_and(|it| it.has_lane)).cloned();
        drop(account_ids);
        let Some(account_id) = held else { return Some(job) };
        job.block(&account_id);
        match self.busy.get_mut(&account_id) {
            Some(lane) => {
                lane.aside.push(job);
                None
            }
            None => Some(job),
        }
    }

    /// Keeps a job until its accounts are free.
    fn set_aside(&mut self, job: Arc<Job>) {
        let account_id = self.busy_of(&job);
        if let Some(account_id) = &account_id {
            job.block(account_id);
        }
        if !job.command.has_one_account() {
            self.several.push_back(job);
        } else if let Some(busy) = account_id.and_then(|id| self.busy.get_mut(&id)) {
            busy.aside.push(job);
        } else {
            self.ready.push_back(job);
        }
    }

    /// Those who stood aside have waited longer than all who came since.
    fn release(&mut self, account_id: &AccountId) {
        let aside = self.busy.remove(account_id).unwrap_or_default().aside;
        for job in aside.into_iter().rev() {
            self.ready.push_front(job);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.line.state();
        self.accounts.drain().for_each(|account_id| state.release(&account_id));
        drop(state);
        self.line.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::Semaphore, time::Instant};

    use super::*;
    use crate::{
        domain::{
            account::Labels,
            command::{Action, Command, Condition, Leg, Request},
            ids::{RequestId, RequestKey},
            money::Currencies,
            transaction::TransactionKind,
        },
        ledger::job,
    };

    fn id(account_id: &str) -> AccountId {
        AccountId::parse(account_id).unwrap()
    }

    /// A job of these accounts, one letter each.
    fn job(account_ids: &str) -> Arc<Job> {
        let currency = Currencies::default().get("USD").unwrap();
        let leg = |account_id: char| Leg {
            account_id: id(&account_id.to_string()),
            amount: currency.parse("1").unwrap(),
            currency: currency.clone(),
            condition: Condition::default(),
        };
        let command = Command::Request(Arc::new(Request {
            key: RequestKey { caller: "".into(), request_id: RequestId::parse("r").unwrap() },
            transaction_id: uuid::Uuid::now_v7(),
            action: Action::Post(TransactionKind::Posting, account_ids.chars().map(leg).collect()),
            description: String::new(),
            labels: Labels::new(),
            validate_only: false,
        }));
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (job, ticket) = job::new(command, Instant::now() + Duration::from_secs(9), place);
        // Someone waits for it as long as the test runs.
        std::mem::forget(ticket);
        job
    }

    fn line(account_ids: &str) -> Arc<Line> {
        let line = Arc::new(Line::default());
        account_ids.chars().for_each(|account_id| line.push(job(&account_id.to_string())));
        line
    }

    /// The accounts of jobs, one letter each.
    fn letters(jobs: &[Arc<Job>]) -> String {
        jobs.iter().flat_map(|job| job.command.account_ids()).map(AccountId::as_str).collect()
    }

    async fn take(line: &Arc<Line>, weight_max: usize) -> Taken {
        tokio::time::timeout(Duration::from_secs(5), line.take(weight_max)).await.unwrap()
    }

    #[tokio::test]
    async fn jobs_of_a_busy_account_stand_aside_and_then_come_first() {
        let line = line("aab");
        let first = take(&line, 10).await;
        assert_eq!(letters(&first.jobs), "aab");
        "abcac".chars().for_each(|account_id| line.push(job(&account_id.to_string())));
        let second = take(&line, 10).await;
        assert_eq!(letters(&second.jobs), "cc");
        line.push(job("d"));
        drop(first);
        let third = take(&line, 10).await;
        let mut third = letters(&third.jobs);
        assert_eq!(third.pop(), Some('d'));
        assert_eq!(third.matches('a').count(), 2, "{third}");
        assert_eq!(third.len(), 3, "{third}");
    }

    #[tokio::test]
    async fn a_transfer_between_two_accounts_that_are_never_free_together_is_not_starved() {
        let line = line("x");
        let mut held = vec![take(&line, 10).await];
        line.push(job("y"));
        held.push(take(&line, 10).await);
        line.push(job("xy"));
        // Each batch ends while the other goes on, and there are always more jobs for both.
        for round in 0..10 {
            "xxyyz".chars().for_each(|account_id| line.push(job(&account_id.to_string())));
            drop(held.remove(0));
            let next = take(&line, 10).await;
            if letters(&next.jobs).contains("xy") {
                assert!(round > 0, "y was not free");
                return;
            }
            held.push(next);
        }
        panic!("the transfer was never taken");
    }

    #[tokio::test]
    async fn a_lock_held_elsewhere_holds_up_only_those_who_need_that_account() {
        let line = line("x");
        let mut batch = take(&line, 10).await;
        let held = vec![(batch.jobs[0].clone(), id("x"))];
        line.park(held, Some(&mut batch), 1);
        ["xy", "y"].into_iter().for_each(|account_ids| line.push(job(account_ids)));
        let next = take(&line, 10).await;
        assert_eq!(letters(&next.jobs), "y");
        assert_eq!(line.aside(&id("x"), |jobs| letters(jobs)), "xxy");
    }

    #[tokio::test]
    async fn a_job_that_was_given_up_is_forgotten() {
        let line = line("");
        let given_up = job("xy");
        given_up.give_up(crate::ledger::Failure::LockTimeout);
        line.push(given_up);
        line.push(job("y"));
        let next = take(&line, 10).await;
        assert_eq!(letters(&next.jobs), "y");
    }

    #[tokio::test]
    async fn nobody_is_overtaken_by_jobs_of_the_same_account_that_came_later() {
        let line = Arc::new(Line::default());
        let jobs: Vec<_> = (0..6).map(|_| job("a")).collect();
        jobs[..4].iter().for_each(|it| line.push(it.clone()));
        for (index, later) in [4, 5, 5].into_iter().enumerate() {
            let batch = take(&line, 2).await;
            assert!(Arc::ptr_eq(&batch.jobs[0], &jobs[2 * index]), "batch {index}");
            if index < 2 {
                line.push(jobs[later].clone());
            }
        }
    }

    #[tokio::test]
    async fn a_batch_has_a_weight_and_what_is_left_is_taken_by_another() {
        let line = line("abc");
        let first = take(&line, 2).await;
        assert_eq!(letters(&first.jobs), "ab");
        let second = take(&line, 2).await;
        assert_eq!(letters(&second.jobs), "c");
    }

    #[tokio::test]
    async fn whoever_is_left_to_a_lane_waits_for_its_account() {
        let line = line("aab");
        let mut first = take(&line, 1).await;
        let held = vec![(first.jobs.remove(0), id("a"))];
        line.park(held, Some(&mut first), 1);
        assert_eq!(letters(&take(&line, 10).await.jobs), "b");
        let waits =
            line.aside(&id("a"), |jobs| jobs.iter().filter_map(|job| job.unblock()).count());
        assert_eq!(waits, 2, "the one that found the lock, and the one that came after it");
    }

    #[tokio::test]
    async fn an_account_held_elsewhere_stays_busy_until_its_lane_is_closed() {
        let line = line("ab");
        let mut batch = take(&line, 10).await;
        line.push(job("a"));
        let held = vec![(batch.jobs[0].clone(), id("a"))];
        let (lanes, refused) = line.park(held, Some(&mut batch), 1);
        assert_eq!((lanes, refused.len()), (vec![id("a")], 0));
        // b is free again, a is not.
        "ab".chars().for_each(|account_id| line.push(job(&account_id.to_string())));
        let next = take(&line, 10).await;
        assert_eq!(letters(&next.jobs), "b");
        assert_eq!(line.aside(&id("a"), |jobs| letters(jobs)), "aaa");
        let (lanes, refused) = line.park(vec![(job("c"), id("c"))], None, 1);
        assert_eq!((lanes.len(), refused.len()), (0, 1), "there is one lane already");
        line.close_lane(&id("a"));
        let last = take(&line, 10).await;
        assert_eq!(letters(&last.jobs), "aaa");
    }
}
