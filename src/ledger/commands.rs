//! Commands: changes that go through the write path.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
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
};

/// The result of another kind of command than the one that was sent: a defect.
const MISMATCHED_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// A request in the queue. Dropping it cancels the request, unless a transaction has it already.
pub struct PendingRequest {
    completion: Completion,
    /// The caller's.
    grant: Arc<Grant>,
}

impl PendingRequest {
    /// Waits for the result, until the deadline.
    ///
    /// # Errors
    /// The request is rejected, or it gets no result.
    pub async fn wait(self) -> Result<RequestResult, Error> {
        let result = match self.completion.wait().await {
            Err(Error::Rejected(rejection)) => {
                return Err(Error::Rejected(self.grant.visible_rejection(rejection)));
            }
            result => result?,
        };
        let CommandResult::Request(result) = result else { return Err(MISMATCHED_RESULT) };
        let effects = self.grant.visible_effects(result.effects);
        Ok(RequestResult { effects, ..result })
    }
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
    /// Opens an account, or returns it if it was opened with the same attributes before.
    pub async fn create_account(
        &self,
        context: &CallContext,
        new: NewAccount,
    ) -> Result<Account, Error> {
        self.execute_account_command(context, Command::CreateAccount(new)).await
    }

    /// Changes the attributes of an account. Needs no request id: repeating it changes nothing.
    pub async fn update_account(
        &self,
        context: &CallContext,
        update: AccountUpdate,
    ) -> Result<Account, Error> {
        self.execute_account_command(context, Command::UpdateAccount(update)).await
    }

    async fn execute_account_command(
        &self,
        context: &CallContext,
        command: Command,
    ) -> Result<Account, Error> {
        context.caller.grant.check(&command)?;
        self.budgets.records.take(&context.caller.identity, Instant::now())?;
        let result = self.enqueue(context, command)?.wait().await?;
        let CommandResult::Account(account) = result else { return Err(MISMATCHED_RESULT) };
        Ok(account)
    }

    /// Moves or holds money, exactly once per request id.
    pub async fn execute(
        &self,
        context: &CallContext,
        mut request: Request,
    ) -> Result<RequestResult, Error> {
        let resolved = self.resolve_references(context, &mut request.action).await;
        resolved.map_err(Error::not_applied)?;
        self.submit(context, request)?.wait().await
    }

    /// Puts a posting into the queue. Postings are usually applied in the order in which they were
    /// submitted, unless another program has locked a row or an attempt fails.
    ///
    /// # Errors
    /// The caller lacks the right, or the queue is full. The request is not applied.
    pub fn submit(&self, context: &CallContext, request: Request) -> Result<PendingRequest, Error> {
        let command = Command::Request(Arc::new(request));
        context.caller.grant.check(&command)?;
        // A request that is rejected is charged then.
        self.budgets.records.check(&context.caller.identity, Instant::now())?;
        let completion = self.enqueue(context, command)?;
        Ok(PendingRequest { completion, grant: context.caller.grant.clone() })
    }

    /// Waits until the streams of this caller may have one more request.
    pub async fn stream_permit(&self, caller: &Caller) -> StreamPermit {
        let own = self.stream_gate.enter(&caller.identity).await;
        // None only if the semaphore were closed, which nothing does.
        StreamPermit { _own: own, _all: self.stream_permits.clone().acquire_owned().await.ok() }
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
        context.caller.grant.check(&command)?;
        self.budgets.records.take(&context.caller.identity, Instant::now())?;
        let result = self.enqueue(context, command)?.wait().await?;
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
                    let found = store.hold(&hold_ids, i64::MIN, |_| true).await?;
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

    fn enqueue(&self, context: &CallContext, command: Command) -> Result<Completion, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::ShuttingDown);
        }
        if context.deadline <= Instant::now() {
            return Err(Error::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let queue = self.budgets.queue.take_one(&context.caller.identity)?;
        let permits = Permits { queue, records: self.budgets.records.clone() };
        let (job, completion) = job::new(command, context.deadline, permits);
        self.queue.enqueue(job);
        Ok(completion)
    }
}
