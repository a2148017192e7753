//! A command on its way, and its caller's claim ticket.
//!
//! Whether a caller who gives up may be told "not applied" is decided by one atomic step.
//! Before an attempt writes a job's change, and after it has all its locks, it *claims* the
//! job; a caller whose deadline passes *abandons* it. Whoever comes first wins:
//!
//! ```text
//!            claim (worker, under the row locks)
//!   Waiting ------------------------------------> Claimed   caller gives up: outcome unknown
//!      |   <------------------------------------
//!      |     unclaim (the attempt surely failed)
//!      | abandon (caller)
//!      v
//!   Abandoned                                               caller gives up: not applied
//! ```

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    domain::{command::Command, ids::AccountId, unit_of_work::Answer},
    ledger::{Failure, Outcome},
    lock::lock,
    telemetry::traces::CallTrace,
};

/// A job this close to its deadline is answered rather than tried again.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const ABANDONED: u8 = 2;

/// What a caller gets.
pub type Verdict = Result<Answer, Failure>;

/// A command on its way, shared by the queue and the executor.
pub struct Job {
    /// What is asked.
    pub command: Command,
    /// When it came in.
    pub accepted: Instant,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// The call that it is a part of.
    pub trace: CallTrace,
    state: State,
    uncertain: AtomicBool,
    /// The account that it waits for, and since when.
    blocked: Mutex<Option<(AccountId, Instant)>>,
    reply: Mutex<Option<Reply>>,
}

/// Waiting, claimed or abandoned; shared by the job and its ticket.
#[derive(Clone)]
struct State(Arc<AtomicU8>);

impl State {
    fn exchange(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

struct Reply {
    sender: oneshot::Sender<Verdict>,
    _permits: Permits,
}

/// What a job takes up; given back when it is answered or dropped.
pub struct Permits {
    /// Of the queue.
    #[expect(dead_code, reason = "held, not used")]
    pub queue: OwnedSemaphorePermit,
    /// Of what streams may have in the queue, if it comes in one.
    #[expect(dead_code, reason = "held, not used")]
    pub streams: Option<OwnedSemaphorePermit>,
}

/// The caller's side. Dropping it abandons the job if nobody has claimed it yet.
pub struct Ticket {
    state: State,
    deadline: Instant,
    receiver: oneshot::Receiver<Verdict>,
}

/// A job and the ticket to its verdict.
pub fn new(command: Command, deadline: Instant, permits: Permits) -> (Arc<Job>, Ticket) {
    let (sender, receiver) = oneshot::channel();
    let state = State(Arc::new(AtomicU8::new(WAITING)));
    let job = Arc::new(Job {
        command,
        accepted: Instant::now(),
        deadline,
        trace: CallTrace::current(),
        state: state.clone(),
        uncertain: AtomicBool::new(false),
        blocked: Mutex::new(None),
        reply: Mutex::new(Some(Reply { sender, _permits: permits })),
    });
    (job, Ticket { state, deadline, receiver })
}

impl Job {
    /// Takes the job from its caller's hands: from now on the database decides. False if the
    /// caller has given it up, or is about to.
    pub fn claim(&self) -> bool {
        let next = if self.deadline > Instant::now() { CLAIMED } else { ABANDONED };
        self.is_wanted()
            && match self.state.exchange(WAITING, next) {
                Ok(_) => next == CLAIMED,
                Err(state) => state == CLAIMED,
            }
    }

    /// Gives the job back after an attempt that surely changed nothing; not if an earlier one
    /// may have.
    pub fn unclaim(&self) {
        if !self.is_uncertain() {
            // Not claimed, or abandoned: then there is nothing to give back.
            let _ = self.state.exchange(CLAIMED, WAITING);
        }
    }

    /// An attempt at this job may have been committed.
    pub fn mark_uncertain(&self) {
        // A job that was not claimed was not written.
        if self.state.0.load(Ordering::Acquire) == CLAIMED {
            self.uncertain.store(true, Ordering::Release);
        }
    }

    /// Whether an attempt at this job may have been committed.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Acquire)
    }

    /// The job waits for this account from now on, unless it waits for another one already.
    pub fn block(&self, account_id: &AccountId) {
        let mut blocked = lock(&self.blocked);
        blocked.get_or_insert_with(|| (account_id.clone(), Instant::now()));
    }

    /// It waits for none any more; for which, and since when, it did.
    pub fn unblock(&self) -> Option<(AccountId, Instant)> {
        lock(&self.blocked).take()
    }

    /// Whether someone still waits for the verdict.
    pub fn is_wanted(&self) -> bool {
        let reply = lock(&self.reply);
        reply.as_ref().is_some_and(|reply| !reply.sender.is_closed())
    }

    /// Answers the caller, if nobody has; a caller who has gone does not mind.
    pub fn answer(&self, verdict: Verdict) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            let _ = reply.sender.send(verdict);
        }
    }

    /// Answers that a lock was not had in time if the job has no time left; returns whether it is
    /// so.
    pub fn expire(&self) -> bool {
        let has_expired = self.deadline <= Instant::now() + DEADLINE_MARGIN;
        if has_expired {
            self.give_up(Failure::LockTimeout);
        }
        has_expired
    }

    /// Answers that no verdict was reached, truthfully if an earlier attempt may have been
    /// committed.
    pub fn give_up(&self, failure: Failure) {
        let failure = if self.is_uncertain() {
            Failure::DatabaseUnavailable(Some(Outcome::Unknown))
        } else {
            failure
        };
        self.answer(Err(failure));
    }
}

impl Ticket {
    /// Waits for the verdict until the job's deadline.
    pub async fn verdict(mut self) -> Verdict {
        match tokio::time::timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(verdict)) => verdict,
            // Dropped unanswered before its time: the worker panicked with the job in its hands.
            Ok(Err(_)) if Instant::now() < self.deadline => {
                Err(Failure::Internal(Some(self.outcome())))
            }
            Ok(Err(_)) | Err(_) => Err(Failure::DeadlineExceeded(Some(self.outcome()))),
        }
    }

    fn outcome(&self) -> Outcome {
        match self.state.exchange(WAITING, ABANDONED) {
            Ok(_) | Err(ABANDONED) => Outcome::NotApplied,
            Err(_) => Outcome::Unknown,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.state.exchange(WAITING, ABANDONED);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::{
        account::{Labels, NewAccount},
        ids::AccountId,
        money::Currencies,
    };

    fn job(deadline: Instant) -> (Arc<Job>, Ticket) {
        let currency = Currencies::default().get("USD").unwrap();
        let command = Command::CreateAccount(NewAccount {
            caller: "".into(),
            account_id: AccountId::parse("a").unwrap(),
            overdraft_limit: currency.zero(),
            currency,
            unlimited_overdraft: false,
            labels: Labels::new(),
        });
        let queue = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        new(command, deadline, Permits { queue, streams: None })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn late(outcome: Outcome) -> Failure {
        Failure::DeadlineExceeded(Some(outcome))
    }

    #[tokio::test]
    async fn a_job_is_either_claimed_or_abandoned() {
        let (abandoned, ticket) = job(soon());
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::NotApplied));
        assert!(!abandoned.claim(), "its caller was told that it is not applied");

        let (claimed, ticket) = job(soon());
        assert!(claimed.claim());
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::Unknown));
    }

    #[tokio::test]
    async fn a_caller_who_is_gone_or_late_is_not_served() {
        let (job_of_one_who_left, ticket) = job(soon());
        drop(ticket);
        assert!(!job_of_one_who_left.claim() && !job_of_one_who_left.is_wanted());

        let (late_job, ticket) = job(Instant::now());
        assert!(!late_job.claim());
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::NotApplied));
    }

    #[tokio::test]
    async fn what_surely_failed_can_be_abandoned_again() {
        let (job, ticket) = job(soon());
        assert!(job.claim());
        job.unclaim();
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::NotApplied));
    }

    #[tokio::test]
    async fn what_may_have_been_applied_is_never_called_not_applied() {
        let (timed_out, ticket) = job(soon());
        assert!(timed_out.claim());
        timed_out.mark_uncertain();
        timed_out.unclaim();
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::Unknown));

        let (given_up, ticket) = job(soon());
        assert!(given_up.claim());
        given_up.mark_uncertain();
        assert!(given_up.claim(), "it can be tried again");
        given_up.give_up(Failure::LockTimeout);
        let unknown = Failure::DatabaseUnavailable(Some(Outcome::Unknown));
        assert_eq!(ticket.verdict().await.unwrap_err(), unknown);
    }

    #[tokio::test]
    async fn a_job_that_was_not_claimed_cannot_become_uncertain() {
        let (job, ticket) = job(soon());
        job.mark_uncertain();
        assert!(!job.is_uncertain());
        assert_eq!(ticket.verdict().await.unwrap_err(), late(Outcome::NotApplied));
    }
}
