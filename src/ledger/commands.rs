//! Commands: changes that go through the write path.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    domain::{
        account::{Account, AccountUpdate, Labels, NewAccount},
        command::{Action, Command, Request},
        hold::Capture,
        ids::RequestId,
        unit_of_work::{CommandResult, RequestRecord, RequestResult},
    },
    ledger::{
        CallContext, Error, Ledger, Outcome,
        write_path::job::{self, Completion},
    },
};

/// The result of another kind of command than the one that was sent: a defect.
const MISMATCHED_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// A request in the queue. Dropping it cancels the request, unless a transaction has it already.
pub struct PendingRequest(Completion);

impl PendingRequest {
    /// Waits for the result, until the deadline.
    ///
    /// # Errors
    /// The request is rejected, or it gets no result.
    pub async fn wait(self) -> Result<RequestResult, Error> {
        let CommandResult::Request(result) = self.0.wait().await? else {
            return Err(MISMATCHED_RESULT);
        };
        Ok(result)
    }
}

/// Room in the queue for one request of a stream.
pub struct StreamPermit(Option<OwnedSemaphorePermit>);

/// # Errors
/// Every command fails if the caller lacks the right, if the command is rejected, or if it gets no result.
impl Ledger {
    /// Opens an account, or returns it if it was opened with the same attributes before.
    pub async fn create_account(
        &self,
        context: &CallContext,
        new: NewAccount,
    ) -> Result<Account, Error> {
        context.caller.grant.check_account(&new.account_id)?;
        self.execute_account_command(Command::CreateAccount(new), context.deadline).await
    }

    /// Changes the attributes of an account. Needs no request id: repeating it changes nothing.
    pub async fn update_account(
        &self,
        context: &CallContext,
        update: AccountUpdate,
    ) -> Result<Account, Error> {
        context.caller.grant.check_account(&update.account_id)?;
        self.execute_account_command(Command::UpdateAccount(update), context.deadline).await
    }

    async fn execute_account_command(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Account, Error> {
        let result = self.enqueue(command, deadline, None)?.wait().await?;
        let CommandResult::Account(account) = result else { return Err(MISMATCHED_RESULT) };
        Ok(account)
    }

    /// Moves or holds money, exactly once per request id.
    pub async fn execute(
        &self,
        context: &CallContext,
        mut request: Request,
    ) -> Result<RequestResult, Error> {
        let resolved = self.resolve_references(&mut request.action, context.deadline).await;
        resolved.map_err(Error::not_applied)?;
        self.submit(context, request, None)?.wait().await
    }

    /// Puts a posting into the queue. Postings are usually applied in the order in which they were
    /// submitted, unless another program has locked a row or an attempt fails.
    ///
    /// # Errors
    /// The caller lacks the right, or the queue is full. The request is not applied.
    pub fn submit(
        &self,
        context: &CallContext,
        request: Request,
        stream: Option<StreamPermit>,
    ) -> Result<PendingRequest, Error> {
        context.caller.grant.check_request(&request)?;
        let stream = stream.and_then(|permit| permit.0);
        let command = Command::Request(Arc::new(request));
        self.enqueue(command, context.deadline, stream).map(PendingRequest)
    }

    /// Waits until streams have room in the queue for one more request.
    pub async fn stream_permit(&self) -> StreamPermit {
        // None only if the semaphore were closed, which nothing does.
        StreamPermit(self.stream_permits.clone().acquire_owned().await.ok())
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
        let result = self.enqueue(command, context.deadline, None)?.wait().await?;
        let CommandResult::Record(record) = result else { return Err(MISMATCHED_RESULT) };
        Ok(record)
    }

    /// Looks up the hold or the transaction that a request names: what never changes of it says
    /// which accounts to lock.
    async fn resolve_references(
        &self,
        action: &mut Action,
        deadline: Instant,
    ) -> Result<(), Error> {
        let store = &self.own_reads;
        let look_up = async {
            match action {
                Action::CaptureHold(Capture { hold, .. }) | Action::ReleaseHold(hold) => {
                    hold.resolved = store.hold(&hold.hold_id, i64::MIN).await?.value.map(Arc::new);
                }
                Action::Reverse(transaction) => {
                    transaction.resolved = store.transaction(transaction.transaction_id).await?;
                }
                Action::Post(..) | Action::PlaceHold(_) | Action::Fence => {}
            }
            Ok(())
        };
        match timeout_at(deadline, look_up).await {
            Ok(result) => result.map_err(Error::from_read),
            Err(_) => Err(Error::DeadlineExceeded(None)),
        }
    }

    fn enqueue(
        &self,
        command: Command,
        deadline: Instant,
        streams: Option<OwnedSemaphorePermit>,
    ) -> Result<Completion, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::ShuttingDown);
        }
        if deadline <= Instant::now() {
            return Err(Error::DeadlineExceeded(Some(Outcome::NotApplied)));
        }
        let Ok(queue) = self.queue_permits.clone().try_acquire_owned() else {
            self.shed.increment(1);
            return Err(Error::Overloaded { limit: self.limits.queue_capacity });
        };
        let (job, completion) = job::new(command, deadline, queue, streams);
        self.queue.enqueue(job);
        Ok(completion)
    }
}
