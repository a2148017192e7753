//! One database transaction for a batch of jobs.
//!
//! Nothing is retried here and nobody is answered: that is the [`super::worker`]'s. A second
//! attempt starts from fresh rows; nothing that this one has worked out outlives it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{
        book::{Answer, Book, Found},
        ids::AccountId,
        rejection::Rejection,
    },
    ledger::{job::Job, stats::Timings},
    storage::{CommitError, LAPSED_MAX, LockWait, Locked, StorageError, WriteTransaction},
};

/// A job with the verdict that was committed.
pub type Judged = (Arc<Job>, Result<Answer, Rejection>);

/// What came of an attempt that committed.
pub struct Attempted {
    /// Jobs with their verdicts. Those that their callers gave up are in neither list.
    pub judged: Vec<Judged>,
    /// Jobs left out because someone else holds this account's lock.
    pub held_elsewhere: Vec<(Arc<Job>, AccountId)>,
    /// Where the time went.
    pub timings: Timings,
    /// Nothing was judged: only some of very many holds that have expired were recorded so.
    is_partial: bool,
}

/// Why an attempt came to nothing, or may have.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Nothing was committed.
    #[error(transparent)]
    NotApplied(#[from] StorageError),
    /// All of the batch was committed, or nothing.
    #[error("{0}")]
    Unknown(String),
}

impl AttemptError {
    /// The error as it may be logged at any level.
    pub fn summary(&self) -> String {
        match self {
            Self::NotApplied(error) => error.summary(),
            Self::Unknown(text) => text.clone(),
        }
    }
}

/// Whether to ask for the verdicts that there are before judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Ask. A verdict that comes up in between nevertheless is seen when the request ids are
    /// inserted.
    First,
    /// Take all requests for new, which saves a round trip and the search; if one is not, the
    /// insert finds it, and the attempt fails with [`StorageError::Decided`].
    Unneeded,
}

/// Tries the jobs in a transaction that has begun, and ends it either way. The time counts from
/// `start`.
pub async fn attempt(
    transaction: WriteTransaction,
    start: Instant,
    jobs: &[Arc<Job>],
    wait: LockWait,
    lookup: Lookup,
) -> Result<Attempted, AttemptError> {
    match decide(&transaction, start, jobs, wait, lookup).await {
        Ok(mut attempted) => match transaction.commit().await {
            // Each attempt leaves fewer for the next.
            Ok(()) if attempted.is_partial => {
                let text = format!("more than {LAPSED_MAX} holds have expired");
                Err(AttemptError::NotApplied(StorageError::Aborted(text)))
            }
            Ok(()) => {
                let timings = &mut attempted.timings;
                let before = timings.lock_wait + timings.write_time;
                timings.commit_time = start.elapsed().saturating_sub(before);
                #[cfg(test)]
                super::faults::strike(super::faults::Point::AfterCommit, jobs);
                Ok(attempted)
            }
            Err(CommitError::NotCommitted(error)) => Err(AttemptError::NotApplied(error)),
            Err(CommitError::Unknown(error)) => Err(AttemptError::Unknown(error)),
        },
        Err(error) => {
            // If this fails the connection is lost, and the transaction with it; the connection
            // must not be used again, whatever the first error was.
            match transaction.roll_back().await {
                Ok(()) => Err(AttemptError::NotApplied(error)),
                Err(rollback) => {
                    let text = format!("{error}; and the rollback failed: {rollback}");
                    Err(AttemptError::NotApplied(StorageError::Unavailable(text)))
                }
            }
        }
    }
}

async fn decide(
    transaction: &WriteTransaction,
    start: Instant,
    jobs: &[Arc<Job>],
    wait: LockWait,
    lookup: Lookup,
) -> Result<Attempted, StorageError> {
    // 1. Lock the accounts.
    let account_ids = jobs.iter().flat_map(|job| job.command.account_ids()).cloned().collect();
    let Locked { accounts, held_elsewhere, now_us } = transaction.lock(&account_ids, wait).await?;
    let lock_wait = start.elapsed();
    let (held_elsewhere, ours) = part(jobs, &held_elsewhere);

    // 2. Read the verdicts that there are, in a statement after the lock.
    let (now_us, decided) = match now_us {
        Some(now_us)
            if lookup == Lookup::Unneeded && !ours.iter().any(|it| it.command.needs_lookup()) =>
        {
            (now_us, HashMap::new())
        }
        _ => {
            let keys = ours.iter().filter_map(|job| job.command.key()).cloned().collect();
            transaction.decided(&keys).await?
        }
    };

    // 3. Read the holds: those that are named, and those that may have expired.
    let hold_ids: BTreeSet<_> =
        ours.iter().filter_map(|job| job.command.hold_id()).cloned().collect();
    let with_holds = accounts.iter().filter(|account| account.held.is_positive());
    let with_holds: BTreeSet<_> = with_holds.map(|account| account.account_id.clone()).collect();
    let (now_us, holds) = match hold_ids.is_empty() && with_holds.is_empty() {
        true => (now_us, Vec::new()),
        false => transaction.holds(&hold_ids, &with_holds).await?,
    };

    let lapsed = holds.iter().filter(|hold| hold.has_lapsed(now_us)).count();
    let is_partial = lapsed >= LAPSED_MAX;

    // 4. Read which of the transactions that are to be reversed were so before.
    let reversals = ours.iter().filter_map(|job| job.command.reverses()).collect();
    let reversed_by = transaction.reversed_by(&reversals).await?;

    // 5. Apply each command in turn, in memory; a job that its caller gave up is left out.
    //    Where more holds have expired than are recorded at once, nothing can be judged yet.
    let ours = if is_partial { Vec::new() } else { ours };
    let mut book = Book::new(Found { accounts, holds, decided, reversed_by, now_us });
    let judged = ours
        .into_iter()
        .filter(|job| job.claim())
        .map(|job| {
            let verdict = book.apply(&job.command);
            (job, verdict)
        })
        .collect();

    #[cfg(test)]
    super::faults::strike(super::faults::Point::BeforeWrite, jobs);

    // 6. Write what has changed; the caller commits.
    transaction.write(&book).await?;
    let write_time = start.elapsed().saturating_sub(lock_wait);
    let timings = Timings { start, lock_wait, write_time, commit_time: Duration::ZERO };
    Ok(Attempted { judged, held_elsewhere, timings, is_partial })
}

type Parted = (Vec<(Arc<Job>, AccountId)>, Vec<Arc<Job>>);

/// The jobs that need an account which is held elsewhere, with the first such, and the others.
fn part(jobs: &[Arc<Job>], held_elsewhere: &BTreeSet<AccountId>) -> Parted {
    let mut held = Vec::new();
    let mut ours = Vec::with_capacity(jobs.len());
    for job in jobs {
        match job.command.account_ids().find(|id| held_elsewhere.contains(*id)) {
            Some(account_id) => held.push((job.clone(), account_id.clone())),
            None => ours.push(job.clone()),
        }
    }
    (held, ours)
}
