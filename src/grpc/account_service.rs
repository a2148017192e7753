//! The service: each RPC decodes, calls the ledger, encodes.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{
        account::{Account, AccountUpdate, AttributeChange},
        command,
        ids::Identity,
        money::Currencies,
        transaction::Transaction,
        unit_of_work::RequestResult,
    },
    grpc::{
        context::unpack,
        decode::{self, Invalid},
        encode::{self, answer_size},
        error::StatusBuilder,
        metrics::{self, RequestMode},
        middleware::deadline::Deadline,
        rpc::{stream_transactions::StreamContext, watch_entries},
    },
    ledger::{CallContext, Error, Ledger},
    proto::{self, account_service_server::AccountService},
};

/// Serves `passbook.v1.AccountService`.
pub struct AccountServiceImpl {
    ledger: Arc<Ledger>,
    currencies: Arc<Currencies>,
    stopping: tokio::sync::watch::Receiver<bool>,
}

type Results =
    Pin<Box<dyn Stream<Item = Result<proto::StreamTransactionsResponse, Status>> + Send>>;

type Watched = Pin<Box<dyn Stream<Item = Result<proto::WatchEntriesResponse, Status>> + Send>>;

impl AccountServiceImpl {
    /// A service over this ledger, in these currencies; its streams end when `stopping` turns
    /// true.
    #[must_use]
    pub fn new(
        ledger: Arc<Ledger>,
        currencies: Arc<Currencies>,
        stopping: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self { ledger, currencies, stopping }
    }

    /// Decodes, executes, counts and encodes a request that moves or holds money.
    async fn execute<T, R: From<RequestResult>>(
        &self,
        request: Request<T>,
        decode: impl FnOnce(&Currencies, &Identity, T) -> Result<command::Request, Invalid>,
    ) -> Result<Response<R>, Status> {
        let (context, request) = unpack(request);
        let request = decode(&self.currencies, &context.caller.recorded_as, request);
        let request = request.map_err(|invalid| counted(invalid.into(), RequestMode::Execute))?;
        let mode = RequestMode::of(&request);
        match self.ledger.execute(&context, request).await {
            Ok(result) => {
                metrics::count_applied(result.replayed, mode);
                Ok(Response::new(result.into()))
            }
            Err(error) => Err(counted(StatusBuilder::from(&error), mode)),
        }
    }

    /// Executes, counts and encodes an update of an account.
    async fn update(
        &self,
        context: &CallContext,
        update: Result<AccountUpdate, Invalid>,
    ) -> Result<Option<proto::Account>, Status> {
        let update = update.map_err(|invalid| counted(invalid.into(), RequestMode::Execute))?;
        account(self.ledger.update_account(context, update).await)
    }

    async fn change_state(
        &self,
        context: &CallContext,
        change: AttributeChange,
        request: decode::StateChange,
    ) -> Result<Option<proto::Account>, Status> {
        let update =
            decode::state_change(&self.currencies, &context.caller.recorded_as, change, request);
        self.update(context, update).await
    }

    fn stream_context(&self, call: CallContext) -> StreamContext {
        StreamContext {
            ledger: self.ledger.clone(),
            currencies: self.currencies.clone(),
            call,
            stopping: self.stopping.clone(),
        }
    }
}

#[tonic::async_trait]
impl AccountService for AccountServiceImpl {
    async fn create_account(
        &self,
        request: Request<proto::CreateAccountRequest>,
    ) -> Result<Response<proto::CreateAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let new = decode::new_account(&self.currencies, &context.caller.recorded_as, request)
            .map_err(|invalid| counted(invalid.into(), RequestMode::Execute))?;
        if let Err(invalid) = decode::check_currency_of_new_account(&self.currencies, &new)
            && !self.ledger.has_account(&context, &new.account_id).await?
        {
            // A repeated call is answered by the account, whatever became of its currency since.
            return Err(counted(invalid.into(), RequestMode::Execute));
        }
        let account = account(self.ledger.create_account(&context, new).await)?;
        Ok(Response::new(proto::CreateAccountResponse { account }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let account = encode::account(self.ledger.account(&context, &account_id).await?);
        Ok(Response::new(proto::GetAccountResponse { account: Some(account) }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Result<Response<proto::BatchGetAccountsResponse>, Status> {
        let (context, request) = unpack(request);
        let account_ids = decode::account_ids(&self.currencies, &request.account_ids)?;
        let accounts = self.ledger.accounts(&context, &account_ids).await?;
        let accounts = answer_size::accounts(accounts)?;
        Ok(Response::new(proto::BatchGetAccountsResponse { accounts }))
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        let (context, request) = unpack(request);
        let (filter, page) = decode::account_list(&self.currencies, &request)?;
        let after = page.cursor.as_ref();
        let list = self.ledger.list_accounts(&context, &filter, after, page.limit + 1).await?;
        let (accounts, next_page_token) =
            page.answer(list.rows, list.next, |last| last.account_id.clone(), encode::account);
        Ok(Response::new(proto::ListAccountsResponse { accounts, next_page_token }))
    }

    async fn deposit(
        &self,
        request: Request<proto::DepositRequest>,
    ) -> Result<Response<proto::DepositResponse>, Status> {
        self.execute(request, decode::deposit).await
    }

    async fn withdraw(
        &self,
        request: Request<proto::WithdrawRequest>,
    ) -> Result<Response<proto::WithdrawResponse>, Status> {
        self.execute(request, decode::withdraw).await
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        self.execute(request, decode::transfer).await
    }

    async fn post_transaction(
        &self,
        request: Request<proto::PostTransactionRequest>,
    ) -> Result<Response<proto::PostTransactionResponse>, Status> {
        self.execute(request, decode::transaction).await
    }

    async fn batch_post_transactions(
        &self,
        request: Request<proto::BatchPostTransactionsRequest>,
    ) -> Result<Response<proto::BatchPostTransactionsResponse>, Status> {
        let (context, request) = unpack(request);
        let requests = answer_size::check_room(decode::batch(request)?)?;
        let stream = self.stream_context(context);
        // All are submitted before the first is waited for.
        let pending: Vec<_> = requests.into_iter().map(|it| stream.submit(it, None)).collect();
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(pending.wait().await);
        }
        answer_size::shorten(&mut results);
        Ok(Response::new(proto::BatchPostTransactionsResponse { results }))
    }

    type StreamTransactionsStream = Results;

    async fn stream_transactions(
        &self,
        request: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let (context, requests) = unpack(request);
        Ok(Response::new(Box::pin(self.stream_context(context).serve(requests, deadline))))
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        let (context, request) = unpack(request);
        let name = decode::transaction_name(&self.currencies, &request)?;
        let transaction = self.ledger.transaction(&context, name).await?;
        let transaction = Some(encode::transaction(&transaction));
        Ok(Response::new(proto::GetTransactionResponse { transaction }))
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Result<Response<proto::ListEntriesResponse>, Status> {
        let (context, request) = unpack(request);
        let (account_id, range, page) = decode::entry_list(&self.currencies, &request)?;
        let entries =
            self.ledger.list_entries(&context, &account_id, &range, page.limit + 1).await?;
        let (entries, next_page_token) =
            page.answer(entries, None, |last| last.sequence, |it| encode::entry(&it));
        Ok(Response::new(proto::ListEntriesResponse { entries, next_page_token }))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let update = decode::account_update(&self.currencies, &context.caller.recorded_as, request);
        let account = self.update(&context, update).await?;
        Ok(Response::new(proto::UpdateAccountResponse { account }))
    }

    async fn freeze_account(
        &self,
        request: Request<proto::FreezeAccountRequest>,
    ) -> Result<Response<proto::FreezeAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let proto::FreezeAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let account = self.change_state(&context, AttributeChange::Freeze, request).await?;
        Ok(Response::new(proto::FreezeAccountResponse { account }))
    }

    async fn unfreeze_account(
        &self,
        request: Request<proto::UnfreezeAccountRequest>,
    ) -> Result<Response<proto::UnfreezeAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let proto::UnfreezeAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let unfreeze = AttributeChange::Unfreeze;
        let account = self.change_state(&context, unfreeze, request).await?;
        Ok(Response::new(proto::UnfreezeAccountResponse { account }))
    }

    async fn close_account(
        &self,
        request: Request<proto::CloseAccountRequest>,
    ) -> Result<Response<proto::CloseAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let proto::CloseAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let account = self.change_state(&context, AttributeChange::Close, request).await?;
        Ok(Response::new(proto::CloseAccountResponse { account }))
    }

    async fn list_account_changes(
        &self,
        request: Request<proto::ListAccountChangesRequest>,
    ) -> Result<Response<proto::ListAccountChangesResponse>, Status> {
        let (context, request) = unpack(request);
        let (account_id, page) = decode::account_change_list(&self.currencies, &request)?;
        let (after, limit) = (page.cursor.unwrap_or(0), page.limit + 1);
        let ledger = &self.ledger;
        let changes = ledger.list_account_changes(&context, &account_id, after, limit).await?;
        let (changes, next_page_token) =
            page.answer(changes, None, |last| last.version, encode::account_change);
        Ok(Response::new(proto::ListAccountChangesResponse { changes, next_page_token }))
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldResponse>, Status> {
        self.execute(request, decode::new_hold).await
    }

    async fn capture_hold(
        &self,
        request: Request<proto::CaptureHoldRequest>,
    ) -> Result<Response<proto::CaptureHoldResponse>, Status> {
        self.execute(request, decode::capture).await
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        self.execute(request, decode::release).await
    }

    async fn get_hold(
        &self,
        request: Request<proto::GetHoldRequest>,
    ) -> Result<Response<proto::GetHoldResponse>, Status> {
        let (context, request) = unpack(request);
        let hold_id = decode::hold_id(&self.currencies, &request.hold_id)?;
        let hold = Some(encode::hold(&self.ledger.hold(&context, &hold_id).await?));
        Ok(Response::new(proto::GetHoldResponse { hold }))
    }

    async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        let (context, request) = unpack(request);
        let (account_id, filter, page) = decode::hold_list(&self.currencies, &request)?;
        let list = self.ledger.list_holds(&context, &account_id, &filter, page.limit + 1).await?;
        let (holds, next_page_token) =
            page.answer(list.rows, list.next, |last| last.hold_id.clone(), |it| encode::hold(&it));
        Ok(Response::new(proto::ListHoldsResponse { holds, next_page_token }))
    }

    async fn reverse_transaction(
        &self,
        request: Request<proto::ReverseTransactionRequest>,
    ) -> Result<Response<proto::ReverseTransactionResponse>, Status> {
        self.execute(request, decode::reversal).await
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        let (context, request) = unpack(request);
        let decode::TransactionList { account_id, filter, page } =
            decode::transaction_list(&self.currencies, &request)?;
        let (limit, ledger) = (page.limit, &self.ledger);
        let encode = |it: Arc<Transaction>| encode::transaction(&it);
        let (transactions, next_page_token) = match account_id {
            None => {
                let before = page.cursor.as_deref().and_then(|it| it.parse().ok());
                let found = ledger.list_transactions(&context, &filter, before, limit).await?;
                let cursor = |last: &Arc<Transaction>| last.transaction_id.unwrap_or_default();
                page.answer_until(found.transactions, found.next, cursor, encode)
            }
            Some(account_id) => {
                let before = page.cursor.as_deref().and_then(|it| it.parse().ok());
                let found = ledger
                    .list_transactions_of_account(&context, &account_id, &filter, before, limit)
                    .await?;
                let cursor = |last: &Arc<Transaction>| last.last_sequence_of(&account_id);
                page.answer_until(found.transactions, found.next, cursor, encode)
            }
        };
        Ok(Response::new(proto::ListTransactionsResponse { transactions, next_page_token }))
    }

    async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Result<Response<proto::GetBalanceResponse>, Status> {
        let (context, request) = unpack(request);
        let (account_id, time_us) = decode::balance(&self.currencies, &request)?;
        let (account, balance, sequence) =
            self.ledger.balance_at(&context, &account_id, time_us).await?;
        let balance = Some(encode::money(&account.currency, balance));
        Ok(Response::new(proto::GetBalanceResponse { balance, sequence }))
    }

    type WatchEntriesStream = Watched;

    async fn watch_entries(
        &self,
        request: Request<proto::WatchEntriesRequest>,
    ) -> Result<Response<Self::WatchEntriesStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let (context, request) = unpack(request);
        let account_id = decode::watch(&self.currencies, &request)?;
        let after = request.after_sequence;
        let watcher = self.ledger.watch(&context, &account_id, after).await?;
        let entries = watch_entries::serve(watcher, self.stopping.clone(), deadline);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn get_request_outcome(
        &self,
        request: Request<proto::GetRequestOutcomeRequest>,
    ) -> Result<Response<proto::GetRequestOutcomeResponse>, Status> {
        let (context, request) = unpack(request);
        let request_id = decode::request_id(&self.currencies, &request.request_id)?;
        let record = self.ledger.request_record(&context, request_id).await?;
        Ok(Response::new(encode::outcome(record)))
    }

    async fn fence_request(
        &self,
        request: Request<proto::FenceRequestRequest>,
    ) -> Result<Response<proto::FenceRequestResponse>, Status> {
        let (context, request) = unpack(request);
        let request_id = decode::request_id(&self.currencies, &request.request_id)?;
        let record = self.ledger.fence(&context, request_id).await?;
        Ok(Response::new(encode::fenced(record)))
    }

    async fn verify_account(
        &self,
        request: Request<proto::VerifyAccountRequest>,
    ) -> Result<Response<proto::VerifyAccountResponse>, Status> {
        let (context, request) = unpack(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let found = self.ledger.verify_account(&context, &account_id).await?;
        Ok(Response::new(encode::verified_account(found)))
    }
}

/// Counts and encodes the result of a command for an account.
fn account(result: Result<Account, Error>) -> Result<Option<proto::Account>, Status> {
    let mode = RequestMode::Execute;
    let account = result.map_err(|error| counted(StatusBuilder::from(&error), mode))?;
    metrics::count_applied(false, mode);
    Ok(Some(encode::account(account)))
}

/// Counts an error, and encodes it.
fn counted(error: StatusBuilder, mode: RequestMode) -> Status {
    metrics::count_error(&error, mode);
    error.into_status()
}
