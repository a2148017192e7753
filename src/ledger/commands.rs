//! Commands: changes that go through the write path.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    audit::{PendingChange, Unavailable},
    budget::{GatePermit, Share},
    domain::{
        account::{Account, AccountUpdate, Labels, NewAccount},
        authorization::{Caller, Grant},
        command::{Action, Command, Request},
        hold::Capture,
        ids::{AccountId, RequestId},
        unit_of_work::{CommandResult, RequestRecord, RequestResult},
    },
    ledger::{
        CallContext, Error, Ledger, Outcome,
        write_path::job::{self, Completion, Permits},
    },
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
            Self::Queued(completion, grant) => wait(completion, &grant).await,
            // Without a result, the task panicked.
            Self::Executing(result) => {
                result.await.unwrap_or(Err(Error::Internal(Some(Outcome::Unknown))))
            }
        }
    }
}

/// Waits for the result of a request, and leaves out what its caller must not see.
async fn wait(completion: Completion, grant: &Grant) -> Result<RequestResult, Error> {
    let result = match completion.wait().await {
        Err(Error::Rejected(rejection)) => {
            return Err(Error::Rejected(grant.visible_rejection(rejection)));
        }
        result => result?,
    };
    let CommandResult::Request(result) = result else { return Err(MISMATCHED_RESULT) };
    let effects = grant.visible_effects(result.effects);
    Ok(RequestResult { effects, ..result })
}

/// Waits for the result of a command for an account.
async fn account_of(completion: Result<Completion, Error>) -> Result<Account, Error> {
    let CommandResult::Account(account) = completion?.wait().await? else {
        return Err(MISMATCHED_RESULT);
    };
    Ok(account)
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
        let check = |new| self.check_account_command(context, Command::CreateAccount(new));
        let queued = self.enqueue(new.into_iter().map(check).collect()).await;
        let mut results = Vec::with_capacity(queued.len());
        for completion in queued {
            results.push(account_of(completion).await);
        }
        results
    }

    /// Changes the attributes of an account. Needs no request id: repeating it changes nothing.
    pub async fn update_account(
        &self,
        context: &CallContext,
        update: AccountUpdate,
    ) -> Result<Account, Error> {
        let (context, command) =
            self.check_account_command(context, Command::UpdateAccount(update))?;
        account_of(self.enqueue_one(context, command).await).await
    }

    /// Checks what the caller and the budgets allow.
    fn check_account_command<'a>(
        &self,
        context: &'a CallContext,
        command: Command,
    ) -> Result<(&'a CallContext, Command), Error> {
        context.check(&command)?;
        self.budgets.records.take(&context.caller.identity, Instant::now())?;
        Ok((context, command))
    }

    /// Moves or holds money, exactly once per request id.
    pub async fn execute(
        &self,
        context: &CallContext,
        mut request: Request,
    ) -> Result<RequestResult, Error> {
        let resolved = self.resolve_references(context, &mut request.action).await;
        resolved.map_err(Error::not_applied)?;
        let command = self.check_request(context, request)?;
        let completion = self.enqueue_one(context, command).await?;
        wait(completion, &context.caller.grant).await
    }

    /// Puts requests of one call into the queue. They are usually applied in the order in which they
    /// were submitted, unless another server or program has locked a row, or an attempt fails.
    /// Requests that name a hold or a transaction are executed beside the others, which do not wait
    /// for the look-up. Returns a result for each request, in their order.
    ///
    /// # Errors
    /// The caller lacks the right, or the queue is full. The request is not applied.
    pub async fn submit(
        self: &Arc<Self>,
        requests: Vec<(CallContext, Request)>,
    ) -> Vec<Result<PendingRequest, Error>> {
        let (contexts, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let mut commands = Vec::with_capacity(requests.len());
        let mut executing = Vec::with_capacity(requests.len());
        for (context, request) in contexts.iter().zip(requests) {
            let has_references = request.action.has_references();
            executing.push(match has_references {
                true => Some(self.clone().execute_detached(context.clone(), request)),
                false => {
                    let command = self.check_request(context, request);
                    commands.push(command.map(|command| (context, command)));
                    None
                }
            });
        }
        let mut queued = self.enqueue(commands).await.into_iter();
        let pending = |(executing, context): (Option<PendingRequest>, &CallContext)| {
            if let Some(executing) = executing {
                return Ok(executing);
            }
            let completion = queued.next().unwrap_or(Err(MISMATCHED_RESULT))?;
            Ok(PendingRequest::Queued(completion, context.caller.grant.clone()))
        };
        executing.into_iter().zip(&contexts).map(pending).collect()
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

    /// Checks what the caller and the budgets allow.
    fn check_request(&self, context: &CallContext, request: Request) -> Result<Command, Error> {
        let command = Command::Request(Arc::new(request));
        context.check(&command)?;
        // A request that leaves a record and moves no money is charged then.
        self.budgets.records.check(&context.caller.identity, Instant::now())?;
        Ok(command)
    }

    /// Waits until the streams of this caller may have one more request.
    pub async fn stream_permit(&self, caller: &Caller) -> StreamPermit {
        let own = self.stream_gate.enter(&caller.identity).await;
        // None only if the semaphore were closed, which nothing does.
        StreamPermit { _own: own, _all: self.stream_permits.clone().acquire_owned().await.ok() }
    }

    /// Takes a request of a stream from the rate of calls: it counts as a call of its own.
    ///
    /// # Errors
    /// The rate has nothing left.
    pub fn take_call(&self, caller: &Caller) -> Result<(), Error> {
        if let Some(rate) = &self.budgets.call_rate {
            rate.take(&caller.identity, Instant::now())?;
        }
        Ok(())
    }

    /// The room for requests of a stream that were received and wait. Nothing is taken yet.
    pub fn request_room(&self, caller: &Caller) -> Share {
        self.budgets.request_bytes.share(caller.identity.clone(), None)
    }

    /// Takes room for the results of a call, which stay in memory until the last one is there.
    ///
    /// # Errors
    /// There is no room.
    pub fn response_room(&self, caller: &Caller, bytes: usize) -> Result<Share, Error> {
        let mut room = self.budgets.response_bytes.share(caller.identity.clone(), None);
        room.resize(bytes)?;
        Ok(room)
    }

    /// Makes sure that a request which has no record yet is never applied, and returns the record.
    pub async fn fence(
        &self,
        context: &CallContext,
        request_id: RequestId,
    ) -> Result<RequestRecord, Error> {
        let request = Request {
            key: context.request_key(request_id),
            transaction_id: Uuid::now_v7(),
            action: Action::Fence,
            description: String::new(),
            labels: Labels::new(),
            validate_only: false,
        };
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
        let (store, identity) = (&self.own_reads, &context.caller.identity);
        let look_up = async {
            match action {
                Action::CaptureHold(Capture { hold, .. }) | Action::ReleaseHold(hold) => {
                    let _own = self.reference_gate.enter(identity).await;
                    let hold_ids = context.hold_ids(&hold.hold_id);
                    let may_end = |id: &AccountId| context.caller.grant.may_debit(id);
                    let found = store.hold(&hold_ids, i64::MIN, may_end).await?;
                    hold.resolved = found.value.map(Arc::new);
                }
                Action::Reverse(transaction) => {
                    let _own = self.reference_gate.enter(identity).await;
                    let grant = &context.caller.grant;
                    let may_reverse = |ids: &[AccountId]| grant.may_move_money_of(ids);
                    let found = store.transaction(transaction.transaction_id, may_reverse).await?;
                    transaction.resolved = found;
                }
                Action::Post(..) | Action::PlaceHold(_) | Action::Fence => {}
            }
            Ok(())
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
        let mut completions = self.enqueue(vec![Ok((context, command))]).await;
        completions.pop().unwrap_or(Err(MISMATCHED_RESULT))
    }

    /// Puts commands of one call into the queue, in their order, unless they have failed already.
    /// Their intents are written together.
    async fn enqueue(
        &self,
        commands: Vec<Result<(&CallContext, Command), Error>>,
    ) -> Vec<Result<Completion, Error>> {
        let admit = |command: Result<(_, Command), Error>| {
            let (context, command) = command?;
            let permits = self.admit(context)?;
            Ok(Admitted { context, command, permits })
        };
        let admitted: Vec<Result<_, Error>> = commands.into_iter().map(admit).collect();
        let mut records = begin_audit(&admitted).await.map(Vec::into_iter);
        let enqueue = |admitted: Result<Admitted<'_>, Error>| {
            let Admitted { context, command, permits } = admitted?;
            let record = match (is_change(&command), &mut records) {
                (true, Ok(records)) => records.next(),
                (true, Err(error)) => return Err(error.clone()),
                (false, _) => None,
            };
            let (job, completion) = job::new(command, context.deadline, permits, record);
            self.queue.enqueue(job);
            Ok(completion)
        };
        admitted.into_iter().map(enqueue).collect()
    }

    /// Takes the permits of a command.
    fn admit(&self, context: &CallContext) -> Result<Permits, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::ShuttingDown);
        }
        if context.deadline <= Instant::now() {
            return Err(Error::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let queue = self.budgets.queue.take_one(&context.caller.identity)?;
        Ok(Permits { queue, records: self.budgets.records.clone() })
    }
}

/// Whether a command changes the ledger. A dry run does not.
fn is_change(command: &Command) -> bool {
    !matches!(command, Command::Request(request) if request.validate_only)
}

/// A command that is about to be enqueued.
struct Admitted<'a> {
    context: &'a CallContext,
    command: Command,
    permits: Permits,
}

/// Begins the records of the changes of one call in the audit log, if there is one. Waits until the
/// latest of their deadlines.
async fn begin_audit(
    admitted: &[Result<Admitted<'_>, Error>],
) -> Result<Vec<PendingChange>, Error> {
    let changes = || admitted.iter().flatten().filter(|it| is_change(&it.command));
    let last = changes().map(|it| it.context).max_by_key(|context| context.deadline);
    let Some((context, call)) = last.and_then(|it| Some((it, it.audit.as_ref()?))) else {
        return Ok(Vec::new());
    };
    let commands = changes().map(|it| it.command.clone()).collect();
    match timeout_at(context.deadline, call.begin(&context.caller.identity, commands)).await {
        Ok(begun) => begun.map_err(|Unavailable| Error::AuditUnavailable),
        Err(_) => Err(Error::DeadlineExceeded(Some(Outcome::NotApplied))),
    }
}
