//! A queued command, and the handle on which its caller waits.
//!
//! One atomic step decides whether a caller whose deadline passes gets the outcome "not applied".
//! An attempt *claims* a job before it writes the job's change, and after it has all locks; a caller
//! whose deadline passes *abandons* the job. The first of the two wins:
//!
//! ```text
//!            claim (worker, under the row locks)
//!   Waiting ------------------------------------> Claimed   deadline passes: outcome unknown
//!      |   <------------------------------------
//!      |     unclaim (the attempt surely failed)
//!      | abandon (caller)
//!      v
//!   Abandoned                                               deadline passes: not applied
//! ```

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    audit::{self, PendingChange},
    budget::{Rate, Share},
    domain::{
        command::Command,
        ids::{AccountId, Identity},
        rejection::Rejection,
        unit_of_work::CommandResult,
    },
    ledger::{
        Error, Outcome,
        write_path::{audited, records},
    },
    lock::lock,
    telemetry::traces::CallTrace,
};

/// A job this close to its deadline fails rather than being tried again.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

/// No attempt has found an account.
const NO_VERSION: i64 = i64::MAX;

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const ABANDONED: u8 = 2;

/// A queued command, shared by the queue and the executor.
pub struct Job {
    /// The command.
    pub command: Command,
    /// Whose it is.
    pub identity: Identity,
    number: AtomicU64,
    /// When it was accepted.
    pub accepted: Instant,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The trace of its call.
    pub trace: CallTrace,
    state: State,
    in_doubt: AtomicBool,
    /// See [`Job::found_version`].
    version: AtomicI64,
    is_charged: AtomicBool,
    /// The account that the job waits for, and since when.
    blocked: Mutex<Option<(AccountId, Instant)>>,
    reply: Mutex<Option<Reply>>,
}

/// Waiting, claimed or abandoned; shared by the job and its completion.
#[derive(Clone)]
struct State(Arc<AtomicU8>);

impl State {
    fn exchange(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// The way to the caller, the permits of the job, which are returned when it is completed or dropped,
/// and its record in the audit log.
struct Reply {
    sender: oneshot::Sender<Result<CommandResult, Error>>,
    permits: Permits,
    /// The records that its identity was charged for its lines in the audit log.
    lines: u32,
    audit: Option<PendingChange>,
}

/// The permits of a job, returned when it is completed or dropped.
pub struct Permits {
    /// Of the queue.
    pub queue: Share,
    /// Charged with a record if the command leaves one and moves no money.
    pub records: Arc<Rate>,
    /// Of the call's message.
    pub _message: Option<Arc<Share>>,
    /// Of what was looked up for the command.
    pub _resolved: Option<Share>,
}

/// The caller's handle. Dropping it abandons the job, unless an attempt has claimed it.
pub struct Completion {
    state: State,
    deadline: Instant,
    receiver: oneshot::Receiver<Result<CommandResult, Error>>,
}

/// Creates a job and the handle for its result.
pub fn new(command: Command, deadline: Instant, permits: Permits) -> (Arc<Job>, Completion) {
    let (sender, receiver) = oneshot::channel();
    let state = State(Arc::new(AtomicU8::new(WAITING)));
    let job = Arc::new(Job {
        command,
        identity: permits.queue.identity().clone(),
        number: AtomicU64::new(next_number()),
        accepted: Instant::now(),
        deadline,
        trace: CallTrace::current(),
        state: state.clone(),
        in_doubt: AtomicBool::new(false),
        version: AtomicI64::new(NO_VERSION),
        is_charged: AtomicBool::new(false),
        blocked: Mutex::new(None),
        reply: Mutex::new(Some(Reply { sender, permits, lines: 0, audit: None })),
    });
    (job, Completion { state, deadline, receiver })
}

/// A number that no job has had.
fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

impl Job {
    /// Charges the identity for the lines in the audit log, before the first one is written: the caller may
    /// give up before the job is in the queue. It has them back if the job moves money.
    pub fn charge_lines(&self, bytes: usize) {
        if let Some(reply) = &mut *lock(&self.reply) {
            reply.lines = records::of_lines(bytes);
            reply.permits.records.charge(&self.identity, reply.lines, Instant::now());
        }
    }

    /// Sets the record in the audit log, before the job is in the queue.
    pub fn set_audit(&self, audit: Option<PendingChange>) {
        if let Some(reply) = &mut *lock(&self.reply) {
            reply.audit = audit;
        }
    }

    /// The order among the jobs of the identity. Unique.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Puts the job behind all others of its identity. Not while it is in a queue.
    pub fn renumber(&self) {
        self.number.store(next_number(), Ordering::Relaxed);
    }

    /// What its identity is charged when the job is taken from the queue: the cost the first time, and
    /// nothing if the job comes back.
    pub fn charge(&self) -> usize {
        let is_charged = self.is_charged.swap(true, Ordering::Relaxed);
        if is_charged { 0 } else { self.command.cost() }
    }

    /// Whether its identity was charged.
    pub fn is_charged(&self) -> bool {
        self.is_charged.load(Ordering::Relaxed)
    }

    /// Claims the job: from now on the database decides. False if the caller has abandoned the job or
    /// its deadline has passed.
    pub fn claim(&self) -> bool {
        let next = if self.deadline > Instant::now() { CLAIMED } else { ABANDONED };
        self.has_waiter()
            && match self.state.exchange(WAITING, next) {
                Ok(_) => next == CLAIMED,
                Err(state) => state == CLAIMED,
            }
    }

    /// Returns the job after an attempt that certainly changed nothing, unless an earlier attempt is
    /// in doubt.
    pub fn unclaim(&self) {
        if !self.is_in_doubt() {
            // Fails if the job was not claimed, which is fine.
            let _ = self.state.exchange(CLAIMED, WAITING);
        }
    }

    /// An attempt at this job may have been committed.
    pub fn mark_in_doubt(&self) {
        // A job that was not claimed was not written.
        if self.state.0.load(Ordering::Acquire) == CLAIMED {
            self.in_doubt.store(true, Ordering::Release);
        }
    }

    /// Whether an attempt at this job may have been committed.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    /// Remembers the version that the account has before an attempt at its update, if it exists. What
    /// the attempt changes has a higher one. Of several attempts in doubt the lowest counts.
    pub fn found_version(&self, version: Option<i64>) {
        let version = version.unwrap_or(NO_VERSION);
        if self.is_in_doubt() {
            self.version.fetch_min(version, Ordering::AcqRel);
        } else {
            self.version.store(version, Ordering::Release);
        }
    }

    /// The version above which an attempt in doubt may have changed the account, if there is one.
    pub fn version_in_doubt(&self) -> Option<i64> {
        let version = self.version.load(Ordering::Acquire);
        (self.is_in_doubt() && version != NO_VERSION).then_some(version)
    }

    /// Starts the wait for this account, unless the job waits for another one already.
    pub fn start_wait(&self, account_id: &AccountId) {
        let mut blocked = lock(&self.blocked);
        blocked.get_or_insert_with(|| (account_id.clone(), Instant::now()));
    }

    /// Ends the wait. Returns the account, and since when the job waited for it.
    pub fn end_wait(&self) -> Option<(AccountId, Instant)> {
        lock(&self.blocked).take()
    }

    /// Whether the caller still waits for the result.
    pub fn has_waiter(&self) -> bool {
        let reply = lock(&self.reply);
        reply.as_ref().is_some_and(|reply| !reply.sender.is_closed())
    }

    /// Completes the job with its committed result.
    pub fn complete(&self, result: Result<CommandResult, Rejection>) {
        match result {
            // An earlier attempt in doubt may have applied this very command, which has no record
            // that would say so.
            Err(rejection) if self.command.key().is_none() => self.fail(Error::Rejected(rejection)),
            result => self.reply(result.map_err(Error::Rejected)),
        }
    }

    /// Fails the job with a lock timeout if no more than this time is left until its deadline, and
    /// returns whether that was so.
    pub fn expire(&self, time_needed: Duration) -> bool {
        let has_expired = self.deadline <= Instant::now() + time_needed;
        if has_expired {
            self.fail(Error::LockTimeout);
        }
        has_expired
    }

    /// Fails the job without a result. If an earlier attempt is in doubt, the outcome is unknown,
    /// whatever the error.
    pub fn fail(&self, failure: Error) {
        let failure = if self.is_in_doubt() {
            Error::DatabaseUnavailable(Some(Outcome::Unknown))
        } else {
            failure
        };
        self.reply(Err(failure));
    }

    /// Sends the result, unless the job has one. A caller who has gone gets none.
    fn reply(&self, result: Result<CommandResult, Error>) {
        let reply = lock(&self.reply).take();
        if let Some(reply) = reply {
            let Reply { sender, permits, lines, audit } = reply;
            let count = records::count(&self.command, &result, lines);
            permits.records.correct(&self.identity, lines, count, Instant::now());
            if let Some(audit) = audit {
                audit.end(audited::outcome(&self.command, &result));
            }
            let _ = sender.send(result);
        }
    }
}

/// A job that is dropped has no result. If an attempt had claimed it, a worker panicked.
impl Drop for Job {
    fn drop(&mut self) {
        let audit = lock(&self.reply).take().and_then(|reply| reply.audit);
        if let (CLAIMED, Some(audit)) = (self.state.0.load(Ordering::Acquire), audit) {
            audit.end(audit::Outcome::Unknown("internal"));
        }
    }
}

impl Completion {
    /// Waits for the result until the deadline.
    pub async fn wait(mut self) -> Result<CommandResult, Error> {
        match tokio::time::timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(result)) => result,
            // Dropped without a result before the deadline: the worker panicked while it had the job.
            Ok(Err(_)) if Instant::now() < self.deadline => {
                Err(Error::Internal(Some(self.outcome())))
            }
            Ok(Err(_)) | Err(_) => Err(Error::DeadlineExceeded(Some(self.outcome()))),
        }
    }

    fn outcome(&self) -> Outcome {
        match self.state.exchange(WAITING, ABANDONED) {
            Ok(_) | Err(ABANDONED) => Outcome::NotApplied,
            Err(_) => Outcome::Unknown,
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let _ = self.state.exchange(WAITING, ABANDONED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Budgets,
        domain::{fixtures::new_account, ids::Identity},
    };

    fn job(deadline: Instant) -> (Arc<Job>, Completion) {
        let command = Command::CreateAccount(new_account("a"));
        let budgets = Budgets::for_tests(1, false);
        let queue = budgets.queue.take_one(&Identity::anonymous()).unwrap();
        let records = budgets.records.clone();
        new(command, deadline, Permits { queue, records, _message: None, _resolved: None })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn late(outcome: Outcome) -> Error {
        Error::DeadlineExceeded(Some(outcome))
    }

    #[tokio::test]
    async fn a_job_is_either_claimed_or_abandoned() {
        let (abandoned, completion) = job(soon());
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::NotApplied));
        assert!(!abandoned.claim(), "its caller got the outcome not applied");

        let (claimed, completion) = job(soon());
        assert!(claimed.claim());
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::Unknown));
    }

    #[tokio::test]
    async fn a_caller_who_is_gone_or_late_is_not_served() {
        let (job_of_one_who_left, completion) = job(soon());
        drop(completion);
        assert!(!job_of_one_who_left.claim() && !job_of_one_who_left.has_waiter());

        let (late_job, completion) = job(Instant::now());
        assert!(!late_job.claim());
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::NotApplied));
    }

    #[tokio::test]
    async fn what_surely_failed_can_be_abandoned_again() {
        let (job, completion) = job(soon());
        assert!(job.claim());
        job.unclaim();
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::NotApplied));
    }

    #[tokio::test]
    async fn what_may_have_been_applied_is_never_called_not_applied() {
        let (timed_out, completion) = job(soon());
        assert!(timed_out.claim());
        timed_out.mark_in_doubt();
        timed_out.unclaim();
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::Unknown));

        let (given_up, completion) = job(soon());
        assert!(given_up.claim());
        given_up.mark_in_doubt();
        assert!(given_up.claim(), "it can be tried again");
        given_up.fail(Error::LockTimeout);
        let unknown = Error::DatabaseUnavailable(Some(Outcome::Unknown));
        assert_eq!(completion.wait().await.unwrap_err(), unknown);
    }

    #[tokio::test]
    async fn of_the_versions_that_attempts_in_doubt_have_found_the_lowest_counts() {
        let (job, _completion) = job(soon());
        assert!(job.claim());
        job.found_version(Some(3));
        job.unclaim();
        assert!(job.claim());
        job.found_version(Some(7));
        assert_eq!(job.version_in_doubt(), None);
        job.mark_in_doubt();
        assert_eq!(job.version_in_doubt(), Some(7), "the first attempt certainly changed nothing");
        for (found, lowest) in [(None, 7), (Some(9), 7), (Some(5), 5)] {
            job.found_version(found);
            assert_eq!(job.version_in_doubt(), Some(lowest));
        }
    }

    #[tokio::test]
    async fn an_attempt_in_doubt_that_found_no_account_has_changed_none() {
        let (job, _completion) = job(soon());
        assert!(job.claim());
        job.found_version(None);
        job.mark_in_doubt();
        assert_eq!(job.version_in_doubt(), None);
        job.found_version(Some(1));
        assert_eq!(job.version_in_doubt(), Some(1), "the next one may have changed it");
    }

    #[tokio::test]
    async fn a_job_that_was_not_claimed_cannot_become_uncertain() {
        let (job, completion) = job(soon());
        job.mark_in_doubt();
        assert!(!job.is_in_doubt());
        assert_eq!(completion.wait().await.unwrap_err(), late(Outcome::NotApplied));
    }
}
