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
        authorization::Grant,
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
    /// The request was rejected, for good, or it got no result.
    pub async fn wait(self) -> Result<RequestResult, Error> {
        match self.completion.wait().await {
            Ok(CommandResult::Request(result)) => {
                let effects = self.grant.visible_effects(result.effects);
                Ok(RequestResult { effects, ..result })
            }
            Ok(CommandResult::Account(_) | CommandResult::Record(_)) => Err(MISMATCHED_RESULT),
            Err(Error::Rejected(rejection)) => {
                Err(Error::Rejected(self.grant.visible_rejection(rejection)))
            }
            Err(error) => Err(error),
        }
    }
}

/// Room in the queue for one request of a stream.
pub struct StreamPermit(Option<OwnedSemaphorePermit>);

impl Ledger {
    /// Opens an account, or returns it if it was opened with the same attributes before.
    ///
    /// # Errors
    /// The caller lacks the right, the account was opened with other attributes, or the command
    /// got no result.
    pub async fn create_account(
        &self,
        context: &CallContext,
        new: NewAccount,
    ) -> Result<Account, Error> {
        self.execute_account_command(context, Command::CreateAccount(new)).await
    }

    /// Changes the attributes of an account. Needs no request id: repeating it changes nothing.
    ///
    /// # Errors
    /// The caller lacks the right, the update was rejected, or it got no result.
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
        match self.enqueue(context, command, None)?.wait().await? {
            CommandResult::Account(account) => Ok(account),
            CommandResult::Request(_) | CommandResult::Record(_) => Err(MISMATCHED_RESULT),
        }
    }

    /// Moves or holds money, exactly once per request id.
    ///
    /// # Errors
    /// The caller lacks the right, the request was rejected, for good, or it got no result.
    pub async fn execute(
        &self,
        context: &CallContext,
        mut request: Request,
    ) -> Result<RequestResult, Error> {
        let resolved = self.resolve_references(context, &mut request.action).await;
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
        let stream = stream.and_then(|permit| permit.0);
        let command = Command::Request(Arc::new(request));
        let completion = self.enqueue(context, command, stream)?;
        Ok(PendingRequest { completion, grant: context.caller.grant.clone() })
    }

    /// Waits until streams have room in the queue for one more request.
    pub async fn stream_permit(&self) -> StreamPermit {
        // None only if the semaphore were closed, which nothing does.
        StreamPermit(self.stream_permits.clone().acquire_owned().await.ok())
    }

    /// Makes sure that a request which has no record yet is never applied, and returns the record.
    ///
    /// # Errors
    /// The caller lacks the right, or the fence got no result.
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
        match self.enqueue(context, command, None)?.wait().await? {
            CommandResult::Record(record) => Ok(context.caller.grant.visible_record(record)),
            CommandResult::Account(_) | CommandResult::Request(_) => Err(MISMATCHED_RESULT),
        }
    }

    /// Looks up the hold or the transaction that a request names: what never changes of it says
    /// which accounts to lock.
    async fn resolve_references(
        &self,
        context: &CallContext,
        action: &mut Action,
    ) -> Result<(), Error> {
        let (store, grant) = (&self.own_reads, &context.caller.grant);
        let look_up = async {
            match action {
                Action::CaptureHold(Capture { hold, .. }) | Action::ReleaseHold(hold) => {
                    let hold_ids = context.hold_ids(&hold.hold_id);
                    let found = store.hold(&hold_ids, i64::MIN, |_| true).await?;
                    hold.resolved = found.value.map(Arc::new);
                }
                Action::Reverse(transaction) => {
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

    /// Checks the caller's rights, and puts the command into the queue.
    fn enqueue(
        &self,
        context: &CallContext,
        command: Command,
        streams: Option<OwnedSemaphorePermit>,
    ) -> Result<Completion, Error> {
        context.caller.grant.check(&command)?;
        let deadline = context.deadline;
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
        let (job, completion) = job::new(command, deadline, Permits { queue, streams });
        self.queue.enqueue(job);
        Ok(completion)
    }
}
