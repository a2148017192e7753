//! One identity does not wait for the backlog of another one, and its own jobs keep their order.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    domain::{
        account::Account,
        fixtures::{account, id},
    },
    ledger::write_path::{
        job::Job,
        queue::{CommandQueue, DequeuedBatch},
        queue_tests::{OF_EACH, job_of, take, up_to},
    },
};

/// The jobs of `a` that wait.
const BACKLOG: usize = 8000;
/// The cost of a batch.
const BATCH: usize = 1000;

fn ids(account_ids: &[&str]) -> Vec<String> {
    account_ids.iter().map(|account_id| (*account_id).to_owned()).collect()
}

fn enqueue(queue: &CommandQueue, identity: &str, account_ids: &[&str]) {
    queue.enqueue(job_of(identity, &ids(account_ids)));
}

/// Enqueues the backlog of `a`: a job for each number.
fn enqueue_backlog(queue: &CommandQueue, account_ids: impl Fn(usize) -> Vec<String>) {
    (0..BACKLOG).for_each(|number| queue.enqueue(job_of("a", &account_ids(number))));
}

/// How many of these jobs are of this identity.
fn count(jobs: &[Arc<Job>], identity: &str) -> usize {
    jobs.iter().filter(|job| job.identity.as_str() == identity).count()
}

#[tokio::test]
async fn a_job_is_in_the_next_batch_whatever_another_identity_has_waiting() {
    let backlogs: [fn(usize) -> Vec<String>; 4] = [
        |number| vec![format!("a{number}")],
        |_| ids(&["hot"]),
        |number| vec![format!("a{number}"), format!("b{number}")],
        |number| vec![format!("a{number}"), "hot".to_owned()],
    ];
    for backlog in backlogs {
        for account_id in ["b", "hot", "a7000"] {
            let queue = Arc::new(CommandQueue::default());
            enqueue_backlog(&queue, backlog);
            enqueue(&queue, "b", &[account_id]);
            let batch = take(&queue, BATCH).await;
            assert_eq!(count(&batch.jobs, "b"), 1, "{account_id} beside {:?}", backlog(0));
            let of_a = batch.jobs.iter().filter(|job| job.identity.as_str() == "a");
            let cost: usize = of_a.map(|job| job.command.cost()).sum();
            assert_eq!(cost, OF_EACH, "{account_id} beside {:?}", backlog(0));
        }
    }
}

#[tokio::test]
async fn the_jobs_of_a_batch_are_of_all_identities_by_cost() {
    let queue = Arc::new(CommandQueue::default());
    enqueue_backlog(&queue, |number| ["x", "y", "z"].map(|it| format!("{it}{number}")).to_vec());
    (0..BATCH).for_each(|_| enqueue(&queue, "b", &["b"]));
    (0..7).for_each(|_| enqueue(&queue, "c", &["c"]));
    let batch = take(&queue, 23).await;
    assert_eq!(["a", "b", "c"].map(|it| count(&batch.jobs, it)), [3, 7, 7]);
    drop(batch);
    let batch = take(&queue, BATCH).await;
    assert_eq!(["a", "b"].map(|it| count(&batch.jobs, it)), [OF_EACH / 3, OF_EACH]);
}

#[tokio::test]
async fn jobs_as_large_as_a_batch_alternate_with_those_of_others() {
    for of_b in [1, 10, BATCH] {
        let queue = Arc::new(CommandQueue::default());
        let large: Vec<_> = (0..BATCH).map(|number| format!("a{number}")).collect();
        (0..4).for_each(|_| queue.enqueue(job_of("a", &large)));
        let mut taken = Vec::new();
        for _ in 0..4 {
            (0..of_b).for_each(|_| enqueue(&queue, "b", &["b"]));
            let batch = take(&queue, BATCH).await;
            taken.push((count(&batch.jobs, "a"), count(&batch.jobs, "b") > 0));
        }
        assert_eq!(taken, [(1, false), (0, true), (1, false), (0, true)], "{of_b} of b");
    }
}

#[tokio::test]
async fn a_job_behind_a_leased_account_is_in_the_batch_after_it() {
    let backlogs: [fn(usize) -> Vec<String>; 2] =
        [|_| ids(&["hot"]), |number| vec!["hot".to_owned(), format!("a{number}")]];
    for backlog in backlogs {
        for account_id in ["hot", "a0", "a7000"] {
            let queue = Arc::new(CommandQueue::default());
            enqueue(&queue, "c", &["hot"]);
            let first = take(&queue, BATCH).await;
            enqueue_backlog(&queue, backlog);
            assert!(queue.try_dequeue(up_to(BATCH)).is_none(), "the account is leased");
            enqueue(&queue, "b", &[account_id]);
            let meanwhile = queue.try_dequeue(up_to(BATCH));
            drop(first);
            let jobs = match meanwhile {
                Some(batch) => batch.jobs.clone(),
                None => take(&queue, BATCH).await.jobs.clone(),
            };
            assert_eq!(count(&jobs, "b"), 1, "{account_id} beside {:?}", backlog(0));
        }
    }
}

#[tokio::test]
async fn a_job_joins_a_batch_whatever_another_identity_has_waiting() {
    for is_parked in [false, true] {
        let queue = Arc::new(CommandQueue::default());
        enqueue(&queue, "c", &["hot"]);
        let batch = take(&queue, BATCH).await;
        enqueue_backlog(&queue, |_| ids(&["hot"]));
        if is_parked {
            assert!(queue.try_dequeue(up_to(BATCH)).is_none(), "the account is leased");
        }
        enqueue(&queue, "b", &["hot"]);
        let joined = batch.join(&[account("hot", "0")]);
        assert_eq!((count(&joined, "a"), count(&joined, "b")), (OF_EACH, 1));
    }
}

#[tokio::test]
async fn a_job_joins_a_batch_that_an_earlier_job_of_another_identity_cannot_join() {
    let queue = Arc::new(CommandQueue::default());
    enqueue(&queue, "c", &["hot"]);
    let batch = take(&queue, BATCH).await;
    enqueue_backlog(&queue, |_| ids(&["hot", "other"]));
    enqueue(&queue, "b", &["hot"]);
    let joined = batch.join(&[account("hot", "0")]);
    assert_eq!((count(&joined, "a"), count(&joined, "b")), (0, 1));
}

#[tokio::test]
async fn a_job_behind_a_foreign_lock_is_in_the_batch_after_it() {
    let queue = Arc::new(CommandQueue::default());
    enqueue(&queue, "c", &["hot"]);
    let batch = take(&queue, BATCH).await;
    enqueue_backlog(&queue, |_| ids(&["hot"]));
    let left_out = vec![(batch.jobs[0].clone(), id("hot"))];
    let (leases, _) = queue.park(left_out, Some(batch), 1);
    enqueue(&queue, "b", &["hot"]);
    let taken = leases[0].take(up_to(BATCH));
    assert_eq!(["a", "b", "c"].map(|it| count(&taken, it)), [OF_EACH, 1, 1]);
    drop(leases);
    let mut others = 0;
    while let Some(batch) = queue.try_dequeue(up_to(BATCH)) {
        others += count(&batch.jobs, "a");
    }
    assert_eq!(others, BACKLOG - OF_EACH, "the others are still there");
}

/// Batches that collide with those of other servers come back.
#[tokio::test]
async fn an_identity_pays_once_for_jobs_that_come_back() {
    let queue = Arc::new(CommandQueue::default());
    for (identity, account_id) in [("a", "x"), ("b", "y")] {
        (0..20).for_each(|_| enqueue(&queue, identity, &[account_id]));
    }
    let mut of_b = 0;
    for _ in 0..3 {
        let mut batch = take(&queue, 8).await;
        let jobs = std::mem::take(&mut batch.jobs);
        of_b += count(&jobs, "b");
        batch.put_back(jobs.into_iter().filter(|job| job.identity.as_str() == "a").collect());
    }
    let batch = take(&queue, 10).await;
    assert_eq!((count(&batch.jobs, "a"), of_b + count(&batch.jobs, "b")), (9, 8));
}

/// They are executed beside the queue, by the task that has waited for the row.
#[tokio::test]
async fn jobs_behind_a_foreign_lock_are_paid_for_in_the_queue() {
    let queue = Arc::new(CommandQueue::default());
    enqueue(&queue, "c", &["hot"]);
    let batch = take(&queue, BATCH).await;
    let left_out = vec![(batch.jobs[0].clone(), id("hot"))];
    let (leases, _) = queue.park(left_out, Some(batch), 1);
    (0..6).for_each(|_| enqueue(&queue, "a", &["hot"]));
    for (identity, account_id) in [("a", "x"), ("b", "y")] {
        (0..20).for_each(|_| enqueue(&queue, identity, &[account_id]));
    }
    assert_eq!(count(&leases[0].take(up_to(BATCH)), "a"), 6);
    let batch = take(&queue, 8).await;
    assert_eq!(["a", "b"].map(|it| count(&batch.jobs, it)), [1, 7]);
}

/// Others take one account of a transfer each time, before the transfer of `a` is looked at by rank.
#[tokio::test]
async fn a_transfer_is_not_starved_by_other_identities() {
    let queue = Arc::new(CommandQueue::default());
    let others = |queue: &CommandQueue| {
        for (identity, account_id) in [("b", "left"), ("c", "right"), ("a", "more")] {
            (0..10).for_each(|_| enqueue(queue, identity, &[account_id]));
        }
    };
    others(&queue);
    let mut running = [queue.try_dequeue(up_to(BATCH)), None];
    enqueue(&queue, "a", &["left", "right"]);
    for round in 1..40 {
        others(&queue);
        running[round % 2] = None;
        let batch = queue.try_dequeue(up_to(20));
        let has_two = |job: &Arc<Job>| !job.command.has_one_account();
        if batch.iter().flat_map(|batch| &batch.jobs).any(has_two) {
            return;
        }
        running[round % 2] = batch;
    }
    panic!("the transfer was never taken");
}

/// What happens to a queue.
#[derive(Clone, Debug)]
enum Event {
    /// A job of this identity arrives.
    Enqueue(usize, BTreeSet<usize>),
    /// A worker takes a batch of this cost.
    Dequeue(usize),
    /// Jobs join one of the batches.
    Join(Index),
    /// A batch ends.
    End(Index),
    /// A batch puts its jobs back.
    PutBack(Index),
    /// A caller gives up.
    GiveUp(Index),
}

const ACCOUNTS: [&str; 5] = ["v", "w", "x", "y", "z"];
const IDENTITIES: [&str; 3] = ["a", "b", "c"];

fn events(identities: usize) -> impl Strategy<Value = Vec<Event>> {
    let accounts = || proptest::collection::btree_set(0..ACCOUNTS.len(), 1..3);
    let event = prop_oneof![
        10 => (0..identities, accounts()).prop_map(|(of, ids)| Event::Enqueue(of, ids)),
        4 => (1_usize..12).prop_map(Event::Dequeue),
        2 => any::<Index>().prop_map(Event::Join),
        3 => any::<Index>().prop_map(Event::End),
        1 => any::<Index>().prop_map(Event::PutBack),
        1 => any::<Index>().prop_map(Event::GiveUp),
    ];
    vec(event, 1..80)
}

/// A queue beside what it should be: the jobs in the order of their arrival, each with whether it
/// waits.
#[derive(Default)]
struct Modelled {
    queue: Arc<CommandQueue>,
    arrived: Vec<(Arc<Job>, bool)>,
    /// The batches that have not ended.
    batches: Vec<(DequeuedBatch, Vec<Arc<Job>>)>,
}

fn needs_same_account(left: &Job, right: &Job) -> bool {
    left.command.account_ids().any(|it| right.command.account_ids().any(|other| it == other))
}

impl Modelled {
    fn state_of(&mut self, job: &Arc<Job>) -> &mut bool {
        let entry = self.arrived.iter_mut().find(|(arrived, _)| Arc::ptr_eq(arrived, job));
        &mut entry.expect("a job that has arrived").1
    }

    /// These jobs were taken: each for the first time, and none before an earlier one.
    fn taken(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            assert!(*self.state_of(job), "a job was taken twice");
            let earlier = self.arrived.iter().take_while(|(other, _)| !Arc::ptr_eq(other, job));
            for (other, waits) in earlier {
                let is_before = *waits && other.has_waiter() && other.identity == job.identity;
                assert!(!is_before || !needs_same_account(other, job), "a job was overtaken");
            }
            *self.state_of(job) = false;
        }
    }

    fn dequeue(&mut self, cost_max: usize) {
        let expected = self.free();
        let is_one_identity =
            self.arrived.iter().all(|(job, _)| job.identity == self.arrived[0].0.identity);
        let Some(mut batch) = self.queue.try_dequeue(up_to(cost_max)) else {
            assert!(expected.is_empty() || !is_one_identity, "there were free jobs");
            return;
        };
        let jobs = std::mem::take(&mut batch.jobs);
        let cost = |jobs: &[Arc<Job>]| jobs.iter().map(|job| job.command.cost()).sum::<usize>();
        assert!(cost(&jobs) <= cost_max || jobs.len() == 1, "the batch is too large");
        let in_use = self.batches.iter().flat_map(|(_, jobs)| jobs);
        let mut in_use = in_use.filter(|other| jobs.iter().any(|it| needs_same_account(it, other)));
        assert!(in_use.next().is_none(), "an account is in two batches");
        self.taken(&jobs);
        if is_one_identity {
            let is_same = jobs.iter().zip(&expected).all(|(job, other)| Arc::ptr_eq(job, other));
            assert!(is_same, "other jobs were taken");
            let is_full = || cost(&expected[..jobs.len() + 1]) > cost_max;
            assert!(jobs.len() == expected.len() || is_full(), "not all that fits was taken");
        }
        self.batches.push((batch, jobs));
    }

    /// The jobs that can be taken if there is no other identity, in the order of their arrival: their
    /// accounts are not in use, and no earlier job has to wait for one of them.
    fn free(&self) -> Vec<Arc<Job>> {
        let in_use: Vec<_> = self.batches.iter().flat_map(|(_, jobs)| jobs).collect();
        let (mut free, mut left): (Vec<Arc<Job>>, Vec<&Job>) = Default::default();
        for (job, _) in self.arrived.iter().filter(|(job, waits)| *waits && job.has_waiter()) {
            let blocks = |other: &&Job| needs_same_account(job, other);
            let own = left.iter().filter(|it| it.identity == job.identity);
            if in_use.iter().any(|it| blocks(&&***it)) || own.copied().any(|it| blocks(&it)) {
                left.push(job);
            } else {
                free.push(job.clone());
            }
        }
        free
    }

    fn happens(&mut self, event: &Event) {
        let batch = |index: &Index, batches: usize| (batches > 0).then(|| index.index(batches));
        match event {
            Event::Enqueue(identity, accounts) => {
                let accounts: Vec<_> = accounts.iter().map(|it| ACCOUNTS[*it].to_owned()).collect();
                let job = job_of(IDENTITIES[*identity], &accounts);
                self.arrived.push((job.clone(), true));
                self.queue.enqueue(job);
            }
            Event::Dequeue(cost_max) => self.dequeue(*cost_max),
            Event::Join(index) => {
                if let Some(index) = batch(index, self.batches.len()) {
                    let (batch, jobs) = &self.batches[index];
                    let ids = jobs.iter().flat_map(|job| job.command.account_ids());
                    let ids: BTreeSet<_> = ids.cloned().collect();
                    let locked: Vec<Account> =
                        ids.iter().map(|it| account(it.as_str(), "0")).collect();
                    let joined = batch.join(&locked);
                    self.taken(&joined);
                    self.batches[index].1.extend(joined);
                }
            }
            Event::End(index) => {
                if let Some(index) = batch(index, self.batches.len()) {
                    self.batches.swap_remove(index);
                }
            }
            Event::PutBack(index) => {
                if let Some(index) = batch(index, self.batches.len()) {
                    let (batch, jobs) = self.batches.swap_remove(index);
                    jobs.iter().for_each(|job| *self.state_of(job) = true);
                    batch.put_back(jobs);
                }
            }
            Event::GiveUp(index) => {
                if let Some(index) = batch(index, self.arrived.len()) {
                    self.arrived[index].0.fail(crate::ledger::Error::LockTimeout);
                }
            }
        }
    }

    /// Everything is taken in the end.
    fn drain(mut self) {
        self.batches.clear();
        while let Some(batch) = self.queue.try_dequeue(up_to(3)) {
            self.taken(&batch.jobs);
        }
        let mut lost = self.arrived.iter().filter(|(job, waits)| *waits && job.has_waiter());
        assert!(lost.next().is_none(), "a job was lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_jobs_of_one_identity_for_one_account_keep_their_order(
        events in (1..=IDENTITIES.len()).prop_flat_map(events),
    ) {
        let mut modelled = Modelled::default();
        events.iter().for_each(|event| modelled.happens(event));
        modelled.drain();
    }
}
