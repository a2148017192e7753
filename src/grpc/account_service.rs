//! AccountService: the table of its RPCs. Their bodies are in [`crate::grpc::rpc`].

use std::{pin::Pin, sync::Arc};

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::money::Currencies,
    grpc::{
        context::unpack,
        decode,
        middleware::deadline::Deadline,
        rpc::{
            commands::Commands, queries::Queries, stream_transactions::StreamContext, watch_entries,
        },
    },
    ledger::{CallContext, Ledger},
    proto::{self, account_service_server::AccountService},
};

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves `passbook.v1.AccountService`.
pub struct AccountServiceImpl {
    commands: Commands,
    queries: Queries,
    stopping: watch::Receiver<bool>,
}

impl AccountServiceImpl {
    /// A service over this ledger, in these currencies. Its streams end when `stopping` turns true.
    #[must_use]
    pub fn new(
        ledger: Arc<Ledger>,
        currencies: Arc<Currencies>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let queries = Queries { ledger: ledger.clone(), currencies: currencies.clone() };
        Self { commands: Commands { ledger, currencies }, queries, stopping }
    }

    fn stream_context(&self, call: CallContext) -> StreamContext {
        StreamContext {
            ledger: self.commands.ledger.clone(),
            currencies: self.commands.currencies.clone(),
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
        self.commands.create_account(request).await
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        self.queries.get_account(request).await
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Result<Response<proto::BatchGetAccountsResponse>, Status> {
        self.queries.batch_get_accounts(request).await
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        self.queries.list_accounts(request).await
    }

    async fn deposit(
        &self,
        request: Request<proto::DepositRequest>,
    ) -> Result<Response<proto::DepositResponse>, Status> {
        self.commands.execute(request, decode::deposit).await
    }

    async fn withdraw(
        &self,
        request: Request<proto::WithdrawRequest>,
    ) -> Result<Response<proto::WithdrawResponse>, Status> {
        self.commands.execute(request, decode::withdraw).await
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        self.commands.execute(request, decode::transfer).await
    }

    async fn post_transaction(
        &self,
        request: Request<proto::PostTransactionRequest>,
    ) -> Result<Response<proto::PostTransactionResponse>, Status> {
        self.commands.execute(request, decode::transaction).await
    }

    async fn batch_post_transactions(
        &self,
        request: Request<proto::BatchPostTransactionsRequest>,
    ) -> Result<Response<proto::BatchPostTransactionsResponse>, Status> {
        let (call, request) = unpack(request);
        let results = self.stream_context(call).post_batch(request).await?;
        Ok(Response::new(proto::BatchPostTransactionsResponse { results }))
    }

    type StreamTransactionsStream = ResponseStream<proto::StreamTransactionsResponse>;

    async fn stream_transactions(
        &self,
        request: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let (call, requests) = unpack(request);
        Ok(Response::new(Box::pin(self.stream_context(call).serve(requests, deadline))))
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        self.queries.get_transaction(request).await
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Result<Response<proto::ListEntriesResponse>, Status> {
        self.queries.list_entries(request).await
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        self.commands.update(request, decode::account_update).await
    }

    async fn freeze_account(
        &self,
        request: Request<proto::FreezeAccountRequest>,
    ) -> Result<Response<proto::FreezeAccountResponse>, Status> {
        self.commands.update(request, decode::freeze).await
    }

    async fn unfreeze_account(
        &self,
        request: Request<proto::UnfreezeAccountRequest>,
    ) -> Result<Response<proto::UnfreezeAccountResponse>, Status> {
        self.commands.update(request, decode::unfreeze).await
    }

    async fn close_account(
        &self,
        request: Request<proto::CloseAccountRequest>,
    ) -> Result<Response<proto::CloseAccountResponse>, Status> {
        self.commands.update(request, decode::close).await
    }

    async fn list_account_changes(
        &self,
        request: Request<proto::ListAccountChangesRequest>,
    ) -> Result<Response<proto::ListAccountChangesResponse>, Status> {
        self.queries.list_account_changes(request).await
    }

    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldResponse>, Status> {
        self.commands.execute(request, decode::new_hold).await
    }

    async fn capture_hold(
        &self,
        request: Request<proto::CaptureHoldRequest>,
    ) -> Result<Response<proto::CaptureHoldResponse>, Status> {
        self.commands.execute(request, decode::capture).await
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        self.commands.execute(request, decode::release).await
    }

    async fn get_hold(
        &self,
        request: Request<proto::GetHoldRequest>,
    ) -> Result<Response<proto::GetHoldResponse>, Status> {
        self.queries.get_hold(request).await
    }

    async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        self.queries.list_holds(request).await
    }

    async fn reverse_transaction(
        &self,
        request: Request<proto::ReverseTransactionRequest>,
    ) -> Result<Response<proto::ReverseTransactionResponse>, Status> {
        self.commands.execute(request, decode::reversal).await
    }

    async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        self.queries.list_transactions(request).await
    }

    async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Result<Response<proto::GetBalanceResponse>, Status> {
        self.queries.get_balance(request).await
    }

    type WatchEntriesStream = ResponseStream<proto::WatchEntriesResponse>;

    async fn watch_entries(
        &self,
        request: Request<proto::WatchEntriesRequest>,
    ) -> Result<Response<Self::WatchEntriesStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let (context, request) = unpack(request);
        let account_id = decode::watch(&self.queries.currencies, &request)?;
        let watcher =
            self.queries.ledger.watch(&context, &account_id, request.after_sequence).await?;
        let entries = watch_entries::serve(watcher, self.stopping.clone(), deadline);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn get_request_outcome(
        &self,
        request: Request<proto::GetRequestOutcomeRequest>,
    ) -> Result<Response<proto::GetRequestOutcomeResponse>, Status> {
        self.queries.get_request_outcome(request).await
    }

    async fn fence_request(
        &self,
        request: Request<proto::FenceRequestRequest>,
    ) -> Result<Response<proto::FenceRequestResponse>, Status> {
        self.commands.fence_request(request).await
    }

    async fn verify_account(
        &self,
        request: Request<proto::VerifyAccountRequest>,
    ) -> Result<Response<proto::VerifyAccountResponse>, Status> {
        self.queries.verify_account(request).await
    }
}
