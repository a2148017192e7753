//! The service: each RPC decodes, calls the ledger, encodes.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{
        account::{AccountUpdate, AttributeChange},
        authorization::Caller,
        command,
        money::Currencies,
        transaction::Transaction,
        unit_of_work::RequestResult,
    },
    grpc::{
        context::open,
        decode::{self, Invalid},
        encode,
        encode::answer_size,
        error, metrics,
        metrics::Purpose,
        middleware::deadline::Deadline,
        rpc::{stream_transactions::Intake, watch_entries},
    },
    ledger::Ledger,
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

    /// Decodes, executes and encodes a request that moves or holds money.
    async fn execute<T, R: From<RequestResult>>(
        &self,
        request: Request<T>,
        decode: impl FnOnce(&Currencies, &Arc<str>, T) -> Result<command::Request, Invalid>,
    ) -> Result<Response<R>, Status> {
        let (caller, deadline, request) = open(request);
        let request = decode(&self.currencies, &caller.recorded_as, request);
        let request = request.map_err(error::of_malformed)?;
        let purpose = Purpose::of(&request);
        let result = self.ledger.make(&caller, request, deadline.at).await;
        metrics::of_request(result, purpose).map(Response::new)
    }

    async fn update(
        &self,
        caller: &Caller,
        update: Result<AccountUpdate, Invalid>,
        deadline: Deadline,
    ) -> Result<Option<proto::Account>, Status> {
        let update = update.map_err(error::of_malformed)?;
        metrics::of_account(self.ledger.update_account(caller, update, deadline.at).await)
    }

    async fn change_state(
        &self,
        (caller, deadline): (Caller, Deadline),
        change: AttributeChange,
        request: decode::StateChange,
    ) -> Result<Option<proto::Account>, Status> {
        let update = decode::state_change(&self.currencies, &caller.recorded_as, change, request);
        self.update(&caller, update, deadline).await
    }

    fn intake(&self, caller: Caller) -> Intake {
        Intake {
            ledger: self.ledger.clone(),
            currencies: self.currencies.clone(),
            caller,
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
        let (caller, deadline, request) = open(request);
        let new = decode::new_account(&self.currencies, &caller.recorded_as, request)
            .map_err(error::of_malformed)?;
        if let Err(invalid) = decode::check_currency_of_new_account(&self.currencies, &new)
            && !self.ledger.has_account(&caller, &new.account_id, deadline.at).await?
        {
            // A repeated call is answered by the account, whatever became of its currency since.
            return Err(error::of_malformed(invalid));
        }
        let account = self.ledger.create_account(&caller, new, deadline.at).await;
        let account = metrics::of_account(account)?;
        Ok(Response::new(proto::CreateAccountResponse { account }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let account =
            encode::account(self.ledger.account(&caller, &account_id, deadline.at).await?);
        Ok(Response::new(proto::GetAccountResponse { account: Some(account) }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Result<Response<proto::BatchGetAccountsResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let account_ids = decode::account_ids(&self.currencies, &request.account_ids)?;
        let accounts = self.ledger.accounts(&caller, &account_ids, deadline.at).await?;
        let accounts = answer_size::accounts(accounts)?;
        Ok(Response::new(proto::BatchGetAccountsResponse { accounts }))
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let (filter, page) = decode::account_list(&self.currencies, &request)?;
        let after = page.cursor.as_ref();
        let list =
            self.ledger.list_accounts(&caller, &filter, after, page.limit + 1, deadline.at).await?;
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
        let (caller, deadline, request) = open(request);
        let requests = answer_size::check_room(decode::batch(request)?)?;
        let intake = self.intake(caller);
        // All are in line before the first is waited for.
        let line: Vec<_> = requests.into_iter().map(|it| intake.take(it, deadline.at)).collect();
        let mut results = Vec::with_capacity(line.len());
        for in_line in line {
            results.push(in_line.result().await);
        }
        answer_size::shorten(&mut results);
        Ok(Response::new(proto::BatchPostTransactionsResponse { results }))
    }

    type StreamTransactionsStream = Results;

    async fn stream_transactions(
        &self,
        request: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let (caller, deadline, requests) = open(request);
        Ok(Response::new(Box::pin(self.intake(caller).serve(requests, deadline))))
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let name = decode::transaction_name(&self.currencies, &request)?;
        let transaction = self.ledger.transaction(&caller, name, deadline.at).await?;
        let transaction = Some(encode::transaction(&transaction));
        Ok(Response::new(proto::GetTransactionResponse { transaction }))
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Result<Response<proto::ListEntriesResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let (account_id, range, page) = decode::entry_list(&self.currencies, &request)?;
        let entries = self
            .ledger
            .list_entries(&caller, &account_id, &range, page.limit + 1, deadline.at)
            .await?;
        let (entries, next_page_token) =
            page.answer(entries, None, |last| last.sequence, |it| encode::entry(&it));
        Ok(Response::new(proto::ListEntriesResponse { entries, next_page_token }))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let update = decode::account_update(&self.currencies, &caller.recorded_as, request);
        let account = self.update(&caller, update, deadline).await?;
        Ok(Response::new(proto::UpdateAccountResponse { account }))
    }

    async fn freeze_account(
        &self,
        request: Request<proto::FreezeAccountRequest>,
    ) -> Result<Response<proto::FreezeAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let proto::FreezeAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let account =
            self.change_state((caller, deadline), AttributeChange::Freeze, request).await?;
        Ok(Response::new(proto::FreezeAccountResponse { account }))
    }

    async fn unfreeze_account(
        &self,
        request: Request<proto::UnfreezeAccountRequest>,
    ) -> Result<Response<proto::UnfreezeAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let proto::UnfreezeAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let unfreeze = AttributeChange::Unfreeze;
        let account = self.change_state((caller, deadline), unfreeze, request).await?;
        Ok(Response::new(proto::UnfreezeAccountResponse { account }))
    }

    async fn close_account(
        &self,
        request: Request<proto::CloseAccountRequest>,
    ) -> Result<Response<proto::CloseAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let proto::CloseAccountRequest { account_id, reason, expected_version } = request;
        let request = decode::StateChange { account_id, reason, expected_version };
        let account =
            self.change_state((caller, deadline), AttributeChange::Close, request).await?;
        Ok(Response::new(proto::CloseAccountResponse { account }))
    }

    async fn list_account_changes(
        &self,
        request: Request<proto::ListAccountChangesRequest>,
    ) -> Result<Response<proto::ListAccountChangesResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let (account_id, page) = decode::account_change_list(&self.currencies, &request)?;
        let (after, limit) = (page.cursor.unwrap_or(0), page.limit + 1);
        let ledger = &self.ledger;
        let changes =
            ledger.list_account_changes(&caller, &account_id, after, limit, deadline.at).await?;
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
        let (caller, deadline, request) = open(request);
        let hold_id = decode::hold_id(&self.currencies, &request.hold_id)?;
        let hold = Some(encode::hold(&self.ledger.hold(&caller, &hold_id, deadline.at).await?));
        Ok(Response::new(proto::GetHoldResponse { hold }))
    }

    async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let (account_id, filter, page) = decode::hold_list(&self.currencies, &request)?;
        let list = self
            .ledger
            .list_holds(&caller, &account_id, &filter, page.limit + 1, deadline.at)
            .await?;
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
        let (caller, deadline, request) = open(request);
        let decode::TransactionList { account_id, filter, page } =
            decode::transaction_list(&self.currencies, &request)?;
        let (limit, at, ledger) = (page.limit, deadline.at, &self.ledger);
        let encode = |it: Arc<Transaction>| encode::transaction(&it);
        let (transactions, next_page_token) = match account_id {
            None => {
                let before = page.cursor.as_deref().and_then(|it| it.parse().ok());
                let found = ledger.list_transactions(&caller, &filter, before, limit, at).await?;
                let cursor = |last: &Arc<Transaction>| last.transaction_id.unwrap_or_default();
                page.answer_until(found.transactions, found.next, cursor, encode)
            }
            Some(account_id) => {
                let before = page.cursor.as_deref().and_then(|it| it.parse().ok());
                let found = ledger
                    .list_transactions_of_account(&caller, &account_id, &filter, before, limit, at)
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
        let (caller, deadline, request) = open(request);
        let (account_id, time_us) = decode::balance(&self.currencies, &request)?;
        let (account, balance, sequence) =
            self.ledger.balance_at(&caller, &account_id, time_us, deadline.at).await?;
        let balance = Some(encode::money(&account.currency, balance));
        Ok(Response::new(proto::GetBalanceResponse { balance, sequence }))
    }

    type WatchEntriesStream = Watched;

    async fn watch_entries(
        &self,
        request: Request<proto::WatchEntriesRequest>,
    ) -> Result<Response<Self::WatchEntriesStream>, Status> {
        let (caller, deadline, request) = open(request);
        let account_id = decode::watch(&self.currencies, &request)?;
        let after = request.after_sequence;
        let watcher = self.ledger.watch(&caller, &account_id, after, deadline.at).await?;
        let entries = watch_entries::serve(watcher, self.stopping.clone(), deadline);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn resolve_request(
        &self,
        request: Request<proto::ResolveRequestRequest>,
    ) -> Result<Response<proto::ResolveRequestResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let request_id = decode::request_id(&self.currencies, &request.request_id)?;
        let record = self.ledger.resolve(&caller, request_id, request.fence, deadline.at).await?;
        Ok(Response::new(encode::outcome(record)))
    }

    async fn verify_account(
        &self,
        request: Request<proto::VerifyAccountRequest>,
    ) -> Result<Response<proto::VerifyAccountResponse>, Status> {
        let (caller, deadline, request) = open(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let found = self.ledger.verify_account(&caller, &account_id, deadline.at).await?;
        Ok(Response::new(encode::verified_account(found)))
    }
}
