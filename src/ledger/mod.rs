//! The write path, and the reads beside it.
//!
//! ```text
//! Ledger::post -> line -> worker: takes all that waits and is free, 1..N jobs, into one transaction
//!                           attempt: begin -> lock -> read -> fold -> write -> commit
//!                           only now: answer each job with its own verdict
//! ```
//!
//! A request alone is a batch of one; there is no other way to change anything. The future of
//! an RPC holds nothing but a ticket (`job::Ticket`): when it is dropped, no transaction is.
//! Correctness rests on the row lock and the stored request ids, never on this process: an
//! attempt whose outcome is not known is simply made again, and finds what it did.

mod attempt;
mod failure;
#[cfg(test)]
mod faults;
mod job;
mod lanes;
mod line;
mod mender;
mod stats;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

pub use crate::ledger::{
    failure::{Failure, Outcome},
    stats::{Distribution, WritePathStats},
    watch::{Page, Place, Watcher},
};
use crate::{
    domain::{
        account::{Account, NewAccount},
        book::Answer,
        command::{Command, Posting},
        ids::{AccountId, RequestKey},
        rejection::{Rejection, TransactionName},
        transaction::{Entry, Transaction},
    },
    ledger::{line::Line, stats::Stats},
    storage::{AccountFilter, EntryRange, SchemaStatus, StorageError, Store},
};

/// How much may wait, and how much goes into one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands accepted and not yet answered; one more is refused as overloaded.
    pub queue_capacity: usize,
    /// Changes of accounts (legs) in one database transaction.
    pub batch_size_max: usize,
}

/// A handle to the ledger: one method an RPC.
pub struct Ledger {
    store: Arc<Store>,
    line: Arc<Line>,
    stats: Arc<Stats>,
    hub: Arc<watch::Hub>,
    /// A permit for every command that is accepted and not yet answered.
    places: Arc<Semaphore>,
    limits: Limits,
    closed: AtomicBool,
}

/// A change of balances that was made, now or before.
#[derive(Clone, Debug)]
pub struct Posted {
    /// With all its entries.
    pub transaction: Arc<Transaction>,
    /// It had been made before, under the same request id.
    pub replayed: bool,
}

/// An accepted change of balances. Dropped, it is given up, if that is still possible.
pub struct PostingTicket(job::Ticket);

impl PostingTicket {
    /// Waits for the verdict, until the deadline.
    ///
    /// # Errors
    /// The refusal, which is kept, or no verdict was reached.
    pub async fn posted(self) -> Result<Posted, Failure> {
        match self.0.verdict().await? {
            Answer::Posted { transaction, replayed } => Ok(Posted { transaction, replayed }),
            Answer::Account(_) => Err(Failure::Internal(Some(Outcome::Unknown))),
        }
    }
}

impl Ledger {
    /// Starts the workers.
    #[must_use]
    pub fn start(store: Arc<Store>, limits: Limits) -> Self {
        // The line has no bound of its own: what bounds it is the number of places.
        let line = Arc::new(Line::default());
        let stats = Arc::new(Stats::default());
        worker::spawn(&store, &line, &stats, limits.batch_size_max);
        let hub = watch::Hub::start(store.clone());
        Self {
            store,
            line,
            stats,
            hub,
            places: Arc::new(Semaphore::new(limits.queue_capacity)),
            limits,
            closed: AtomicBool::new(false),
        }
    }

    /// Opens an account, or returns it if it is open with the same attributes.
    ///
    /// # Errors
    /// The account exists with other attributes, or no verdict was reached.
    pub async fn create_account(
        &self,
        new: NewAccount,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        match self.accept(Command::CreateAccount(new), deadline)?.verdict().await? {
            Answer::Account(account) => Ok(account),
            Answer::Posted { .. } => Err(Failure::Internal(Some(Outcome::Unknown))),
        }
    }

    /// Changes balances, exactly once per request id.
    ///
    /// # Errors
    /// The refusal, which is kept, or no verdict was reached.
    pub async fn post(&self, posting: Posting, deadline: Instant) -> Result<Posted, Failure> {
        self.begin_post(posting, deadline)?.posted().await
    }

    /// Accepts a change of balances; several are usually made in the order in which they are
    /// accepted, unless a row is locked by someone else or an attempt fails.
    ///
    /// # Errors
    /// It was not accepted, and is not applied.
    pub fn begin_post(
        &self,
        posting: Posting,
        deadline: Instant,
    ) -> Result<PostingTicket, Failure> {
        Ok(PostingTicket(self.accept(Command::Post(Arc::new(posting)), deadline)?))
    }

    fn accept(&self, command: Command, deadline: Instant) -> Result<job::Ticket, Failure> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Failure::ShuttingDown);
        }
        if deadline <= Instant::now() {
            return Err(Failure::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(Failure::Overloaded { limit: self.limits.queue_capacity });
        };
        let (job, ticket) = job::new(command, deadline, place);
        self.line.push(job);
        Ok(ticket)
    }

    /// What the write path has done since it started.
    #[must_use]
    pub fn write_path_stats(&self) -> WritePathStats {
        self.stats.look()
    }

    /// Commands that may be accepted and not yet answered.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.limits.queue_capacity
    }

    /// Whether everything that was accepted is answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.places.available_permits() == self.limits.queue_capacity
    }

    /// Takes nothing more, waits until everything that was accepted is answered, and leaves the
    /// database tidy.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let all = u32::try_from(self.limits.queue_capacity).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which nobody does.
        let _ = self.places.acquire_many(all).await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "closing the database failed; nothing is lost");
        }
    }

    /// One account.
    ///
    /// # Errors
    /// It does not exist, or the database does not answer in time.
    pub async fn account(
        &self,
        account_id: &AccountId,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        let found = read(deadline, self.store.account(account_id)).await?;
        found.ok_or_else(|| not_found(account_id))
    }

    /// Several accounts as of one instant, in the order asked for.
    ///
    /// # Errors
    /// One does not exist, or the database does not answer in time.
    pub async fn accounts(
        &self,
        account_ids: &[AccountId],
        deadline: Instant,
    ) -> Result<Vec<Account>, Failure> {
        let wanted: BTreeSet<_> = account_ids.iter().cloned().collect();
        let found = read(deadline, self.store.accounts(&wanted)).await?;
        let mut found: HashMap<_, _> =
            found.into_iter().map(|account| (account.account_id.clone(), account)).collect();
        let take = |id| found.remove(id).ok_or_else(|| not_found(id));
        account_ids.iter().map(take).collect()
    }

    /// A page of accounts, in order of their ids.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn list_accounts(
        &self,
        filter: &AccountFilter,
        after: Option<&AccountId>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<Account>, Failure> {
        read(deadline, self.store.list_accounts(filter, after, limit)).await
    }

    /// One transaction.
    ///
    /// # Errors
    /// It does not exist, or the database does not answer in time.
    pub async fn transaction(
        &self,
        caller: &Arc<str>,
        name: TransactionName,
        deadline: Instant,
    ) -> Result<Arc<Transaction>, Failure> {
        let found = match &name {
            TransactionName::TransactionId(id) => {
                read(deadline, self.store.transaction(*id)).await?
            }
            TransactionName::RequestId(request_id) => {
                let key = RequestKey { caller: caller.clone(), request_id: request_id.clone() };
                read(deadline, self.store.transaction_of_request(&key)).await?
            }
        };
        found.ok_or(Failure::Rejected(Rejection::TransactionNotFound(name)))
    }

    /// A page of an account's entries.
    ///
    /// # Errors
    /// The account does not exist, or the database does not answer in time.
    pub async fn list_entries(
        &self,
        account_id: &AccountId,
        range: &EntryRange,
        limit: u64,
        deadline: Instant,
    ) -> Result<Vec<Entry>, Failure> {
        let account = self.account(account_id, deadline).await?;
        read(deadline, self.store.list_entries(&account, range, limit)).await
    }

    /// Watches an account's entries from the one after `after_sequence` on; the deadline is that of
    /// the beginning.
    ///
    /// # Errors
    /// The account does not exist or has not come so far, too many watch already, or the database
    /// does not answer in time.
    pub async fn watch(
        &self,
        account_id: &AccountId,
        after_sequence: i64,
        deadline: Instant,
    ) -> Result<Watcher, Failure> {
        let place = self.hub.place()?;
        let account = self.account(account_id, deadline).await?;
        if after_sequence > account.sequence {
            return Err(Failure::SequenceNotReached { sequence: account.sequence });
        }
        Ok(self.hub.watch(account, after_sequence, place))
    }

    /// Whether changes can be made now: the database answers and has this program's schema.
    ///
    /// # Errors
    /// Why not, for the log.
    pub async fn check_ready(&self, timeout: Duration) -> Result<(), String> {
        match tokio::time::timeout(timeout, self.store.schema_status()).await {
            // A newer server migrates before the older ones are stopped: they go on meanwhile.
            Ok(Ok(SchemaStatus::Current | SchemaStatus::Ahead(_))) => Ok(()),
            Ok(Ok(status @ (SchemaStatus::Missing | SchemaStatus::Behind(_)))) => {
                Err(format!("the schema is {status:?}"))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }
}

fn not_found(account_id: &AccountId) -> Failure {
    Failure::Rejected(Rejection::AccountNotFound { account_id: account_id.clone() })
}

/// A read holds nothing that a dropped future could leak.
async fn read<T>(
    deadline: Instant,
    query: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline, query).await {
        Ok(result) => result.map_err(Failure::of_read),
        Err(_) => Err(Failure::DeadlineExceeded(None)),
    }
}
