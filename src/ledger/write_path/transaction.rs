//! One database transaction for a batch of jobs.
//!
//! This file retries nothing and completes no job: [`super::worker`], [`super::retry`] and
//! [`super::executor`] do. A second attempt starts from fresh rows; nothing that the first one computed
//! outlives it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{
        account::{Account, AccountUpdate},
        command::Command,
        hold::Hold,
        ids::AccountId,
        rejection::Rejection,
        unit_of_work::{CommandResult, LockedState, UnitOfWork},
    },
    ledger::write_path::job::Job,
    storage::{CommitError, LockMode, LockedAccounts, StorageError, WriteTransaction, Writer},
};

/// The part of its expired holds that a transaction records of each account at least, however many
/// accounts it has: an account with fewer is done with.
const EXPIRED_OF_ACCOUNT_PART: usize = 32;

/// Jobs that are executed together.
pub struct Batch {
    /// At least one.
    pub jobs: Vec<Arc<Job>>,
    /// How to treat locked rows.
    pub mode: LockMode,
    /// When to look up records.
    pub lookup: Lookup,
    /// The expired holds that the transaction records. The next transactions record the rest.
    pub expired_max: usize,
    /// When the batch was first tried.
    pub started_at: Instant,
    /// How often it was tried, the present attempt included.
    pub attempts: usize,
}

impl Batch {
    /// A batch for its first attempt.
    pub fn new(jobs: Vec<Arc<Job>>, mode: LockMode, lookup: Lookup, expired_max: usize) -> Self {
        Self { jobs, mode, lookup, expired_max, started_at: Instant::now(), attempts: 1 }
    }

    /// The most expired holds of each of so many accounts that it records beside so many of others.
    fn expired_of_account_max(&self, accounts: usize, others: usize) -> usize {
        let left = self.expired_max.saturating_sub(others);
        let least = (self.expired_max / EXPIRED_OF_ACCOUNT_PART).max(1);
        (left / accounts.max(1)).max(least)
    }
}

/// When to look up the records of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Before the batch is executed. A record that is committed in between is found by the insert.
    Before,
    /// Only after a conflict: all requests are taken for new, which saves a round trip. If one has a
    /// record, the insert finds it, and the attempt fails with [`StorageError::RepeatedRequest`].
    OnConflict,
}

/// What a transaction waits for before it locks its rows.
#[derive(Clone, Copy)]
pub enum WaitFor<'a> {
    /// It does not wait.
    Nothing,
    /// The turn among the servers.
    Turn,
    /// One row, for at most this time.
    Row(&'a AccountId, Duration),
}

/// A transaction that has begun.
pub struct OpenTransaction {
    transaction: WriteTransaction,
    /// Just before its BEGIN.
    pub start: Instant,
}

/// Jobs that were left out of a transaction, each with the first account for which it was.
pub type LockedJobs = Vec<(Arc<Job>, AccountId)>;

/// Jobs that a transaction which committed has left out.
pub struct LeftOut {
    /// Locked by another Passbook server, so for a moment.
    pub by_peers: LockedJobs,
    /// Locked by another program.
    pub elsewhere: LockedJobs,
    /// Of accounts with more expired holds than one transaction records. It has recorded some of them.
    pub with_expired_holds: LockedJobs,
}

impl LeftOut {
    /// All jobs that need a locked row.
    pub fn locked(mut self) -> LockedJobs {
        self.elsewhere.append(&mut self.by_peers);
        self.elsewhere
    }
}

/// A transaction that was committed, or rolled back because all jobs need locked rows.
pub struct Executed {
    /// Jobs with their committed results. Abandoned jobs are in no list.
    pub completed: Vec<(Arc<Job>, Result<CommandResult, Rejection>)>,
    /// Jobs that were not applied and get no result: what is known of them is not enough to decide.
    pub undecided: Vec<Arc<Job>>,
    /// Jobs that were not applied yet.
    pub left_out: LeftOut,
    /// Just before its BEGIN.
    pub start: Instant,
    /// From BEGIN until the rows were locked and read.
    pub lock_wait: Duration,
    /// From there until all was written.
    pub write_time: Duration,
    /// The COMMIT.
    pub commit_time: Duration,
}

/// A batch whose rows are locked.
struct LockedBatch {
    /// The jobs that can be executed.
    jobs: Vec<Arc<Job>>,
    accounts: Vec<Account>,
    now_us: Option<i64>,
    /// What is known so far.
    executed: Executed,
}

/// Why a transaction has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Nothing was committed.
    #[error(transparent)]
    NotApplied(#[from] StorageError),
    /// All of the batch was committed, or nothing.
    #[error("{0}")]
    Unknown(String),
}

impl ExecuteError {
    /// The error as it may be logged at any level.
    pub fn summary(&self) -> String {
        match self {
            Self::NotApplied(error) => error.summary(),
            Self::Unknown(_) => self.to_string(),
        }
    }
}

impl OpenTransaction {
    /// Begins a transaction, and waits for what must come first.
    pub async fn begin(writer: &Writer, first: WaitFor<'_>) -> Result<Self, StorageError> {
        let start = Instant::now();
        let transaction = writer.begin().await?;
        let waited = match first {
            WaitFor::Nothing => Ok(()),
            WaitFor::Turn => transaction.take_turn().await,
            WaitFor::Row(account_id, time_max) => transaction.wait_for(account_id, time_max).await,
        };
        match waited {
            Ok(()) => Ok(Self { transaction, start }),
            Err(error) => Err(roll_back(transaction, error).await),
        }
    }

    /// Ends a transaction that has no jobs.
    pub async fn abandon(self) -> Result<(), StorageError> {
        self.transaction.roll_back().await
    }

    /// Executes the batch, and commits or rolls back. Jobs of the same accounts that have arrived when
    /// the rows are locked join the batch through `join`.
    pub async fn execute(
        self,
        batch: &mut Batch,
        join: impl FnOnce(&[Account]) -> Vec<Arc<Job>>,
    ) -> Result<Executed, ExecuteError> {
        let locked = match self.lock(batch, join).await {
            Ok(locked) => locked,
            Err(error) => return Err(roll_back(self.transaction, error).await.into()),
        };
        if locked.jobs.is_empty() {
            let lost = |error| StorageError::Unavailable(format!("the rollback failed: {error}"));
            self.transaction.roll_back().await.map_err(lost)?;
            return Ok(locked.executed);
        }
        let mut executed = match self.evaluate(batch, locked).await {
            Ok(executed) => executed,
            Err(error) => return Err(roll_back(self.transaction, error).await.into()),
        };
        match self.transaction.commit().await {
            Ok(()) => {
                let before = executed.lock_wait + executed.write_time;
                executed.commit_time = self.start.elapsed().saturating_sub(before);
                #[cfg(test)]
                super::failpoints::hit(super::failpoints::Point::AfterCommit, &batch.jobs);
                Ok(executed)
            }
            Err(CommitError::NotCommitted(error)) => Err(ExecuteError::NotApplied(error)),
            Err(CommitError::Unknown(error)) => Err(ExecuteError::Unknown(error)),
        }
    }

    /// Locks the accounts. If all are locked, jobs that need no others may join. (The clock was read
    /// while they were locked, so the time of such a job can lie before its arrival.)
    async fn lock(
        &self,
        batch: &mut Batch,
        join: impl FnOnce(&[Account]) -> Vec<Arc<Job>>,
    ) -> Result<LockedBatch, StorageError> {
        let Batch { jobs, mode, .. } = batch;
        let account_ids = jobs.iter().flat_map(|job| job.command.account_ids()).cloned().collect();
        let LockedAccounts { accounts, locked_by_peers, locked_elsewhere, now_us } =
            self.transaction.lock(&account_ids, *mode).await?;
        let lock_wait = self.start.elapsed();
        if *mode == LockMode::Wait {
            jobs.extend(join(&accounts));
        }
        let (elsewhere, jobs) = split(jobs.clone(), &locked_elsewhere);
        let (by_peers, jobs) = split(jobs, &locked_by_peers);
        let executed = Executed {
            completed: Vec::new(),
            undecided: Vec::new(),
            left_out: LeftOut { by_peers, elsewhere, with_expired_holds: Vec::new() },
            start: self.start,
            lock_wait,
            write_time: Duration::ZERO,
            commit_time: Duration::ZERO,
        };
        Ok(LockedBatch { jobs, accounts, now_us, executed })
    }

    /// Everything between the lock and the COMMIT.
    async fn evaluate(&self, batch: &Batch, locked: LockedBatch) -> Result<Executed, StorageError> {
        let transaction = &self.transaction;
        let LockedBatch { jobs, accounts, now_us, mut executed } = locked;

        // 1. Read the records, in a statement after the lock.
        let (now_us, records) = match now_us {
            Some(now_us)
                if batch.lookup == Lookup::OnConflict
                    && !jobs.iter().any(|it| it.command.needs_lookup()) =>
            {
                (now_us, HashMap::new())
            }
            _ => {
                let keys = jobs.iter().filter_map(|job| job.command.key()).cloned().collect();
                transaction.records(&keys).await?
            }
        };

        // 2. Read the named holds and those that may have expired.
        let hold_ids: BTreeSet<_> = jobs.iter().flat_map(|job| job.command.hold_ids()).collect();
        let with_holds = accounts.iter().filter(|account| account.held.is_positive());
        let with_holds: BTreeSet<_> = with_holds.map(|account| account.account_key).collect();
        let expired_max = batch.expired_of_account_max(with_holds.len(), 0);
        let (now_us, holds) = match hold_ids.is_empty() && with_holds.is_empty() {
            true => (now_us, Vec::new()),
            false => transaction.holds(&hold_ids, &with_holds, expired_max).await?,
        };

        // Of an account with more expired holds than this transaction records, it is not known what is
        // held. Its jobs are left out.
        let mut locked = LockedState { accounts, holds, records, now_us, ..LockedState::default() };
        let unknown = self.read_more_expired_holds(batch, &mut locked, expired_max).await?;
        let (mut left_out, jobs) = split(jobs, &unknown);
        let is_expiry =
            |(job, _): &mut (Arc<Job>, _)| matches!(job.command, Command::ExpireHolds(_));
        let expiries = left_out.extract_if(.., is_expiry);
        executed.undecided.extend(expiries.map(|(job, _)| job));
        executed.left_out.with_expired_holds = left_out;

        // 3. Read which of the transactions to reverse exist, and which were reversed before.
        let reversals = jobs.iter().filter_map(|job| job.command.reverses()).collect();
        locked.transactions = transaction.transactions(&reversals).await?;
        locked.reversed_by = transaction.reversed_by(&reversals).await?;

        // 4. Read the opening attributes of accounts that are to be opened again.
        let opened: BTreeSet<_> = jobs.iter().filter_map(|job| job.command.opens()).collect();
        let is_opened = |it: &&Account| it.version > 1 && opened.contains(&it.account_id);
        let opened = locked.accounts.iter().filter(is_opened);
        locked.openings = transaction.opening_attributes(opened).await?;

        // 5. Read which accounts have changed since an attempt in doubt at an update of them.
        let in_doubt = jobs.iter().filter_map(|job| update_in_doubt(job));
        let in_doubt = in_doubt.map(|(update, version)| (update.account_id.clone(), version));
        let changed = transaction.changed_after(&in_doubt.collect()).await?;

        // 6. Apply each command in turn, in memory, except those of abandoned jobs.
        let mut work = UnitOfWork::new(locked);
        apply(&mut work, jobs, &changed, &mut executed);

        #[cfg(test)]
        super::failpoints::hit(super::failpoints::Point::BeforeWrite, &batch.jobs);

        // 7. Write the changes. The caller commits.
        transaction.write(&work).await?;
        executed.write_time = self.start.elapsed().saturating_sub(executed.lock_wait);
        Ok(executed)
    }

    /// Reads more expired holds of the accounts of which `read_max` were read, because others have fewer.
    /// Returns the accounts that may have more than this transaction records.
    async fn read_more_expired_holds(
        &self,
        batch: &Batch,
        locked: &mut LockedState,
        read_max: usize,
    ) -> Result<BTreeSet<AccountId>, StorageError> {
        let with_more = locked.accounts_with_expired_holds(read_max);
        let is_other = |hold: &&Hold| !with_more.contains(&hold.account_id);
        let of_others = locked.expired_holds().filter(is_other).count();
        let max = batch.expired_of_account_max(with_more.len(), of_others);
        if with_more.is_empty() || max <= read_max {
            return Ok(with_more);
        }
        let accounts = locked.accounts.iter().filter(|it| with_more.contains(&it.account_id));
        let keys = accounts.map(|account| account.account_key).collect();
        let (_, holds) = self.transaction.holds(&BTreeSet::new(), &keys, max).await?;
        locked.holds.extend(holds);
        locked.holds.sort_unstable_by(|a, b| a.hold_id.cmp(&b.hold_id));
        locked.holds.dedup_by(|a, b| a.hold_id == b.hold_id);
        Ok(locked.accounts_with_expired_holds(max))
    }
}

/// Applies the commands of the jobs in turn. `changed` has the accounts that have changed since an attempt
/// in doubt, each with the version of such a change.
fn apply(
    work: &mut UnitOfWork,
    jobs: Vec<Arc<Job>>,
    changed: &HashMap<AccountId, i64>,
    executed: &mut Executed,
) {
    executed.completed.reserve(jobs.len());
    for job in jobs {
        if work.is_outdated(&job.command) || may_undo_another(work, &job, changed) {
            executed.undecided.push(job);
        } else if job.claim() {
            if let Command::UpdateAccount(update) = &job.command {
                job.found_version(work.version(&update.account_id));
            }
            let result = work.apply(&job.command);
            executed.completed.push((job, result));
        }
    }
}

/// Whether the job is an update of which an attempt is in doubt, and the account has changed since. If the
/// attempt was committed, its own change is the first of these, and to make it again would undo those of
/// others. Nothing is undone if the account is already as the update would make it.
fn may_undo_another(work: &UnitOfWork, job: &Job, changed: &HashMap<AccountId, i64>) -> bool {
    update_in_doubt(job).is_some_and(|(update, version)| {
        let has_changed = changed.get(&update.account_id).is_some_and(|last| *last > version);
        has_changed && work.would_change(update)
    })
}

/// The update of a job of which an attempt is in doubt, and the version of the account that this attempt
/// found. An update has no record that would say whether it was committed.
fn update_in_doubt(job: &Job) -> Option<(&AccountUpdate, i64)> {
    match &job.command {
        Command::UpdateAccount(update) => Some((update, job.version_in_doubt()?)),
        Command::CreateAccount(_) | Command::Request(_) | Command::ExpireHolds(_) => None,
    }
}

/// Rolls back a transaction that failed with `error`, and returns the error. If the rollback fails,
/// too, the connection is lost, and the transaction with it: the error says that the connection must
/// not be used again.
async fn roll_back(transaction: WriteTransaction, error: StorageError) -> StorageError {
    match transaction.roll_back().await {
        Ok(()) => error,
        Err(rollback) => {
            StorageError::Unavailable(format!("{error}; and the rollback failed: {rollback}"))
        }
    }
}

/// The jobs that need one of these accounts, with the first such, and the others.
fn split(jobs: Vec<Arc<Job>>, locked: &BTreeSet<AccountId>) -> (LockedJobs, Vec<Arc<Job>>) {
    if locked.is_empty() {
        return (Vec::new(), jobs);
    }
    let (mut left_out, mut ours) = (Vec::new(), Vec::with_capacity(jobs.len()));
    for job in jobs {
        let account_id = job.command.account_ids().find(|id| locked.contains(*id)).cloned();
        match account_id {
            Some(account_id) => left_out.push((job, account_id)),
            None => ours.push(job),
        }
    }
    (left_out, ours)
}
