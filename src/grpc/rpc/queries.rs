//! The unary RPCs that change nothing: decode, query, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{money::Currencies, transaction::Transaction},
    grpc::{
        context::unpack,
        decode,
        encode::{self, response_size},
    },
    ledger::Ledger,
    proto,
};

type Reply<T> = Result<Response<T>, Status>;

/// Serves the queries of AccountService.
pub struct Queries {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
}

impl Queries {
    pub async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Reply<proto::GetAccountResponse> {
        let (context, request) = unpack(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let account = encode::account(self.ledger.account(&context, &account_id).await?);
        Ok(Response::new(proto::GetAccountResponse { account: Some(account) }))
    }

    pub async fn batch_get_accounts(
        &self,
        request: Request<proto::BatchGetAccountsRequest>,
    ) -> Reply<proto::BatchGetAccountsResponse> {
        let (context, request) = unpack(request);
        let account_ids = decode::account_ids(&self.currencies, &request.account_ids)?;
        let accounts = self.ledger.accounts(&context, &account_ids).await?;
        let accounts = response_size::accounts(accounts)?;
        Ok(Response::new(proto::BatchGetAccountsResponse { accounts }))
    }

    pub async fn list_accounts(
        &self,
        request: Request<proto::ListAccountsRequest>,
    ) -> Reply<proto::ListAccountsResponse> {
        let (context, request) = unpack(request);
        let (filter, page) = decode::account_list(&self.currencies, &request)?;
        let after = page.cursor.as_ref();
        let list = self.ledger.list_accounts(&context, &filter, after, page.limit + 1).await?;
        let (accounts, next_page_token) =
            page.encode(list.rows, list.next, |last| last.account_id.clone(), encode::account);
        Ok(Response::new(proto::ListAccountsResponse { accounts, next_page_token }))
    }

    pub async fn list_account_changes(
        &self,
        request: Request<proto::ListAccountChangesRequest>,
    ) -> Reply<proto::ListAccountChangesResponse> {
        let (context, request) = unpack(request);
        let (account_id, page) = decode::account_change_list(&self.currencies, &request)?;
        let (after, limit) = (page.cursor.unwrap_or(0), page.limit + 1);
        let changes = self.ledger.list_account_changes(&context, &account_id, after, limit).await?;
        let (changes, next_page_token) =
            page.encode(changes, None, |last| last.version, encode::account_change);
        Ok(Response::new(proto::ListAccountChangesResponse { changes, next_page_token }))
    }

    pub async fn get_balance(
        &self,
        request: Request<proto::GetBalanceRequest>,
    ) -> Reply<proto::GetBalanceResponse> {
        let (context, request) = unpack(request);
        let (account_id, time_us) = decode::balance(&self.currencies, &request)?;
        let (account, balance, sequence) =
            self.ledger.balance_at(&context, &account_id, time_us).await?;
        let balance = Some(encode::money(&account.currency, balance));
        Ok(Response::new(proto::GetBalanceResponse { balance, sequence }))
    }

    pub async fn list_entries(
        &self,
        request: Request<proto::ListEntriesRequest>,
    ) -> Reply<proto::ListEntriesResponse> {
        let (context, request) = unpack(request);
        let (account_id, range, page) = decode::entry_list(&self.currencies, &request)?;
        let entries =
            self.ledger.list_entries(&context, &account_id, &range, page.limit + 1).await?;
        let (entries, next_page_token) =
            page.encode(entries, None, |last| last.sequence, |it| encode::entry(&it));
        Ok(Response::new(proto::ListEntriesResponse { entries, next_page_token }))
    }

    pub async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Reply<proto::GetTransactionResponse> {
        let (context, request) = unpack(request);
        let name = decode::transaction_name(&self.currencies, &request)?;
        let transaction = self.ledger.transaction(&context, name).await?;
        let transaction = Some(encode::transaction(&transaction));
        Ok(Response::new(proto::GetTransactionResponse { transaction }))
    }

    pub async fn list_transactions(
        &self,
        request: Request<proto::ListTransactionsRequest>,
    ) -> Reply<proto::ListTransactionsResponse> {
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
                page.encode_until(found.transactions, found.next, cursor, encode)
            }
            Some(account_id) => {
                let before = page.cursor.as_deref().and_then(|it| it.parse().ok());
                let found = ledger
                    .list_transactions_of_account(&context, &account_id, &filter, before, limit)
                    .await?;
                let cursor = |last: &Arc<Transaction>| last.last_sequence_of(&account_id);
                page.encode_until(found.transactions, found.next, cursor, encode)
            }
        };
        Ok(Response::new(proto::ListTransactionsResponse { transactions, next_page_token }))
    }

    pub async fn get_hold(
        &self,
        request: Request<proto::GetHoldRequest>,
    ) -> Reply<proto::GetHoldResponse> {
        let (context, request) = unpack(request);
        let hold_id = decode::hold_id(&self.currencies, &request.hold_id)?;
        let hold = Some(encode::hold(&self.ledger.hold(&context, &hold_id).await?));
        Ok(Response::new(proto::GetHoldResponse { hold }))
    }

    pub async fn list_holds(
        &self,
        request: Request<proto::ListHoldsRequest>,
    ) -> Reply<proto::ListHoldsResponse> {
        let (context, request) = unpack(request);
        let (account_id, filter, page) = decode::hold_list(&self.currencies, &request)?;
        let list = self.ledger.list_holds(&context, &account_id, &filter, page.limit + 1).await?;
        let (holds, next_page_token) =
            page.encode(list.rows, list.next, |last| last.hold_id.clone(), |it| encode::hold(&it));
        Ok(Response::new(proto::ListHoldsResponse { holds, next_page_token }))
    }

    pub async fn get_request_outcome(
        &self,
        request: Request<proto::GetRequestOutcomeRequest>,
    ) -> Reply<proto::GetRequestOutcomeResponse> {
        let (context, request) = unpack(request);
        let request_id = decode::request_id(&self.currencies, &request.request_id)?;
        let record = self.ledger.request_record(&context, request_id).await?;
        Ok(Response::new(encode::outcome(record)))
    }

    pub async fn verify_account(
        &self,
        request: Request<proto::VerifyAccountRequest>,
    ) -> Reply<proto::VerifyAccountResponse> {
        let (context, request) = unpack(request);
        let account_id = decode::account_id(&self.currencies, &request.account_id)?;
        let verified = self.ledger.verify_account(&context, &account_id).await?;
        Ok(Response::new(encode::verified_account(verified)))
    }
}
