//! Waiting jobs, fair over identities.
//!
//! Each identity has a queue of its own, and the next job comes from the identity of which the least
//! cost was taken. So an identity with one job does not wait for the thousands of another one.
//! (Start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996.)
//!
//! The jobs of an identity wait in the order of their arrival, also those that were parked or put back
//! meanwhile (not those that come a second time: whose rows another server had locked, or all but the first of an
//! account with more expired holds than a transaction records). A job that has
//! to stay keeps back all later ones of its identity that need one of its accounts. Between
//! identities there is no order.
//!
//! Costs count for as long as an identity has jobs, and an identity begins with the cost of the one whose
//! turn it was last: nothing is kept of an identity without jobs, and none saves up for a burst, neither
//! without jobs nor with a job that has to stay.
//!
//! A job waits for the database transaction that runs when it arrives, and for its own. So while several
//! identities use the queue, a batch takes only a little of each.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::{
    budget::SharedUse,
    domain::ids::{AccountId, Identity},
    ledger::write_path::job::Job,
};

/// The most jobs of an identity that are looked at and cannot join a batch. More would keep the queue
/// locked for longer than a few joins are worth.
const JOIN_LEFT_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub struct FairQueue {
    /// The jobs of each identity that has some, by their numbers.
    queues: BTreeMap<Rank, BTreeMap<u64, Arc<Job>>>,
    ranks: HashMap<Identity, Rank>,
    /// Identities that had to leave a job or whose job did not fit, the longest wait first. One job of
    /// each is looked at before all others: by rank alone, others could come first every time and take
    /// one of the accounts that a job of several accounts waits for.
    delayed: VecDeque<Identity>,
    /// How many ranks were given to identities.
    ranks_given: u64,
    /// The cost that was taken of the identity whose turn it was last (the virtual time of start-time
    /// fair queueing). An identity that lags behind it, because its jobs had to stay, catches up with
    /// its next job.
    start: usize,
    /// Whose jobs arrived.
    shared_use: SharedUse,
}

/// The most cost that a batch takes.
#[derive(Clone, Copy)]
pub struct CostMax {
    /// Of all identities together, or one larger job by itself.
    pub of_all: usize,
    /// Of each identity while several use the queue, or one larger job.
    pub of_each: usize,
}

/// The order of the identities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The cost that was taken.
    taken: usize,
    /// Unique. Decides between identities of which as much was taken.
    number: u64,
}

/// What becomes of a job.
pub enum Decision {
    /// The job is taken if it fits.
    Take,
    /// The job stays where it is.
    Leave,
    /// The job leaves the queue.
    Remove,
}

/// The jobs that were taken.
#[derive(Default)]
pub struct Taken {
    /// In the order in which they were taken.
    pub jobs: Vec<Arc<Job>>,
    /// Their cost by identity.
    pub costs: Costs,
    /// There are more jobs: one of them did not fit.
    pub is_full: bool,
    /// The identities that had to leave a job.
    delayed: VecDeque<Identity>,
}

/// The cost of a batch, by identity.
#[derive(Clone, Default)]
pub struct Costs {
    by_identity: HashMap<Identity, usize>,
    sum: usize,
}

/// What a pass has left of an identity.
#[derive(Default)]
struct Left {
    jobs: usize,
    accounts: HashSet<AccountId>,
}

impl Costs {
    /// The cost of all identities.
    pub fn sum(&self) -> usize {
        self.sum
    }

    fn of(&self, identity: &Identity) -> usize {
        self.by_identity.get(identity).copied().unwrap_or_default()
    }

    fn add(&mut self, identity: &Identity, cost: usize) {
        *self.by_identity.entry(identity.clone()).or_default() += cost;
        self.sum += cost;
    }
}

impl FairQueue {
    /// Adds a job.
    pub fn push(&mut self, job: Arc<Job>) {
        self.shared_use.note(&job.identity);
        let rank = self.ranks.get(&job.identity).copied().unwrap_or_else(|| {
            self.ranks_given += 1;
            let rank = Rank { taken: self.start, number: self.ranks_given };
            self.ranks.insert(job.identity.clone(), rank);
            rank
        });
        self.queues.entry(rank).or_default().insert(job.number(), job);
    }

    /// Whether the jobs of several identities have arrived lately.
    pub fn is_shared(&self) -> bool {
        self.shared_use.is_shared()
    }

    /// All jobs.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.queues.values().flat_map(BTreeMap::values)
    }

    /// All jobs.
    pub fn into_jobs(self) -> impl Iterator<Item = Arc<Job>> {
        self.queues.into_values().flat_map(BTreeMap::into_values)
    }

    /// Keeps the jobs for which this is true.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&Arc<Job>) -> bool) {
        self.queues.retain(|_, jobs| {
            jobs.retain(|_, job| is_kept(job));
            !jobs.is_empty()
        });
        self.ranks.retain(|_, rank| self.queues.contains_key(rank));
    }

    /// Takes the jobs for which `decide` says so, up to this cost. The second argument of `decide` is
    /// whether an earlier job of the same identity was left that needs one of the accounts: then the
    /// job must not be taken.
    pub fn take(
        &mut self,
        cost_max: CostMax,
        decide: impl FnMut(&Arc<Job>, bool) -> Decision,
    ) -> Taken {
        let mut first = std::mem::take(&mut self.delayed);
        let mut taken = self.pass(&mut first, Costs::default(), cost_max, usize::MAX, decide);
        self.delayed.append(&mut taken.delayed);
        // Those that were not reached have waited less long.
        self.delayed.append(&mut first);
        taken
    }

    /// Takes jobs for a batch that has these costs already. Otherwise as [`Self::take`], but the order of
    /// the next jobs does not depend on those that are left, and few of these are looked at.
    pub fn take_more(
        &mut self,
        costs: &Costs,
        cost_max: CostMax,
        decide: impl FnMut(&Arc<Job>, bool) -> Decision,
    ) -> Vec<Arc<Job>> {
        self.pass(&mut VecDeque::new(), costs.clone(), cost_max, JOIN_LEFT_MAX, decide).jobs
    }

    /// Looks at one job of each of the identities in `first`, and then at the jobs by rank, until one
    /// does not fit. The identities in `first` that were not reached stay there. An identity of which
    /// enough was taken, or `left_max` jobs were left, is passed over.
    fn pass(
        &mut self,
        first: &mut VecDeque<Identity>,
        costs: Costs,
        cost_max: CostMax,
        left_max: usize,
        mut decide: impl FnMut(&Arc<Job>, bool) -> Decision,
    ) -> Taken {
        let identity_cost_max = if self.is_shared() { cost_max.of_each } else { usize::MAX };
        let mut taken = Taken { costs, ..Taken::default() };
        let (mut passed_over, mut left, mut emptied) = (Vec::new(), Vec::new(), Vec::new());
        let mut left_of: HashMap<Identity, Left> = HashMap::new();
        while let Some((mut rank, mut queue, is_by_rank)) = self.next(first) {
            let Some(entry) = queue.first_entry() else { continue };
            let (identity, cost) = (entry.get().identity.clone(), entry.get().command.cost());
            let (own_cost, own_left) = (taken.costs.of(&identity), left_of.get(&identity));
            let has_enough = own_cost > 0 && own_cost + cost > identity_cost_max;
            if has_enough || own_left.is_some_and(|left| left.jobs >= left_max) {
                taken.is_full = true;
                passed_over.push((rank, queue));
                continue;
            }
            let is_behind = own_left.is_some_and(|left| {
                let mut account_ids = entry.get().command.account_ids();
                account_ids.any(|account_id| left.accounts.contains(account_id))
            });
            match decide(entry.get(), is_behind) {
                Decision::Take
                    if taken.costs.sum > 0 && taken.costs.sum + cost > cost_max.of_all =>
                {
                    taken.is_full = true;
                    self.queues.insert(rank, queue);
                    if own_left.is_none() {
                        first.push_front(identity);
                    }
                    break;
                }
                Decision::Take => {
                    let job = entry.remove();
                    if is_by_rank {
                        self.start = self.start.max(rank.taken);
                    }
                    rank.taken = rank.taken.max(self.start) + job.charge();
                    self.ranks.insert(identity.clone(), rank);
                    taken.costs.add(&identity, cost);
                    taken.jobs.push(job);
                }
                Decision::Leave => {
                    let job = entry.remove();
                    let own_left = left_of.entry(identity.clone()).or_insert_with(|| {
                        taken.delayed.push_back(identity.clone());
                        Left::default()
                    });
                    own_left.jobs += 1;
                    own_left.accounts.extend(job.command.account_ids().cloned());
                    left.push(job);
                }
                Decision::Remove => {
                    entry.remove();
                    // The next job of this identity is looked at instead.
                    first.push_front(identity.clone());
                }
            }
            if queue.is_empty() {
                emptied.push(identity);
            } else {
                self.queues.insert(rank, queue);
            }
        }
        self.queues.extend(passed_over);
        left.into_iter().for_each(|job| self.push(job));
        self.forget_without_jobs(emptied);
        taken
    }

    /// Charges an identity for a job that is executed without having been taken from here.
    pub fn charge(&mut self, identity: &Identity, cost: usize) {
        let Some(before) = self.ranks.get(identity).copied() else { return };
        let after = Rank { taken: before.taken.max(self.start) + cost, ..before };
        self.ranks.insert(identity.clone(), after);
        if let Some(jobs) = self.queues.remove(&before) {
            self.queues.insert(after, jobs);
        }
    }

    /// Removes the ranks of those identities that have no jobs.
    fn forget_without_jobs(&mut self, identities: Vec<Identity>) {
        for identity in identities {
            if self.ranks.get(&identity).is_some_and(|rank| !self.queues.contains_key(rank)) {
                self.ranks.remove(&identity);
            }
        }
    }

    /// Removes the queue whose first job is looked at next. Returns whether its turn came by its rank.
    fn next(
        &mut self,
        first: &mut VecDeque<Identity>,
    ) -> Option<(Rank, BTreeMap<u64, Arc<Job>>, bool)> {
        while let Some(identity) = first.pop_front() {
            let rank = self.ranks.get(&identity);
            if let Some((rank, queue)) = rank.and_then(|rank| self.queues.remove_entry(rank)) {
                return Some((rank, queue, false));
            }
        }
        self.queues.pop_first().map(|(rank, queue)| (rank, queue, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::write_path::queue_tests::{OF_EACH, job_of, up_to};

    fn push(queue: &mut FairQueue, identity: &str, account_ids: &[&str]) {
        let account_ids: Vec<_> = account_ids.iter().map(|it| (*it).to_owned()).collect();
        queue.push(job_of(identity, &account_ids));
    }

    /// A pass that leaves the jobs of the account `busy`. Returns whose jobs it looked at.
    fn pass(queue: &mut FairQueue, cost_max: usize) -> String {
        let mut looked_at = String::new();
        queue.take(up_to(cost_max), |job, _| {
            looked_at.push_str(job.identity.as_str());
            let is_busy = job.command.account_ids().any(|it| it.as_str() == "busy");
            if is_busy { Decision::Leave } else { Decision::Take }
        });
        looked_at
    }

    #[test]
    fn an_identity_that_had_to_leave_a_job_is_first_in_the_next_pass() {
        let mut queue = FairQueue::default();
        push(&mut queue, "b", &["x"]);
        push(&mut queue, "a", &["busy"]);
        for _ in 0..9 {
            push(&mut queue, "a", &["y"]);
            push(&mut queue, "b", &["x"]);
        }
        assert_eq!(pass(&mut queue, 4), "baabab", "the last one did not fit");
        // By rank, b comes first again.
        assert_eq!(pass(&mut queue, 2), "abab");
    }

    #[test]
    fn an_identity_whose_job_did_not_fit_stays_before_others() {
        let mut queue = FairQueue::default();
        push(&mut queue, "a", &["busy"]);
        (0..9).for_each(|_| push(&mut queue, "a", &["x"]));
        push(&mut queue, "b", &["busy"]);
        push(&mut queue, "b", &["y"; 5]);
        push(&mut queue, "b", &["y"; 3]);
        assert_eq!(pass(&mut queue, 6), "aabba", "the last one did not fit");
        queue.retain(|job| !job.command.account_ids().any(|it| it.as_str() == "busy"));
        assert_eq!(pass(&mut queue, 3), "ab", "the job of b did not fit");
        // By rank, a comes first.
        assert_eq!(pass(&mut queue, 3), "ba");
    }

    #[test]
    fn an_identity_that_lags_behind_gives_none_a_head_start() {
        let mut queue = FairQueue::default();
        push(&mut queue, "z", &["busy"]);
        (0..60).for_each(|_| push(&mut queue, "a", &["x"]));
        (0..10).for_each(|_| drop(pass(&mut queue, 4)));
        (0..9).for_each(|_| push(&mut queue, "b", &["y"]));
        (0..9).for_each(|_| push(&mut queue, "z", &["x"]));
        let looked_at = pass(&mut queue, 12);
        for identity in ["a", "b", "z"] {
            assert!(looked_at.matches(identity).count() >= 4, "{looked_at}");
        }
    }

    #[test]
    fn a_batch_takes_little_of_each_identity_while_several_use_the_queue() {
        let mut queue = FairQueue::default();
        let taken =
            |queue: &mut FairQueue| queue.take(up_to(1000), |_, _| Decision::Take).jobs.len();
        let fill = |queue: &mut FairQueue| (0..100).for_each(|_| push(queue, "a", &["x"]));
        fill(&mut queue);
        assert_eq!(taken(&mut queue), 100, "an identity that is alone");
        fill(&mut queue);
        push(&mut queue, "b", &["y"]);
        assert_eq!(taken(&mut queue), OF_EACH + 1);
        assert_eq!(taken(&mut queue), OF_EACH, "b may be back soon");
        queue.shared_use.forget_others();
        assert_eq!(taken(&mut queue), 100 - 2 * OF_EACH, "b has gone");
    }

    #[test]
    fn few_jobs_that_cannot_join_are_looked_at() {
        let mut queue = FairQueue::default();
        for identity in ["a", "b"] {
            (0..1000).for_each(|_| push(&mut queue, identity, &["x"]));
        }
        let mut looked_at = 0;
        let joined = queue.take_more(&Costs::default(), up_to(1000), |_, _| {
            looked_at += 1;
            Decision::Leave
        });
        assert_eq!((joined.len(), looked_at), (0, 2 * JOIN_LEFT_MAX));
        assert_eq!(queue.iter().count(), 2000);
    }

    #[test]
    fn nothing_is_kept_of_an_identity_without_jobs() {
        let mut queue = FairQueue::default();
        for identity in ["a", "b", "c"] {
            push(&mut queue, identity, &["x"]);
            push(&mut queue, identity, &["y"]);
        }
        queue.retain(|job| job.identity.as_str() != "a");
        assert_eq!((queue.ranks.len(), queue.queues.len()), (2, 2));
        queue.take(up_to(3), |_, _| Decision::Take);
        assert_eq!((queue.ranks.len(), queue.queues.len()), (1, 1));
        queue.take(up_to(3), |_, _| Decision::Remove);
        assert_eq!((queue.ranks.len(), queue.queues.len(), queue.delayed.len()), (0, 0, 0));
    }
}
