//! AccountService: all its RPCs. Each decodes its request, calls the ledger, and encodes the result.
//!
//! Rules belong to the domain, and the order of locks and commits to the ledger. Commands count
//! their outcome ([`metrics`]).

use std::{pin::Pin, sync::Arc};

use prost::{Message, Name};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{
        account::AccountUpdate, authorization::Grant, command, money::Currencies,
        unit_of_work::RequestResult,
    },
    grpc::{
        context::{self, context},
        create_accounts::Opening,
        decode::{self, Decoder},
        encode::{self, response_size},
        error::StatusBuilder,
        metrics::{self, RequestMode},
        middleware::{authentication, compression::compressible, deadline::Deadline},
        statements,
        stream_transactions::StreamContext,
        watch_entries,
        watch_events::EventStream,
        watching::WatchCall,
    },
    ledger::{CallContext, Ledger},
    proto::{self, account_service_server::AccountService},
};

type Reply<T> = Result<Response<T>, Status>;
type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves `passbook.v1.AccountService`.
pub struct AccountServiceImpl {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
    /// Turns true when streams must end.
    pub stopping: watch::Receiver<bool>,
}

impl AccountServiceImpl {
    /// Splits a request into its context and its message.
    fn open<T: Message + Name>(
        &self,
        request: Request<T>,
    ) -> Result<(CallContext, T), StatusBuilder> {
        context::open(self.ledger.budgets(), request)
    }

    /// Splits a request into its context and its message, and decodes the message.
    fn decode<T: Message + Name, D>(
        &self,
        request: Request<T>,
        read: impl FnOnce(&mut Decoder<'_>, T) -> Option<D>,
    ) -> Result<(CallContext, D), StatusBuilder> {
        let (context, message) = self.open(request)?;
        let caller = &context.caller.recorded_as;
        let decoded = Decoder::decode(&self.currencies, caller, message, read)?;
        Ok((context, decoded))
    }

    /// Executes a request that moves or holds money.
    async fn execute<T: Message + Name, R: From<RequestResult>>(
        &self,
        request: Request<T>,
        read: impl FnOnce(&mut Decoder<'_>, T) -> Option<command::Request>,
    ) -> Reply<R> {
        let (context, request) = self.decode(request, read).map_err(counted)?;
        let mode = RequestMode::of(&request);
        let result = self.ledger.execute(&context, request).await;
        let result = result.map_err(|error| metrics::counted(error, mode))?;
        metrics::count_applied(result.replayed, mode);
        Ok(Response::new(result.into()))
    }

    /// Executes an update of an account's attributes or state.
    async fn update<T: Message + Name>(
        &self,
        request: Request<T>,
        read: impl FnOnce(&mut Decoder<'_>, T) -> Option<AccountUpdate>,
    ) -> Result<proto::Account, Status> {
        let (context, update) = self.decode(request, read).map_err(counted)?;
        let account = self.ledger.update_account(&context, update).await.map_err(counted)?;
        metrics::count_applied(false, RequestMode::Execute);
        Ok(encode::account(account))
    }

    fn opening<'a>(&'a self, context: &'a CallContext) -> Opening<'a> {
        Opening { ledger: &self.ledger, currencies: &self.currencies, context }
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

/// Counts and encodes an error.
fn counted(error: impl Into<StatusBuilder>) -> Status {
    metrics::counted(error, RequestMode::Execute).into()
}

#[tonic::async_trait]
impl AccountService for AccountServiceImpl {
    async fn create_account(
        &self,
        request: Request<proto::CreateAccountRequest>,
    ) -> Reply<proto::CreateAccountResponse> {
        let (context, request) = self.open(request)?;
        let account = self.opening(&context).create_one(request).await?;
        let account = Some(encode::account(account));
        Ok(Response::new(proto::CreateAccountResponse { account }))
    }

    async fn batch_create_accounts(
        &self,
        request: Request<proto::BatchCreateAccountsRequest>,
    ) -> Reply<proto::BatchCreateAccountsResponse> {
        let (context, request) = self.open(request)?;
        let results = self.opening(&context).create_batch(request).await?;
        Ok(compressible(proto::BatchCreateAccountsResponse { results }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Reply<proto::GetAccountResponse> {
        let (context, account_id) = self.decode(request, |decoder, request| {
            decoder.account_id("account_id", &request.account_id)
        })?;
        let account = Some(encode::account(self.ledger.account(&context, &account_id).await?));
        Ok(Response::new(proto::GetAccountResponse { account }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Reply<proto::BatchGetAccountsResponse> {
        let (context, account_ids) = self.decode(request, decode::account_ids)?;
        let accounts = self.ledger.accounts(&context, &account_ids).await?;
        let accounts = response_size::accounts(accounts)?;
        Ok(compressible(proto::BatchGetAccountsResponse { accounts }))
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Reply<proto::ListAccountsResponse> {
        let (context, (prefix, filter, page)) = self.decode(request, decode::account_list)?;
        let (after, limit) = (page.cursor.as_ref(), page.limit + 1);
        let list = self.ledger.list_accounts(&context, &prefix, &filter, after, limit).await?;
        let (accounts, next_page_token) = page
            .encode(list.rows, list.next, |last| last.account_id.clone(), encode::account)
            .await;
        Ok(compressible(proto::ListAccountsResponse { accounts, next_page_token }))
    }

    async fn sum_balances(
        &self,
        request: Request<proto::SumBalancesRequest>,
    ) -> Reply<proto::SumBalancesResponse> {
        let (context, (prefix, filter, time_us)) = self.decode(request, decode::balance_sums)?;
        let sums = self.ledger.sum_balances(&context, &prefix, &filter, time_us).await?;
        let sums = sums.iter().map(|it| encode::balance_sum(it, time_us.is_none())).collect();
        Ok(Response::new(proto::SumBalancesResponse { sums }))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Reply<proto::UpdateAccountResponse> {
        let account = Some(self.update(request, decode::account_update).await?);
        Ok(Response::new(proto::UpdateAccountResponse { account }))
    }

    async fn freeze_account(
        &self,
        request: Request<proto::FreezeAccountRequest>,
    ) -> Reply<proto::FreezeAccountResponse> {
        let account = Some(self.update(request, decode::freeze).await?);
        Ok(Response::new(proto::FreezeAccountResponse { account }))
    }

    async fn unfreeze_account(
        &self,
        request: Request<proto::UnfreezeAccountRequest>,
    ) -> Reply<proto::UnfreezeAccountResponse> {
        let account = Some(self.update(request, decode::unfreeze).await?);
        Ok(Response::new(proto::UnfreezeAccountResponse { account }))
    }

    async fn close_account(
        &self,
        request: Request<proto::CloseAccountRequest>,
    ) -> Reply<proto::CloseAccountResponse> {
        let account = Some(self.update(request, decode::close).await?);
        Ok(Response::new(proto::CloseAccountResponse { account }))
    }

    async fn list_account_changes(
        &self,
        request: Request<proto::ListAccountChangesRequest>,
    ) -> Reply<proto::ListAccountChangesResponse> {
        let (context, (account_id, page)) = self.decode(request, decode::account_change_list)?;
        let (after, limit) = (page.cursor.unwrap_or(0), page.limit + 1);
        let changes = self.ledger.list_account_changes(&context, &account_id, after, limit).await?;
        let (changes, next_page_token) =
            page.encode(changes, None, |last| last.version, encode::account_change).await;
        Ok(compressible(proto::ListAccountChangesResponse { changes, next_page_token }))
    }

    async fn deposit(
        &self,
        request: Request<proto::DepositRequest>,
    ) -> Reply<proto::DepositResponse> {
        self.execute(request, decode::deposit).await
    }

    async fn withdraw(
        &self,
        request: Request<proto::WithdrawRequest>,
    ) -> Reply<proto::WithdrawResponse> {
        self.execute(request, decode::withdraw).await
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Reply<proto::TransferResponse> {
        self.execute(request, decode::transfer).await
    }

    async fn post_transaction(
        &self,
        request: Request<proto::PostTransactionRequest>,
    ) -> Reply<proto::PostTransactionResponse> {
        self.execute(request, decode::transaction).await
    }

    async fn batch_post_transactions(
        &self,
        request: Request<proto::BatchPostTransactionsRequest>,
    ) -> Reply<proto::BatchPostTransactionsResponse> {
        let (context, request) = self.open(request)?;
        let results = self.stream_context(context).post_batch(request).await?;
        Ok(compressible(proto::BatchPostTransactionsResponse { results }))
    }

    type StreamTransactionsStream = ResponseStream<proto::StreamTransactionsResponse>;

    async fn stream_transactions(
        &self,
        mut request: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Reply<Self::StreamTransactionsStream> {
        let deadline = Deadline::of(request.extensions());
        let authorization = authentication::authorization(request.extensions())?;
        let streams = self.stream_context(context(&mut request)?);
        let results = streams.serve(request.into_inner(), deadline, authorization);
        Ok(Response::new(Box::pin(results)))
    }

    async fn reverse_transaction(
        &self,
        request: Request<proto::ReverseTransactionRequest>,
    ) -> Reply<proto::ReverseTransactionResponse> {
        self.execute(request, decode::reversal).await
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Reply<proto::GetTransactionResponse> {
        let (context, name) = self.decode(request, decode::transaction_name)?;
        let transaction = self.ledger.transaction(&context, name).await?;
        let transaction = Some(encode::transaction(&transaction));
        Ok(Response::new(proto::GetTransactionResponse { transaction }))
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Reply<proto::ListTransactionsResponse> {
        let (context, list) = self.decode(request, decode::transaction_list)?;
        let list = statements::transactions(&self.ledger, &context, list).await?;
        Ok(compressible(list))
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Reply<proto::ListEntriesResponse> {
        let (context, list) = self.decode(request, decode::entry_list)?;
        Ok(compressible(statements::entries(&self.ledger, &context, list).await?))
    }

    async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Reply<proto::GetBalanceResponse> {
        let (context, query) = self.decode(request, decode::balance)?;
        Ok(Response::new(statements::balance(&self.ledger, &context, query).await?))
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Reply<proto::PlaceHoldResponse> {
        self.execute(request, decode::new_hold).await
    }

    async fn update_hold(
        &self,
        request: Request<proto::UpdateHoldRequest>,
    ) -> Reply<proto::UpdateHoldResponse> {
        self.execute(request, decode::hold_update).await
    }

    async fn capture_hold(
        &self,
        request: Request<proto::CaptureHoldRequest>,
    ) -> Reply<proto::CaptureHoldResponse> {
        self.execute(request, decode::capture).await
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Reply<proto::ReleaseHoldResponse> {
        self.execute(request, decode::release).await
    }

    async fn get_hold(
        &self,
        request: Request<proto::GetHoldRequest>,
    ) -> Reply<proto::GetHoldResponse> {
        let (context, hold_id) =
            self.decode(request, |decoder, request| decoder.hold_id(&request.hold_id))?;
        let hold = Some(encode::hold(&self.ledger.hold(&context, &hold_id).await?));
        Ok(Response::new(proto::GetHoldResponse { hold }))
    }

    async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Reply<proto::ListHoldsResponse> {
        let (context, (account_id, filter, page)) = self.decode(request, decode::hold_list)?;
        let list = self.ledger.list_holds(&context, &account_id, &filter, page.limit + 1).await?;
        let (holds, next_page_token) = page
            .encode(list.rows, list.next, |last| last.hold_id.clone(), |it| encode::hold(&it))
            .await;
        Ok(compressible(proto::ListHoldsResponse { holds, next_page_token }))
    }

    type WatchEntriesStream = ResponseStream<proto::WatchEntriesResponse>;

    async fn watch_entries(
        &self,
        request: Request<proto::WatchEntriesRequest>,
    ) -> Reply<Self::WatchEntriesStream> {
        let call = WatchCall::of(request.extensions(), &self.stopping)?;
        let (context, (account_id, after_sequence)) = self.decode(request, decode::watch)?;
        let (watcher, share) = self.ledger.watch(&context, &account_id, after_sequence).await?;
        let forward = |messages| watch_entries::forward(watcher, messages);
        let entries = call.serve(share, move |grant| grant.check_read(&account_id), forward);
        Ok(Response::new(Box::pin(entries)))
    }

    type WatchEventsStream = ResponseStream<proto::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<proto::WatchEventsRequest>,
    ) -> Reply<Self::WatchEventsStream> {
        let call = WatchCall::of(request.extensions(), &self.stopping)?;
        let (context, (filter, start)) = self.decode(request, decode::watched_events)?;
        let (watcher, share) = self.ledger.watch_events(&context, start).await?;
        let stream = EventStream::new(watcher, filter, call.authorization.clone());
        let forward = |messages| stream.forward(messages);
        let events = call.serve(share, Grant::check_read_of_some, forward);
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_request_outcome(
        &self,
        request: Request<proto::GetRequestOutcomeRequest>,
    ) -> Reply<proto::GetRequestOutcomeResponse> {
        let (context, request_id) =
            self.decode(request, |decoder, request| decoder.request_id(&request.request_id))?;
        let record = self.ledger.request_record(&context, request_id).await?;
        Ok(Response::new(encode::outcome(record)))
    }

    async fn fence_request(
        &self,
        request: Request<proto::FenceRequestRequest>,
    ) -> Reply<proto::FenceRequestResponse> {
        let (context, request_id) =
            self.decode(request, |decoder, request| decoder.request_id(&request.request_id))?;
        let record = self.ledger.fence(&context, request_id).await?;
        Ok(Response::new(encode::fenced(record)))
    }

    async fn verify_account(
        &self,
        request: Request<proto::VerifyAccountRequest>,
    ) -> Reply<proto::VerifyAccountResponse> {
        let (context, account_id) = self.decode(request, |decoder, request| {
            decoder.account_id("account_id", &request.account_id)
        })?;
        let verified = self.ledger.verify_account(&context, &account_id).await?;
        Ok(Response::new(encode::verified_account(verified)))
    }
}
