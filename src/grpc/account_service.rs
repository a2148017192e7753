//! The service: each RPC decodes, calls the ledger, encodes.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{command::Posting, ids::AccountId, money::Currencies, transaction::TransactionKind},
    grpc::{
        deadline::Deadline,
        decode::{self, BATCH_GET_MAX, Common, Decoder, Invalid, Sides},
        encode, page_token,
        stream::Intake,
        watch,
    },
    ledger::{Ledger, Posted},
    proto::{self, ErrorReason, account_service_server::AccountService},
    storage::{AccountFilter, EntryRange, Order},
};

/// Serves `passbook.v1.AccountService`.
pub struct AccountServiceImpl {
    ledger: Arc<Ledger>,
    currencies: Arc<Currencies>,
    /// Whose request ids these are; everyone's, as long as nobody is asked who they are.
    caller: Arc<str>,
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
        Self { ledger, currencies, caller: "".into(), stopping }
    }

    async fn post(
        &self,
        posting: Result<Posting, Invalid>,
        deadline: Deadline,
    ) -> Result<(Option<proto::Transaction>, bool), Status> {
        let Posted { transaction, replayed } = self.ledger.post(posting?, deadline.at).await?;
        Ok((Some(encode::transaction(&transaction)), replayed))
    }

    fn posting(&self, common: &Common<'_>, sides: Sides<'_>) -> Result<Posting, Invalid> {
        decode::posting(&self.currencies, &self.caller, common, sides)
    }

    fn intake(&self) -> Intake {
        Intake {
            ledger: self.ledger.clone(),
            currencies: self.currencies.clone(),
            caller: self.caller.clone(),
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
        let (deadline, request) = open(request);
        let new = decode::new_account(&self.currencies, &request)?;
        let account = self.ledger.create_account(new, deadline.at).await?;
        let account = Some(encode::account(account));
        Ok(Response::new(proto::CreateAccountResponse { account }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        let (deadline, request) = open(request);
        let mut decoder = Decoder::new(&self.currencies);
        let account_id = decoder.account_id("account_id", &request.account_id);
        let account_id = decoder.finish(account_id)?;
        let account = Some(encode::account(self.ledger.account(&account_id, deadline.at).await?));
        Ok(Response::new(proto::GetAccountResponse { account }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Result<Response<proto::BatchGetAccountsResponse>, Status> {
        let (deadline, request) = open(request);
        let account_ids = batch_of_ids(Decoder::new(&self.currencies), &request.account_ids)?;
        let accounts = self.ledger.accounts(&account_ids, deadline.at).await?;
        let accounts = accounts.into_iter().map(encode::account).collect();
        Ok(Response::new(proto::BatchGetAccountsResponse { accounts }))
    }

    async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Result<Response<proto::ListAccountsResponse>, Status> {
        let (deadline, request) = open(request);
        let query = format!("{}/{}/{:?}", request.currency_code, request.state, request.labels);
        let (filter, after, limit) = {
            let mut decoder = Decoder::new(&self.currencies);
            let currency_code = (!request.currency_code.is_empty())
                .then(|| decoder.currency("currency_code", &request.currency_code))
                .flatten();
            decoder.labels(&request.labels);
            let filter = AccountFilter {
                currency_code: currency_code.map(|it| it.code().to_owned()),
                state: decode::account_state(&mut decoder, request.state),
                labels: request.labels,
            };
            let limit = decoder.page_size(request.page_size);
            let parse = |text: &str| AccountId::parse(text).ok();
            let after = cursor(&mut decoder, &query, &request.page_token, parse);
            decoder.finish(Some((filter, after, limit)))?
        };
        // One more than asked for tells whether there is another page.
        let mut accounts =
            self.ledger.list_accounts(&filter, after.as_ref(), limit + 1, deadline.at).await?;
        let next_page_token = next_page(&mut accounts, limit, |last| {
            page_token::encode(&query, last.account_id.as_str())
        });
        let accounts = accounts.into_iter().map(encode::account).collect();
        Ok(Response::new(proto::ListAccountsResponse { accounts, next_page_token }))
    }

    async fn deposit(
        &self,
        request: Request<proto::DepositRequest>,
    ) -> Result<Response<proto::DepositResponse>, Status> {
        let (deadline, request) = open(request);
        let common = Common {
            kind: TransactionKind::Deposit,
            request_id: &request.request_id,
            amount: request.amount.as_ref(),
            description: &request.description,
            labels: &request.labels,
            condition: request.condition.as_ref(),
            validate_only: request.validate_only,
        };
        let posting = self.posting(&common, Sides::Into("account_id", &request.account_id));
        let (transaction, replayed) = self.post(posting, deadline).await?;
        Ok(Response::new(proto::DepositResponse { transaction, replayed }))
    }

    async fn withdraw(
        &self,
        request: Request<proto::WithdrawRequest>,
    ) -> Result<Response<proto::WithdrawResponse>, Status> {
        let (deadline, request) = open(request);
        let common = Common {
            kind: TransactionKind::Withdrawal,
            request_id: &request.request_id,
            amount: request.amount.as_ref(),
            description: &request.description,
            labels: &request.labels,
            condition: request.condition.as_ref(),
            validate_only: request.validate_only,
        };
        let posting = self.posting(&common, Sides::OutOf("account_id", &request.account_id));
        let (transaction, replayed) = self.post(posting, deadline).await?;
        Ok(Response::new(proto::WithdrawResponse { transaction, replayed }))
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        let (deadline, request) = open(request);
        let common = Common {
            kind: TransactionKind::Transfer,
            request_id: &request.request_id,
            amount: request.amount.as_ref(),
            description: &request.description,
            labels: &request.labels,
            condition: request.condition.as_ref(),
            validate_only: request.validate_only,
        };
        let source = ("source_account_id", request.source_account_id.as_str());
        let destination = ("destination_account_id", request.destination_account_id.as_str());
        let posting = self.posting(&common, Sides::Between(source, destination));
        let (transaction, replayed) = self.post(posting, deadline).await?;
        Ok(Response::new(proto::TransferResponse { transaction, replayed }))
    }

    async fn post_transaction(
        &self,
        request: Request<proto::PostTransactionRequest>,
    ) -> Result<Response<proto::PostTransactionResponse>, Status> {
        let (deadline, request) = open(request);
        let posting = decode::transaction(&self.currencies, &self.caller, request);
        let (transaction, replayed) = self.post(posting, deadline).await?;
        Ok(Response::new(proto::PostTransactionResponse { transaction, replayed }))
    }

    async fn batch_post_transactions(
        &self,
        request: Request<proto::BatchPostTransactionsRequest>,
    ) -> Result<Response<proto::BatchPostTransactionsResponse>, Status> {
        let (deadline, request) = open(request);
        let requests = decode::batch(request)?;
        let intake = self.intake();
        // All are in line before the first is waited for.
        let line: Vec<_> = requests.into_iter().map(|it| intake.take(it, deadline.at)).collect();
        let mut results = Vec::with_capacity(line.len());
        for in_line in line {
            results.push(in_line.result().await);
        }
        Ok(Response::new(proto::BatchPostTransactionsResponse { results }))
    }

    type StreamTransactionsStream = Results;

    async fn stream_transactions(
        &self,
        request: Request<Streaming<proto::StreamTransactionsRequest>>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let (deadline, requests) = open(request);
        Ok(Response::new(Box::pin(self.intake().serve(requests, deadline))))
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        let (deadline, request) = open(request);
        let mut decoder = Decoder::new(&self.currencies);
        let name = decoder.transaction_name(request.lookup.as_ref());
        let name = decoder.finish(name)?;
        let transaction = self.ledger.transaction(&self.caller, name, deadline.at).await?;
        let transaction = Some(encode::transaction(&transaction));
        Ok(Response::new(proto::GetTransactionResponse { transaction }))
    }

    async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Result<Response<proto::ListEntriesResponse>, Status> {
        let (deadline, request) = open(request);
        let query = format!(
            "{}/{}/{:?}/{:?}/{}",
            request.account_id,
            request.after_sequence,
            request.start_time,
            request.end_time,
            request.order
        );
        let (account_id, range, limit) = {
            let mut decoder = Decoder::new(&self.currencies);
            let account_id = decoder.account_id("account_id", &request.account_id);
            let limit = decoder.page_size(request.page_size);
            let range = entry_range(&mut decoder, &query, &request);
            decoder.finish(account_id.map(|account_id| (account_id, range, limit)))?
        };
        let mut entries =
            self.ledger.list_entries(&account_id, &range, limit + 1, deadline.at).await?;
        let next_page_token = next_page(&mut entries, limit, |last| {
            page_token::encode(&query, &last.sequence.to_string())
        });
        let entries = entries.iter().map(encode::entry).collect();
        Ok(Response::new(proto::ListEntriesResponse { entries, next_page_token }))
    }

    async fn update_account(
        &self,
        _: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn freeze_account(
        &self,
        _: Request<proto::FreezeAccountRequest>,
    ) -> Result<Response<proto::FreezeAccountResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn unfreeze_account(
        &self,
        _: Request<proto::UnfreezeAccountRequest>,
    ) -> Result<Response<proto::UnfreezeAccountResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn close_account(
        &self,
        _: Request<proto::CloseAccountRequest>,
    ) -> Result<Response<proto::CloseAccountResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_account_changes(
        &self,
        _: Request<proto::ListAccountChangesRequest>,
    ) -> Result<Response<proto::ListAccountChangesResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn place_hold(
        &self,
        _: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn capture_hold(
        &self,
        _: Request<proto::CaptureHoldRequest>,
    ) -> Result<Response<proto::CaptureHoldResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn release_hold(
        &self,
        _: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_hold(
        &self,
        _: Request<proto::GetHoldRequest>,
    ) -> Result<Response<proto::GetHoldResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_holds(
        &self,
        _: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn reverse_transaction(
        &self,
        _: Request<proto::ReverseTransactionRequest>,
    ) -> Result<Response<proto::ReverseTransactionResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_transactions(
        &self,
        _: Request<proto::ListTransactionsRequest>,
    ) -> Result<Response<proto::ListTransactionsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_balance(
        &self,
        _: Request<proto::GetBalanceRequest>,
    ) -> Result<Response<proto::GetBalanceResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type WatchEntriesStream = Watched;

    async fn watch_entries(
        &self,
        request: Request<proto::WatchEntriesRequest>,
    ) -> Result<Response<Self::WatchEntriesStream>, Status> {
        let (deadline, request) = open(request);
        let mut decoder = Decoder::new(&self.currencies);
        let account_id = decoder.account_id("account_id", &request.account_id);
        if request.after_sequence < 0 {
            let reason = ErrorReason::InvalidFilter;
            decoder.refuse(reason, "after_sequence", "must not be negative");
        }
        let account_id = decoder.finish(account_id)?;
        let watcher = self.ledger.watch(&account_id, request.after_sequence, deadline.at).await?;
        let entries = watch::serve(watcher, self.stopping.clone(), deadline);
        Ok(Response::new(Box::pin(entries)))
    }

    async fn resolve_request(
        &self,
        _: Request<proto::ResolveRequestRequest>,
    ) -> Result<Response<proto::ResolveRequestResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn verify_account(
        &self,
        _: Request<proto::VerifyAccountRequest>,
    ) -> Result<Response<proto::VerifyAccountResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

/// The request's deadline and its message.
fn open<T>(request: Request<T>) -> (Deadline, T) {
    (Deadline::of(request.extensions()), request.into_inner())
}

fn batch_of_ids(mut decoder: Decoder<'_>, texts: &[String]) -> Result<Vec<AccountId>, Invalid> {
    let reason = ErrorReason::InvalidAccountId;
    if texts.is_empty() || texts.len() > BATCH_GET_MAX {
        let description = format!("has {} ids; 1-{BATCH_GET_MAX} are allowed", texts.len());
        return Err(Invalid::new(reason, "account_ids", description));
    }
    let mut seen = BTreeSet::new();
    let mut account_ids = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let field = format!("account_ids[{index}]");
        if let Some(account_id) = decoder.account_id(&field, text) {
            if !seen.insert(account_id.clone()) {
                decoder.refuse(reason, &field, "is named twice");
            }
            account_ids.push(account_id);
        }
    }
    decoder.finish(Some(account_ids))
}

/// The cursor of the page before, if there was one.
fn cursor<T>(
    decoder: &mut Decoder<'_>,
    query: &str,
    token: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    if token.is_empty() {
        return None;
    }
    let cursor = page_token::decode(query, token).and_then(|cursor| parse(&cursor));
    if cursor.is_none() {
        let description = "is not a next_page_token of this query";
        decoder.refuse(ErrorReason::InvalidPageToken, "page_token", description);
    }
    cursor
}

/// Cuts off what is beyond the page; if there was anything, the token for the next one.
fn next_page<T>(rows: &mut Vec<T>, limit: u64, token: impl Fn(&T) -> String) -> String {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if rows.len() <= limit {
        return String::new();
    }
    rows.truncate(limit);
    rows.last().map(token).unwrap_or_default()
}

fn entry_range(
    decoder: &mut Decoder<'_>,
    query: &str,
    request: &proto::ListEntriesRequest,
) -> EntryRange {
    let reason = ErrorReason::InvalidFilter;
    if request.after_sequence < 0 {
        decoder.refuse(reason, "after_sequence", "must not be negative");
    }
    let start_time_us = decoder.time("start_time", request.start_time.as_ref());
    let end_time_us = decoder.time("end_time", request.end_time.as_ref());
    let order = match proto::EntryOrder::try_from(request.order) {
        Ok(proto::EntryOrder::Unspecified | proto::EntryOrder::Ascending) => Order::Ascending,
        Ok(proto::EntryOrder::Descending) => Order::Descending,
        Err(_) => {
            decoder.refuse(reason, "order", "is not a known order");
            Order::Ascending
        }
    };
    let after_sequence = request.after_sequence;
    let mut range =
        EntryRange { after_sequence, before_sequence: None, start_time_us, end_time_us, order };
    let parse = |text: &str| text.parse().ok();
    match (cursor(decoder, query, &request.page_token, parse), order) {
        (None, _) => {}
        (Some(sequence), Order::Ascending) => range.after_sequence = sequence,
        (Some(sequence), Order::Descending) => range.before_sequence = Some(sequence),
    }
    range
}
