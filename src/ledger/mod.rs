//! The write path, and the reads beside it.
//!
//! ```text
//! Ledger::make -> line -> worker: takes all that waits and is free, 1..N jobs, into one transaction
//!                       transaction: begin -> lock -> read -> fold -> write -> commit
//!                          executor: only now: answer each job with its own verdict
//! ```
//!
//! A request alone is a batch of one; there is no other way to change anything. The future of
//! an RPC holds nothing but a ticket (`write_path::job::Ticket`): when it is dropped, no transaction is.
//! Correctness rests on the row lock and the stored request ids, never on this process: an
//! attempt whose outcome is not known is simply made again, and finds what it did.

mod error;
mod metrics;
mod queries;
mod reading;
mod sqlite_wal;
mod watch;
mod write_path;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

pub use crate::ledger::{
    error::{Failure, Outcome},
    metrics::{
        contention::ContendedAccount,
        write_path::{Distribution, Load, WritePathStats},
    },
    watch::{Page, Place, Watcher},
};
use crate::{
    domain::{
        account::{Account, AccountUpdate, Labels, NewAccount},
        authorization::Caller,
        command::{Action, Command, Request},
        hold::Capture,
        ids::{RequestId, RequestKey},
        unit_of_work::{CommandResult, RequestRecord, RequestResult},
    },
    ledger::{
        metrics::write_path::Stats,
        write_path::{job::Permits, queue::Line},
    },
    storage::{Connections, SchemaStatus, StorageError, Store},
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
    /// The same with connections of its own for what the service itself reads: what a change
    /// names, what is new for those who watch, whether it is ready. No caller's read is in its way.
    own_reads: Arc<Store>,
    line: Arc<Line>,
    stats: Arc<Stats>,
    hub: Arc<watch::Hub>,
    /// A permit for every command that is accepted and not yet answered.
    places: Arc<Semaphore>,
    /// Of these, as many as all streams together may have: they wait for one, so a queue that they
    /// fill would be full for ever to those who are refused.
    stream_permits: Arc<Semaphore>,
    /// Commands for which there was none.
    shed: ::metrics::Counter,
    limits: Limits,
    closed: AtomicBool,
}

/// An accepted request. Dropped, it is given up, if that is still possible.
pub struct RequestTicket(write_path::job::Ticket);

impl RequestTicket {
    /// Waits for the verdict, until the deadline.
    ///
    /// # Errors
    /// The refusal, which is kept, or no verdict was reached.
    pub async fn done(self) -> Result<RequestResult, Failure> {
        match self.0.verdict().await? {
            CommandResult::Request(result) => Ok(result),
            CommandResult::Account(_) | CommandResult::Record(_) => Err(WRONG_ANSWER),
        }
    }
}

/// Room in the queue for a request of a stream.
pub struct StreamPermit(Option<OwnedSemaphorePermit>);

/// A command that was answered with another one's answer: a defect.
const WRONG_ANSWER: Failure = Failure::Internal(Some(Outcome::Unknown));

impl Ledger {
    /// Starts the workers.
    ///
    /// # Errors
    /// On SQLite, the file cannot be opened.
    pub async fn start(store: Arc<Store>, limits: Limits) -> Result<Self, StorageError> {
        let own_reads = Arc::new(store.reserve().await?);
        // The line has no bound of its own: what bounds it is the number of places.
        let line = Arc::new(Line::default());
        let stats = Arc::new(Stats::default());
        write_path::worker::spawn(&store, &line, &stats, limits.batch_size_max);
        let hub = watch::Hub::start(own_reads.clone());
        tokio::spawn(sqlite_wal::keep_short(Arc::downgrade(&store)));
        Ok(Self {
            store,
            own_reads,
            line,
            stats,
            hub,
            places: Arc::new(Semaphore::new(limits.queue_capacity)),
            stream_permits: Arc::new(Semaphore::new((limits.queue_capacity / 2).max(1))),
            shed: ::metrics::counter!("passbook_calls_shed_total", "limit" => "queue"),
            limits,
            closed: AtomicBool::new(false),
        })
    }

    /// Opens an account, or returns it if it is open with the same attributes.
    ///
    /// # Errors
    /// The caller may not, the account exists with other attributes, or no verdict was reached.
    pub async fn create_account(
        &self,
        caller: &Caller,
        new: NewAccount,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        caller.grant.check_account(&new.account_id)?;
        self.account_after(Command::CreateAccount(new), deadline).await
    }

    /// Changes what an account is. Not under a request id: what it is to be, it may be already.
    ///
    /// # Errors
    /// The caller may not, the refusal, or no verdict was reached.
    pub async fn update_account(
        &self,
        caller: &Caller,
        update: AccountUpdate,
        deadline: Instant,
    ) -> Result<Account, Failure> {
        caller.grant.check_account(&update.account_id)?;
        self.account_after(Command::UpdateAccount(update), deadline).await
    }

    async fn account_after(&self, command: Command, deadline: Instant) -> Result<Account, Failure> {
        match self.accept(command, deadline, None)?.verdict().await? {
            CommandResult::Account(account) => Ok(account),
            CommandResult::Request(_) | CommandResult::Record(_) => Err(WRONG_ANSWER),
        }
    }

    /// Moves or holds money, exactly once per request id.
    ///
    /// # Errors
    /// The caller may not, the refusal, which is kept, or no verdict was reached.
    pub async fn make(
        &self,
        caller: &Caller,
        mut request: Request,
        deadline: Instant,
    ) -> Result<RequestResult, Failure> {
        self.look_ahead(&mut request.action, deadline).await.map_err(Failure::not_applied)?;
        self.begin(caller, request, deadline)?.done().await
    }

    /// Accepts a change of balances; several are usually made in the order in which they are
    /// accepted, unless a row is locked by someone else or an attempt fails.
    ///
    /// # Errors
    /// It was not accepted, and is not applied.
    pub fn begin(
        &self,
        caller: &Caller,
        request: Request,
        deadline: Instant,
    ) -> Result<RequestTicket, Failure> {
        self.begin_with(caller, request, deadline, None)
    }

    /// The same for the next request of a stream.
    ///
    /// # Errors
    /// It was not accepted, and is not applied.
    pub fn begin_of_stream(
        &self,
        caller: &Caller,
        request: Request,
        deadline: Instant,
        permit: StreamPermit,
    ) -> Result<RequestTicket, Failure> {
        self.begin_with(caller, request, deadline, permit.0)
    }

    fn begin_with(
        &self,
        caller: &Caller,
        request: Request,
        deadline: Instant,
        streams: Option<OwnedSemaphorePermit>,
    ) -> Result<RequestTicket, Failure> {
        caller.grant.check_request(&request)?;
        Ok(RequestTicket(self.accept(Command::Request(Arc::new(request)), deadline, streams)?))
    }

    /// Waits until streams have room in the queue for one more request.
    pub async fn stream_permit(&self) -> StreamPermit {
        // None only if the semaphore were closed, which nobody does.
        StreamPermit(self.stream_permits.clone().acquire_owned().await.ok())
    }

    /// The verdict under a request id as it was answered, if there is one. With `fence` there is
    /// one afterwards: that nothing is made under it.
    ///
    /// # Errors
    /// The database does not answer in time.
    pub async fn resolve(
        &self,
        caller: &Caller,
        request_id: RequestId,
        fence: bool,
        deadline: Instant,
    ) -> Result<Option<RequestRecord>, Failure> {
        let key = RequestKey { caller: caller.recorded_as.clone(), request_id };
        if !fence {
            return self.record(&key, deadline).await;
        }
        let request = Request {
            key,
            transaction_id: Uuid::now_v7(),
            action: Action::Fence,
            description: String::new(),
            labels: Labels::new(),
            validate_only: false,
        };
        let command = Command::Request(Arc::new(request));
        match self.accept(command, deadline, None)?.verdict().await? {
            CommandResult::Record(record) => Ok(Some(record)),
            CommandResult::Account(_) | CommandResult::Request(_) => Err(WRONG_ANSWER),
        }
    }

    /// Looks up what never changes of what a request names: it tells which accounts to lock.
    async fn look_ahead(&self, action: &mut Action, deadline: Instant) -> Result<(), Failure> {
        let store = &self.own_reads;
        let look_up = async {
            match action {
                Action::CaptureHold(Capture { hold, .. }) | Action::ReleaseHold(hold) => {
                    hold.resolved = store.hold(&hold.hold_id, i64::MIN).await?.value.map(Arc::new);
                }
                Action::Reverse(named) => {
                    named.resolved = store.transaction(named.transaction_id).await?;
                }
                Action::Post(..) | Action::PlaceHold(_) | Action::Fence => {}
            }
            Ok(())
        };
        match timeout_at(deadline, look_up).await {
            Ok(result) => result.map_err(Failure::of_read),
            Err(_) => Err(Failure::DeadlineExceeded(None)),
        }
    }

    fn accept(
        &self,
        command: Command,
        deadline: Instant,
        streams: Option<OwnedSemaphorePermit>,
    ) -> Result<write_path::job::Ticket, Failure> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Failure::ShuttingDown);
        }
        if deadline <= Instant::now() {
            return Err(Failure::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let Ok(queue) = self.places.clone().try_acquire_owned() else {
            self.shed.increment(1);
            return Err(Failure::Overloaded { limit: self.limits.queue_capacity });
        };
        let (job, ticket) = write_path::job::new(command, deadline, Permits { queue, streams });
        self.line.push(job);
        Ok(ticket)
    }

    /// What the write path has done since it started.
    #[must_use]
    pub fn write_path_stats(&self) -> WritePathStats {
        self.stats.look()
    }

    /// The accounts that make requests wait, those with the most waits first.
    #[must_use]
    pub fn most_contended_accounts(&self, limit: usize) -> Vec<ContendedAccount> {
        self.line.contention.most_contended(limit)
    }

    /// What there is to do at the moment.
    #[must_use]
    pub fn load(&self) -> Load {
        let readers = self.store.reader_connections();
        let own = self.own_reads.reader_connections();
        let in_use = readers.in_use + own.in_use + self.stats.writers();
        Load {
            queue_length: self.limits.queue_capacity - self.places.available_permits(),
            queue_capacity: self.limits.queue_capacity,
            watchers: self.hub.watchers(),
            connections: Connections { in_use, idle: readers.idle + own.idle },
        }
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
        if let Err(error) = self.own_reads.close_readers().await {
            tracing::warn!(%error, "closing the database failed; nothing is lost");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "closing the database failed; nothing is lost");
        }
    }

    /// Whether changes can be made now: the database answers and has this program's schema.
    ///
    /// # Errors
    /// Why not, for the log.
    pub async fn check_ready(&self, timeout: Duration) -> Result<(), String> {
        self.store.check_backend().await?;
        let failed = match tokio::time::timeout(timeout, self.own_reads.schema_status()).await {
            // A newer server migrates before the older ones are stopped: they go on meanwhile.
            Ok(Ok(SchemaStatus::Current | SchemaStatus::Ahead(_))) => {
                self.measure_oldest_snapshot().await;
                return self.check_writer().await;
            }
            Ok(Ok(status @ (SchemaStatus::Missing | SchemaStatus::Behind(_)))) => {
                return Err(format!("the schema is {status:?}"));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the database does not answer within {timeout:?}"),
        };
        // Finds the primary if it has moved, or says better what is the matter.
        self.store.find().await.map_err(|error| error.to_string())?;
        Err(failed)
    }

    /// For who asks why changes of hot accounts have become slow.
    async fn measure_oldest_snapshot(&self) {
        // If it cannot be read now, it is in a second.
        if let Ok(age) = self.own_reads.oldest_snapshot().await {
            ::metrics::gauge!("passbook_database_oldest_snapshot_seconds").set(age.as_secs_f64());
        }
    }

    /// Whether a connection that writes can be had, if the last one could not.
    async fn check_writer(&self) -> Result<(), String> {
        if !self.stats.lacks_writer() {
            return Ok(());
        }
        match self.store.writer().await {
            Ok(_) => self.stats.set_lacks_writer(false),
            Err(error) => return Err(error.summary()),
        }
        Ok(())
    }
}
