//! Who is taken when, and who waits for whom.

use std::{cell::RefCell, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    budget::Budgets,
    domain::{
        account::Account,
        command::Command,
        fixtures::{account, id, posting},
        ids::{AccountId, Identity},
    },
    ledger::{
        Error,
        write_path::{
            fair_queue::CostMax,
            job::{self, Completion, DEADLINE_MARGIN, Job},
            queue::{
                AccountLease, CommandQueue, DequeuedBatch, SECOND_BATCH_JOBS_MIN,
                SECOND_BATCH_WAIT_MAX,
            },
            shared::WritePath,
            transaction::LeftOut,
        },
    },
    storage::Store,
};

/// The most cost of each identity in a batch of several.
pub const OF_EACH: usize = 16;

/// This cost of all identities.
pub fn up_to(of_all: usize) -> CostMax {
    CostMax { of_all, of_each: OF_EACH }
}

/// A job of these accounts, one letter each.
fn job(account_ids: &str) -> Arc<Job> {
    job_of("", &split(account_ids))
}

/// A job of this identity.
#[expect(clippy::mem_forget, reason = "someone waits for it as long as the test runs")]
pub fn job_of(identity: &str, account_ids: &[String]) -> Arc<Job> {
    let deadline = Instant::now() + Duration::from_secs(9);
    let (job, completion) = job_until(identity, account_ids, deadline);
    // Someone waits for it as long as the test runs.
    std::mem::forget(completion);
    job
}

/// A job that has no time left for another attempt.
fn late_job(account_ids: &str) -> (Arc<Job>, Completion) {
    job_until("", &split(account_ids), Instant::now() + DEADLINE_MARGIN)
}

fn job_until(identity: &str, account_ids: &[String], deadline: Instant) -> (Arc<Job>, Completion) {
    let changes: Vec<_> = account_ids.iter().map(|account_id| (&**account_id, "1")).collect();
    let command = Command::Request(Arc::new(posting("r", &changes)));
    let budgets = Budgets::for_tests(1, false);
    let queue = budgets.queue.take_one(&Identity::from_stored(identity)).unwrap();
    let records = budgets.records.clone();
    let permits = job::Permits { queue, records, _message: None, _resolved: None };
    job::new(command, deadline, permits)
}

fn split(letters: &str) -> Vec<String> {
    letters.chars().map(String::from).collect()
}

fn queue(account_ids: &str) -> Arc<CommandQueue> {
    let queue = Arc::new(CommandQueue::default());
    account_ids.chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    queue
}

/// These accounts, one letter each.
fn accounts(account_ids: &str) -> Vec<Account> {
    account_ids.chars().map(|account_id| account(&account_id.to_string(), "0")).collect()
}

/// The accounts of jobs, one letter each.
fn letters(jobs: &[Arc<Job>]) -> String {
    jobs.iter().flat_map(|job| job.command.account_ids()).map(AccountId::as_str).collect()
}

/// The accounts of the jobs that are parked behind this lease, one letter each.
fn parked(lease: &AccountLease) -> String {
    let parked = RefCell::new(String::new());
    lease.retain(|job| {
        parked.borrow_mut().extend(job.command.account_ids().map(AccountId::as_str));
        true
    });
    parked.into_inner()
}

/// The next batch.
pub async fn take(queue: &Arc<CommandQueue>, cost_max: usize) -> DequeuedBatch {
    tokio::time::timeout(Duration::from_secs(5), queue.ready()).await.unwrap();
    queue.try_dequeue(up_to(cost_max)).unwrap()
}

#[tokio::test]
async fn jobs_of_a_leased_account_are_passed_over_and_then_come_first() {
    let queue = queue("aab");
    let first = take(&queue, 10).await;
    assert_eq!(letters(&first.jobs), "aab");
    "abcac".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    let second = take(&queue, 10).await;
    assert_eq!(letters(&second.jobs), "cc");
    queue.enqueue(job("d"));
    drop(first);
    let third = take(&queue, 10).await;
    let mut third = letters(&third.jobs);
    assert_eq!(third.pop(), Some('d'));
    assert_eq!(third.matches('a').count(), 2, "{third}");
    assert_eq!(third.len(), 3, "{third}");
}

#[tokio::test]
async fn a_transfer_between_two_accounts_that_are_never_free_together_is_not_starved() {
    let queue = queue("x");
    let mut held = vec![take(&queue, 10).await];
    queue.enqueue(job("y"));
    held.push(take(&queue, 10).await);
    queue.enqueue(job("xy"));
    // Each batch ends while the other goes on, and there are always more jobs for both.
    for round in 0..10 {
        "xxyyz".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
        drop(held.remove(0));
        let next = take(&queue, 10).await;
        if letters(&next.jobs).contains("xy") {
            assert!(round > 0, "y was not free");
            return;
        }
        held.push(next);
    }
    panic!("the transfer was never taken");
}

#[tokio::test]
async fn a_foreign_lock_holds_up_only_jobs_that_need_the_account() {
    let queue = queue("x");
    let batch = take(&queue, 10).await;
    let left_out = vec![(batch.jobs[0].clone(), id("x"))];
    let (leases, _) = queue.park(left_out, Some(batch), 1);
    ["xy", "y"].into_iter().for_each(|account_ids| queue.enqueue(job(account_ids)));
    let next = take(&queue, 10).await;
    assert_eq!(letters(&next.jobs), "y");
    assert_eq!(parked(&leases[0]), "xxy");
}

#[tokio::test]
async fn a_job_that_was_given_up_is_forgotten() {
    let queue = queue("");
    let given_up = job("xy");
    given_up.fail(crate::ledger::Error::LockTimeout);
    queue.enqueue(given_up);
    queue.enqueue(job("y"));
    let next = take(&queue, 10).await;
    assert_eq!(letters(&next.jobs), "y");
}

#[tokio::test]
async fn nobody_is_overtaken_by_jobs_of_the_same_account_that_came_later() {
    let queue = Arc::new(CommandQueue::default());
    let jobs: Vec<_> = (0..6).map(|_| job("a")).collect();
    jobs[..4].iter().for_each(|it| queue.enqueue(it.clone()));
    for (index, later) in [4, 5, 5].into_iter().enumerate() {
        let batch = take(&queue, 2).await;
        assert!(Arc::ptr_eq(&batch.jobs[0], &jobs[2 * index]), "batch {index}");
        if index < 2 {
            queue.enqueue(jobs[later].clone());
        }
    }
}

#[tokio::test]
async fn a_batch_has_a_weight_and_what_is_left_is_taken_by_another() {
    let queue = queue("abc");
    let first = take(&queue, 2).await;
    assert_eq!(letters(&first.jobs), "ab");
    let second = take(&queue, 2).await;
    assert_eq!(letters(&second.jobs), "c");
}

#[tokio::test]
async fn a_parked_job_waits_for_the_account_with_the_foreign_lock() {
    let queue = queue("aab");
    let mut first = take(&queue, 1).await;
    let left_out = vec![(first.jobs.remove(0), id("a"))];
    let (leases, _) = queue.park(left_out, Some(first), 1);
    assert_eq!(letters(&take(&queue, 10).await.jobs), "b");
    let waits = leases[0].take(up_to(10)).len();
    assert_eq!(waits, 2, "the one that found the lock, and the one that came after it");
    let contended = queue.contention.most_contended(1);
    assert_eq!((&contended[0].account_id, contended[0].waits), (&id("a"), 2.0));
}

#[tokio::test]
async fn an_account_with_a_foreign_lock_stays_leased_until_its_lease_ends() {
    let queue = queue("ab");
    let batch = take(&queue, 10).await;
    queue.enqueue(job("a"));
    let left_out = vec![(batch.jobs[0].clone(), id("a"))];
    let (leases, refused) = queue.park(left_out, Some(batch), 1);
    assert_eq!((&leases[0].account_id, leases.len(), refused.len()), (&id("a"), 1, 0));
    // b is free again, a is not.
    "ab".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    let next = take(&queue, 10).await;
    assert_eq!(letters(&next.jobs), "b");
    assert_eq!(parked(&leases[0]), "aaa");
    let (more, refused) = queue.park(vec![(job("c"), id("c"))], None, 1);
    assert_eq!((more.len(), refused.len()), (0, 1), "there is one foreign lock already");
    drop(leases);
    let last = take(&queue, 10).await;
    assert_eq!(letters(&last.jobs), "aaa");
}

#[tokio::test]
async fn jobs_that_are_put_back_come_first_again() {
    let queue = queue("aab");
    let mut batch = take(&queue, 10).await;
    "abc".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    let jobs = std::mem::take(&mut batch.jobs);
    batch.put_back(jobs.clone());
    let again = take(&queue, 10).await;
    assert_eq!(letters(&again.jobs), "aababc");
    assert!(jobs.iter().zip(&again.jobs).all(|(before, now)| Arc::ptr_eq(before, now)));
}

#[tokio::test]
async fn of_the_jobs_left_out_for_an_account_one_comes_first_again() {
    let queue = queue("aabb");
    let mut batch = take(&queue, 10).await;
    "cd".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    let jobs = std::mem::take(&mut batch.jobs);
    queue.put_back(
        jobs.iter().map(|it| (it.clone(), id(&letters(std::slice::from_ref(it))))).collect(),
    );
    drop(batch);
    let again = take(&queue, 10).await;
    assert_eq!(letters(&again.jobs), "abcdab");
    let places = [0, 2, 1, 3].map(|place| &jobs[place]);
    let now = [0, 1, 4, 5].map(|place| &again.jobs[place]);
    assert!(places.iter().zip(now).all(|(before, now)| Arc::ptr_eq(before, now)));
}

#[tokio::test]
async fn a_job_whose_row_a_peer_has_locked_comes_after_all_that_wait() {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(Store::for_tests(&directory).await);
    let queue = queue("ab");
    let path = Arc::new(WritePath::new(store, queue.clone(), Arc::default(), 10));
    let batch = take(&queue, 10).await;
    "ac".chars().for_each(|account_id| queue.enqueue(job(&account_id.to_string())));
    let by_peers = vec![(batch.jobs[0].clone(), id("a"))];
    let left_out = LeftOut { by_peers, elsewhere: Vec::new(), with_expired_holds: Vec::new() };
    let left_out_job = batch.jobs[0].clone();
    path.set_aside(left_out, Some(batch));
    let again = take(&queue, 10).await;
    assert_eq!(letters(&again.jobs), "aca");
    assert!(Arc::ptr_eq(&again.jobs[2], &left_out_job));
    let contended = queue.contention.most_contended(1);
    assert_eq!((&contended[0].account_id, contended[0].waits), (&id("a"), 2.0));
}

#[tokio::test]
async fn jobs_that_have_no_time_left_are_answered_wherever_they_wait() {
    let queue = queue("ab");
    let batch = take(&queue, 10).await;
    queue.enqueue(job("c"));
    let (late, completion) = late_job("a");
    queue.enqueue(late);
    queue.expire();
    assert_eq!(completion.wait().await.unwrap_err(), Error::LockTimeout);
    drop(batch);
    assert_eq!(letters(&take(&queue, 10).await.jobs), "c");
}

#[tokio::test]
async fn jobs_that_need_no_other_account_join_a_batch_and_nobody_is_overtaken() {
    let queue = queue("ab");
    let batch = take(&queue, 10).await;
    for account_ids in ["a", "c", "ab", "bc", "a", "b", "ab"] {
        queue.enqueue(job(account_ids));
    }
    // After "bc", which has to wait, nothing of b.
    let joined = batch.join(&accounts("ab"));
    assert_eq!(letters(&joined), "aaba");
    drop(batch);
    assert_eq!(letters(&take(&queue, 10).await.jobs), "cbcbab");
}

#[tokio::test]
async fn no_more_jobs_join_a_batch_than_fit() {
    let queue = queue("a");
    let batch = take(&queue, 3).await;
    (0..3).for_each(|_| queue.enqueue(job("a")));
    assert_eq!(letters(&batch.join(&accounts("a"))), "aa");
    drop(batch);
    assert_eq!(letters(&take(&queue, 10).await.jobs), "a");
}

#[tokio::test]
async fn nobody_joins_for_an_account_that_was_not_there() {
    let queue = queue("ab");
    let batch = take(&queue, 10).await;
    ["b", "a"].into_iter().for_each(|account_ids| queue.enqueue(job(account_ids)));
    assert_eq!(letters(&batch.join(&accounts("a"))), "a");
}

#[tokio::test]
async fn nobody_joins_before_a_transfer_that_came_earlier() {
    let queue = queue("x");
    let batch = take(&queue, 10).await;
    queue.enqueue(job("xy"));
    // Another worker meets it, and lets it wait.
    assert!(queue.try_dequeue(up_to(10)).is_none());
    queue.enqueue(job("x"));
    assert_eq!(letters(&batch.join(&accounts("x"))), "");
}

#[tokio::test]
async fn what_is_reserved_is_waited_for_and_not_tried_again_and_again() {
    let queue = queue("y");
    let batch = take(&queue, 10).await;
    ["xy", "x"].into_iter().for_each(|account_ids| queue.enqueue(job(account_ids)));
    queue.ready().await;
    assert!(queue.try_dequeue(up_to(10)).is_none(), "x is reserved for the transfer");
    // What has woken this worker.
    queue.changed().await;
    let mut changed = Box::pin(queue.changed());
    assert!(changed.as_mut().now_or_never().is_none(), "nothing has changed");
    drop(batch);
    changed.await;
    assert_eq!(letters(&take(&queue, 10).await.jobs), "xyx");
}

#[tokio::test]
async fn beside_a_busy_worker_a_batch_starts_with_enough_jobs_or_after_a_moment() {
    let queue = queue("a");
    let busy = queue.ready().await;
    let _batch = queue.try_dequeue(up_to(10)).unwrap();
    let enqueue = |number: usize| queue.enqueue(job_of("", &[format!("b{number}")]));
    (1..SECOND_BATCH_JOBS_MIN).for_each(enqueue);
    // A job of a leased account does not count.
    queue.enqueue(job("ac"));
    assert!(queue.ready().now_or_never().is_none(), "one job too few");
    enqueue(0);
    assert!(queue.ready().now_or_never().is_some(), "enough");

    // The busy worker may hang.
    let start = Instant::now();
    let queue = self::queue("a");
    let _hangs = queue.ready().now_or_never().expect("no worker is busy");
    drop(queue.ready().await);
    assert!(start.elapsed() >= SECOND_BATCH_WAIT_MAX);
    drop(busy);
}
