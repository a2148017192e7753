//! The RPCs of the comparison. The other RPCs return UNIMPLEMENTED.

use std::pin::Pin;

use passbook::proto::{self, account_service_server::AccountService};
use sea_orm::{ActiveValue::Set, entity::prelude::*};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Plain, account, cents, status};

type Results =
    Pin<Box<dyn Stream<Item = Result<proto::StreamTransactionsResponse, Status>> + Send>>;

type Watched = Pin<Box<dyn Stream<Item = Result<proto::WatchEntriesResponse, Status>> + Send>>;
type WatchedEvents = Pin<Box<dyn Stream<Item = Result<proto::WatchEventsResponse, Status>> + Send>>;

fn left_out<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of the comparison"))
}

#[tonic::async_trait]
impl AccountService for Plain {
    async fn create_account(
        &self,
        request: Request<proto::CreateAccountRequest>,
    ) -> Result<Response<proto::CreateAccountResponse>, Status> {
        let request = request.into_inner();
        let row = account::ActiveModel {
            account_id: Set(request.account_id.clone()),
            balance_cents: Set(0),
            overdraft_limit_cents: Set(if request.unlimited_overdraft { i64::MAX / 2 } else { 0 }),
            sequence: Set(0),
        };
        account::Entity::insert(row)
            .exec_without_returning(&self.database)
            .await
            .map_err(status)?;
        let account = Some(proto::Account { account_id: request.account_id, ..Default::default() });
        Ok(Response::new(proto::CreateAccountResponse { account }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let mut accounts = self.accounts(&[request.into_inner().account_id]).await?;
        Ok(Response::new(proto::GetAccountResponse { account: accounts.pop() }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Result<Response<proto::BatchGetAccountsResponse>, Status> {
        let accounts = self.accounts(&request.into_inner().account_ids).await?;
        Ok(Response::new(proto::BatchGetAccountsResponse { accounts }))
    }

    async fn deposit(
        &self,
        request: Request<proto::DepositRequest>,
    ) -> Result<Response<proto::DepositResponse>, Status> {
        let request = request.into_inner();
        let cents = cents(request.amount)?;
        let transaction = Some(self.change(request.request_id, request.account_id, cents).await?);
        Ok(Response::new(proto::DepositResponse { transaction, replayed: false }))
    }

    async fn withdraw(
        &self,
        request: Request<proto::WithdrawRequest>,
    ) -> Result<Response<proto::WithdrawResponse>, Status> {
        let request = request.into_inner();
        let cents = -cents(request.amount)?;
        let transaction = Some(self.change(request.request_id, request.account_id, cents).await?);
        Ok(Response::new(proto::WithdrawResponse { transaction, replayed: false }))
    }

    async fn list_accounts(
        &self,
        _: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        left_out()
    }

    async fn transfer(
        &self,
        _: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        left_out()
    }

    async fn post_transaction(
        &self,
        _: Request<proto::PostTransactionRequest>,
    ) -> Result<Response<proto::PostTransactionResponse>, Status> {
        left_out()
    }

    async fn batch_create_accounts(
        &self,
        _: Request<proto::BatchCreateAccountsRequest>,
    ) -> Result<Response<proto::BatchCreateAccountsResponse>, Status> {
        left_out()
    }

    async fn sum_balances(
        &self,
        _: Request<proto::SumBalancesRequest>,
    ) -> Result<Response<proto::SumBalancesResponse>, Status> {
        left_out()
    }

    async fn batch_post_transactions(
        &self,
        _: Request<proto::BatchPostTransactionsRequest>,
    ) -> Result<Response<proto::BatchPostTransactionsResponse>, Status> {
        left_out()
    }

    type StreamTransactionsStream = Results;

    async fn stream_transactions(
        &self,
        _: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        left_out()
    }

    async fn get_transaction(
        &self,
        _: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        left_out()
    }

    async fn list_entries(
        &self,
        _: Request<proto::ListEntriesRequest>,
    ) -> Result<Response<proto::ListEntriesResponse>, Status> {
        left_out()
    }

    async fn update_account(
        &self,
        _: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        left_out()
    }

    async fn freeze_account(
        &self,
        _: Request<proto::FreezeAccountRequest>,
    ) -> Result<Response<proto::FreezeAccountResponse>, Status> {
        left_out()
    }

    async fn unfreeze_account(
        &self,
        _: Request<proto::UnfreezeAccountRequest>,
    ) -> Result<Response<proto::UnfreezeAccountResponse>, Status> {
        left_out()
    }

    async fn close_account(
        &self,
        _: Request<proto::CloseAccountRequest>,
    ) -> Result<Response<proto::CloseAccountResponse>, Status> {
        left_out()
    }

    async fn list_account_changes(
        &self,
        _: Request<proto::ListAccountChangesRequest>,
    ) -> Result<Response<proto::ListAccountChangesResponse>, Status> {
        left_out()
    }

    async fn place_hold(
        &self,
        _: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldResponse>, Status> {
        left_out()
    }

    async fn update_hold(
        &self,
        _: Request<proto::UpdateHoldRequest>,
    ) -> Result<Response<proto::UpdateHoldResponse>, Status> {
        left_out()
    }

    async fn capture_hold(
        &self,
        _: Request<proto::CaptureHoldRequest>,
    ) -> Result<Response<proto::CaptureHoldResponse>, Status> {
        left_out()
    }

    async fn release_hold(
        &self,
        _: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        left_out()
    }

    async fn get_hold(
        &self,
        _: Request<proto::GetHoldRequest>,
    ) -> Result<Response<proto::GetHoldResponse>, Status> {
        left_out()
    }

    async fn list_holds(
        &self,
        _: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        left_out()
    }

    async fn reverse_transaction(
        &self,
        _: Request<proto::ReverseTransactionRequest>,
    ) -> Result<Response<proto::ReverseTransactionResponse>, Status> {
        left_out()
    }

    async fn list_transactions(
        &self,
        _: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        left_out()
    }

    async fn get_balance(
        &self,
        _: Request<proto::GetBalanceRequest>,
    ) -> Result<Response<proto::GetBalanceResponse>, Status> {
        left_out()
    }

    type WatchEntriesStream = Watched;

    async fn watch_entries(
        &self,
        _: Request<proto::WatchEntriesRequest>,
    ) -> Result<Response<Self::WatchEntriesStream>, Status> {
        left_out()
    }

    type WatchEventsStream = WatchedEvents;

    async fn watch_events(
        &self,
        _: Request<proto::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        left_out()
    }

    async fn get_request_outcome(
        &self,
        _: Request<proto::GetRequestOutcomeRequest>,
    ) -> Result<Response<proto::GetRequestOutcomeResponse>, Status> {
        left_out()
    }

    async fn fence_request(
        &self,
        _: Request<proto::FenceRequestRequest>,
    ) -> Result<Response<proto::FenceRequestResponse>, Status> {
        left_out()
    }

    async fn verify_account(
        &self,
        _: Request<proto::VerifyAccountRequest>,
    ) -> Result<Response<proto::VerifyAccountResponse>, Status> {
        left_out()
    }
}
