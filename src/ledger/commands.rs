//! Commands: changes that go through the write path.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    audit::{self, PendingChange, Unavailable},
    budget::GatePermit,
    domain::{
        account::{Account, AccountUpdate, NewAccount},
        authorization::{Caller, Grant, PermissionDenied},
        balancing::chosen_by_callers,
        command::{Action, Command, Request, Reversal},
        hold::{Capture, HoldUpdate},
        ids::{AccountId, RequestId, RequestKey},
        unit_of_work::{CommandResult, RequestRecord, RequestResult},
    },
    ledger::{
        CallContext, Error, IDENTITY_STREAMS_PART, Ledger, Outcome,
        write_path::job::{self, Completion, Job, Permits},
    },
    storage::StorageError,
    telemetry::traces::CallTrace,
};

/// The result of another kind of command than the one that was sent: a defect.
const MISMATCHED_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// A request that was submitted. Dropping it cancels the request, unless a transaction has it
/// already.
pub enum PendingRequest {
    /// In the queue, with the grant of its caller.
    Queued(Completion, Arc<Grant>),
    /// Executed by a task of its own.
    Executing(oneshot::Receiver<Result<RequestResult, Error>>),
}

impl PendingRequest {
    /// Waits for the result, until the deadline.
    ///
    /// # Errors
    /// The request is rejected, or it gets no result.
    pub async fn wait(self) -> Result<RequestResult, Error> {
        match self {
            Self::Queued(completion, grant) => wait(completion, &grant, true).await,
            // Without a result, the task panicked.
            Self::Executing(result) => {
                result.await.unwrap_or(Err(Error::Internal(Some(Outcome::Unknown))))
            }
        }
    }
}

/// Waits for the result of a request, and leaves out what its caller must not see.
async fn wait(
    completion: Completion,
    grant: &Grant,
    has_named_amounts: bool,
) -> Result<RequestResult, Error> {
    let result = match completion.wait().await {
        Err(Error::Rejected(rejection)) => {
            let visible = grant.visible_rejection(rejection, has_named_amounts);
            return Err(Error::Rejected(visible));
        }
        result => result?,
    };
    let CommandResult::Request(result) = result else { return Err(MISMATCHED_RESULT) };
    let effects = grant.visible_effects(result.effects);
    Ok(RequestResult { effects, ..result })
}

/// Waits for the result of a command for an account.
async fn account_of(completion: Completion) -> Result<Account, Error> {
    let CommandResult::Account { account, .. } = completion.wait().await? else {
        return Err(MISMATCHED_RESULT);
    };
    Ok(account)
}

/// Requests of one call that are not in the queue yet. Dropping it cancels them.
#[must_use]
pub struct Submission {
    ledger: Arc<Ledger>,
    audit: Option<Arc<audit::Call>>,
    jobs: Vec<Arc<Job>>,
}

/// The right of a stream to one request that waits, is being applied, or has a result that the caller
/// has not read.
pub struct StreamPermit {
    /// Of all streams of the identity.
    _own: GatePermit,
    /// Of all streams.
    _all: Option<OwnedSemaphorePermit>,
}

/// # Errors
/// Every command fails if the caller lacks the right, if the command is rejected, or if it gets no result.
impl Ledger {
    /// Opens accounts, or returns those that were opened with the same attributes before. Returns a
    /// result for each, in their order.
    pub async fn create_accounts(
        &self,
        context: &CallContext,
        new: Vec<NewAccount>,
    ) -> Vec<Result<Account, Error>> {
        let mut jobs = Vec::with_capacity(new.len());
        let admit = |new| -> Result<Completion, Error> {
            let command = Command::CreateAccount(new);
            self.check_account_command(context, &command)?;
            let (job, completion) = self.admit(context, command)?;
            jobs.push(job);
            Ok(completion)
        };
        let completions: Vec<_> = new.into_iter().map(admit).collect();
        self.enqueue(context.audit.as_deref(), jobs).await;
        let mut results = Vec::with_capacity(completions.len());
        for completion in completions {
            results.push(match completion {
                Ok(completion) => account_of(completion).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Changes the attributes of an account. Needs no request id: repeating it changes nothing.
    pub async fn update_account(
        &self,
        context: &CallContext,
        update: AccountUpdate,
    ) -> Result<Account, Error> {
        let command = Command::UpdateAccount(update);
        self.check_account_command(context, &command)?;
        account_of(self.enqueue_one(context, command).await?).await
    }

    /// Checks what the caller and the budgets allow.
    fn check_account_command(&self, context: &CallContext, command: &Command) -> Result<(), Error> {
        context.check(command)?;
        Ok(self.budgets.records.take(&context.caller.identity, Instant::now())?)
    }

    /// Moves or holds money, exactly once per request id.
    pub async fn execute(
        &self,
        context: &CallContext,
        mut request: Request,
    ) -> Result<RequestResult, Error> {
        let resolved = self.resolve_references(context, &mut request.action).await;
        resolved.map_err(Error::not_applied)?;
        // Those of other requests depend on the hold or the transaction.
        let has_named_amounts = !request.action.has_references();
        let command = self.allowed(context, self.command_of(request)).await?;
        self.check_records(context)?;
        let completion = self.enqueue_one(context, command).await?;
        wait(completion, &context.caller.grant, has_named_amounts).await
    }

    /// Submits requests of one call. They are usually applied in their order, unless another server or
    /// program has locked a row, an attempt fails, or very many holds have expired. Requests that name a
    /// hold or a transaction are executed beside the others, which do not wait for the look-up. Returns a
    /// result for each request, in their order, and those that are to be put into the queue.
    ///
    /// # Errors
    /// The caller lacks the right, or the queue is full. The request is not applied.
    pub fn submit(
        self: &Arc<Self>,
        requests: Vec<(CallContext, Request)>,
    ) -> (Vec<Result<PendingRequest, Error>>, Submission) {
        let audit = requests.first().and_then(|(context, _)| context.audit.clone());
        let mut jobs = Vec::with_capacity(requests.len());
        let submit = |(context, request): (CallContext, Request)| {
            if request.action.has_references() {
                return Ok(self.clone().execute_detached(context, request));
            }
            let command = self.command_of(request);
            context.check(&command)?;
            self.check_records(&context)?;
            let (job, completion) = self.admit(&context, command)?;
            jobs.push(job);
            Ok(PendingRequest::Queued(completion, context.caller.grant))
        };
        let pending = requests.into_iter().map(submit).collect();
        (pending, Submission { ledger: self.clone(), audit, jobs })
    }

    /// Executes a request in a task of its own, which ends when the result is no longer awaited.
    fn execute_detached(self: Arc<Self>, context: CallContext, request: Request) -> PendingRequest {
        let (mut sender, receiver) = oneshot::channel();
        let execute = async move {
            tokio::select! {
                result = self.execute(&context, request) => {
                    // Fails only if the result is no longer awaited.
                    let _ = sender.send(result);
                }
                () = sender.closed() => {}
            }
        };
        tokio::spawn(CallTrace::current().run(execute));
        PendingRequest::Executing(receiver)
    }

    /// The command of a request, with the contra accounts that it may need.
    fn command_of(&self, mut request: Request) -> Command {
        let contra_accounts = self.contra_accounts.as_ref();
        request.contra_accounts = contra_accounts.map(|all| all.of(&request.action));
        Command::Request(Arc::new(request))
    }

    /// The command, if the policy allows it, after the look-up of what the request names. A repeat that
    /// takes its amount from a hold is allowed as the request was, although the hold may have grown since.
    async fn allowed(&self, context: &CallContext, command: Command) -> Result<Command, Error> {
        let Err(denied) = context.caller.grant.check(&command) else { return Ok(command) };
        if let (Command::Request(request), PermissionDenied::Amount { .. }) = (&command, &denied)
            && request.action.has_amount_of_hold()
            && self.has_record(context, &request.key).await?
        {
            let repeat = Request { is_repeat: true, ..request.as_ref().clone() };
            return Ok(Command::Request(Arc::new(repeat)));
        }
        context.deny(&command);
        Err(denied.into())
    }

    /// Whether there is a record of this request.
    async fn has_record(&self, context: &CallContext, key: &RequestKey) -> Result<bool, Error> {
        let record = self.look_up(context, self.own_reads.record(key)).await;
        Ok(record.map_err(Error::not_applied)?.is_some())
    }

    /// Checks that the caller may have one more record. A request that leaves one and moves no money is
    /// charged when it has done so.
    fn check_records(&self, context: &CallContext) -> Result<(), Error> {
        Ok(self.budgets.records.check(&context.caller.identity, Instant::now())?)
    }

    /// Waits until the streams of this caller may have one more request, which counts as so many.
    pub async fn stream_permit(&self, caller: &Caller, count: usize) -> StreamPermit {
        let count = count.min(self.budgets.queue.capacity() / IDENTITY_STREAMS_PART).max(1);
        let own = self.stream_gate.enter_as(&caller.identity, count).await;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // None only if the semaphore were closed, which nothing does.
        StreamPermit {
            _own: own,
            _all: self.stream_permits.clone().acquire_many_owned(count).await.ok(),
        }
    }

    /// Makes sure that a request which has no record yet is never applied, and returns the record.
    pub async fn fence(
        &self,
        context: &CallContext,
        request_id: RequestId,
    ) -> Result<RequestRecord, Error> {
        let key = context.request_key(request_id);
        let request = Request::new(key, Uuid::now_v7(), Action::Fence);
        let command = Command::Request(Arc::new(request));
        context.check(&command)?;
        self.budgets.records.take(&context.caller.identity, Instant::now())?;
        let result = self.enqueue_one(context, command).await?.wait().await?;
        let CommandResult::Record(record) = result else { return Err(MISMATCHED_RESULT) };
        Ok(context.caller.grant.visible_record(record))
    }

    /// Looks up the hold or the transaction that a request names: what never changes of it says
    /// which accounts to lock.
    async fn resolve_references(
        &self,
        context: &CallContext,
        action: &mut Action,
    ) -> Result<(), Error> {
        let (store, grant) = (&self.own_reads, &context.caller.grant);
        match action {
            Action::UpdateHold(HoldUpdate { hold, .. })
            | Action::CaptureHold(Capture { hold, .. })
            | Action::ReleaseHold(hold) => {
                let hold_ids = hold.hold_id.candidates(&context.caller.recorded_as);
                let may_end = |id: &AccountId| grant.may_debit(id);
                let found = self.look_up(context, store.hold(&hold_ids, i64::MIN, may_end)).await?;
                hold.resolved = found.value.map(Arc::new);
            }
            Action::Reverse(Reversal { transaction, .. }) => {
                let is_contra = |id: &AccountId| self.contra_accounts.iter().any(|all| all.has(id));
                let may_reverse =
                    |ids: &[AccountId]| grant.may_move_money_of(chosen_by_callers(ids, is_contra));
                let found = store.transaction(transaction.transaction_id, may_reverse);
                transaction.resolved = self.look_up(context, found).await?;
            }
            Action::Post(..) | Action::PlaceHold(_) | Action::Fence => {}
        }
        Ok(())
    }

    /// Runs a look-up for a change, on the reserved connections.
    async fn look_up<T>(
        &self,
        context: &CallContext,
        query: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, Error> {
        let look_up = async {
            let _own = self.reference_gate.enter(&context.caller.identity).await;
            query.await
        };
        match timeout_at(context.deadline, look_up).await {
            Ok(result) => result.map_err(Error::from_read),
            Err(_) => Err(Error::DeadlineExceeded(None)),
        }
    }

    async fn enqueue_one(
        &self,
        context: &CallContext,
        command: Command,
    ) -> Result<Completion, Error> {
        let (job, completion) = self.admit(context, command)?;
        self.enqueue(context.audit.as_deref(), vec![job]).await;
        Ok(completion)
    }

    /// Takes the permits of a command.
    fn admit(
        &self,
        context: &CallContext,
        command: Command,
    ) -> Result<(Arc<Job>, Completion), Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::ShuttingDown);
        }
        if self.lacks_key.load(Ordering::Relaxed) {
            return Err(Error::DatabaseUnavailable(Some(Outcome::NotApplied)));
        }
        if context.deadline <= Instant::now() {
            return Err(Error::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let queue = self.budgets.queue.take_one(&context.caller.identity)?;
        let resolved = command.resolved_bytes();
        let resolved = self.budgets.request_share(&context.caller.identity, resolved)?;
        let permits = Permits {
            queue,
            records: self.budgets.records.clone(),
            _message: context.share.clone(),
            _resolved: Some(resolved),
        };
        Ok(job::new(command, context.deadline, permits))
    }

    /// Puts jobs of one call into the queue, in their order. If the audit log is required, waits until
    /// their intents are written, all together. Jobs without an intent fail.
    async fn enqueue(&self, audit: Option<&audit::Call>, jobs: Vec<Arc<Job>>) {
        let mut records = begin_audit(audit, &jobs).await.map(Vec::into_iter);
        for job in jobs {
            match (job.command.is_dry_run(), &mut records) {
                (true, _) => {}
                (false, Ok(records)) => job.set_audit(records.next()),
                (false, Err(error)) => {
                    job.fail(error.clone());
                    continue;
                }
            }
            self.queue.enqueue(job);
        }
    }
}

impl Submission {
    /// Puts the requests into the queue. If the audit log is required and stalls, this takes until the
    /// latest of their deadlines; each gets its result at its own.
    pub async fn enqueue(self) {
        self.ledger.enqueue(self.audit.as_deref(), self.jobs).await;
    }
}

/// Begins the records of the changes of one call in the audit log, if there is one. Waits until the
/// latest of their deadlines.
async fn begin_audit(
    audit: Option<&audit::Call>,
    jobs: &[Arc<Job>],
) -> Result<Vec<PendingChange>, Error> {
    let changes = || jobs.iter().filter(|job| !job.command.is_dry_run());
    let last = changes().max_by_key(|job| job.deadline);
    let (Some(call), Some(last)) = (audit, last) else { return Ok(Vec::new()) };
    let commands = changes().map(|job| job.command.clone()).collect();
    let begun = call.begin(&last.identity, commands);
    let begun = begun.map_err(|Unavailable| Error::AuditUnavailable)?;
    // Their lines are written now, also if the caller gives up.
    changes().for_each(|job| job.charge_lines(call.lines_bytes(&job.command)));
    match timeout_at(last.deadline, begun.written()).await {
        Ok(begun) => begun.map_err(|Unavailable| Error::AuditUnavailable),
        Err(_) => Err(Error::DeadlineExceeded(Some(Outcome::NotApplied))),
    }
}
