//! CreateAccount and BatchCreateAccounts: accounts to open, in one call.

use tokio::task::consume_budget;
use tonic::Status;

use crate::{
    domain::{
        account::{Account, NewAccount},
        money::Currencies,
    },
    grpc::{
        decode::{self, Decoder},
        encode::{self, response_size},
        error::{StatusBuilder, invalid::Invalid},
        metrics::{self, RequestMode},
    },
    ledger::{CallContext, Error, Ledger, Outcome},
    proto,
};

/// The ledger returned fewer results than it got accounts: a defect.
const MISSING_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// An account to open, and whether accounts may still be opened in its currency.
type Decoded = (NewAccount, Result<(), Invalid>);

/// Opens the accounts of one call.
pub struct Opening<'a> {
    pub ledger: &'a Ledger,
    pub currencies: &'a Currencies,
    pub context: &'a CallContext,
}

impl Opening<'_> {
    /// Opens one account.
    pub async fn create_one(
        &self,
        request: proto::CreateAccountRequest,
    ) -> Result<Account, StatusBuilder> {
        let mut results = self.create_all(vec![request]).await;
        results.pop().unwrap_or(Err(MISSING_RESULT.into()))
    }

    /// Serves one batch: the results in the order of the requests.
    pub async fn create_batch(
        &self,
        request: proto::BatchCreateAccountsRequest,
    ) -> Result<Vec<proto::CreateAccountResult>, Status> {
        let requests = decode::account_batch(request)?;
        let size = response_size::check_room(&requests, |_| 0)?;
        let size = size.max(response_size::of_existing_accounts(requests.len()));
        let (budgets, identity) = (self.ledger.budgets(), &self.context.caller.identity);
        let _share = budgets.response_share(identity, size).map_err(Error::from)?;
        budgets.charge_batch(identity, requests.len());
        let opened = self.create_all(requests).await;
        let mut results = Vec::with_capacity(opened.len());
        for result in opened {
            results.push(encode::created_account(result.map_err(StatusBuilder::into_proto)));
        }
        response_size::fit_accounts(&mut results);
        Ok(results)
    }

    /// Opens accounts, and counts the outcomes. Returns a result for each, in their order.
    async fn create_all(
        &self,
        requests: Vec<proto::CreateAccountRequest>,
    ) -> Vec<Result<Account, StatusBuilder>> {
        let mut decoded = Vec::with_capacity(requests.len());
        for request in requests {
            // A thousand requests without a pause would be one for every call of the same thread.
            consume_budget().await;
            decoded.push(self.decode(request));
        }
        // A repeated request gets the account, even if no more accounts are opened in its currency.
        let outdated = decoded.iter().flatten().filter(|(_, currency)| currency.is_err());
        let outdated = outdated.map(|(new, _)| new).collect();
        let existing = self.ledger.existing_accounts(self.context, outdated).await;
        let mut accepted = Vec::with_capacity(decoded.len());
        let accept = |decoded: Result<Decoded, Invalid>| {
            let (new, currency) = decoded?;
            if let Err(invalid) = currency
                && !existing.as_ref().map_err(Error::clone)?.contains(&new.account_id)
            {
                return Err(invalid.into());
            }
            accepted.push(new);
            Ok(())
        };
        let requests: Vec<Result<(), StatusBuilder>> = decoded.into_iter().map(accept).collect();
        let mut results = self.ledger.create_accounts(self.context, accepted).await.into_iter();
        let result = |accepted: Result<(), StatusBuilder>| {
            accepted?;
            Ok(results.next().unwrap_or(Err(MISSING_RESULT))?)
        };
        requests.into_iter().map(result).map(counted).collect()
    }

    fn decode(&self, request: proto::CreateAccountRequest) -> Result<Decoded, Invalid> {
        let caller = &self.context.caller.recorded_as;
        let currency =
            Decoder::decode(self.currencies, caller, &request, decode::currency_of_new_account);
        match (Decoder::decode(self.currencies, caller, request, decode::new_account), currency) {
            (Ok(new), currency) => Ok((new, currency)),
            (Err(invalid), Ok(())) => Err(invalid),
            // No account was ever opened by an invalid request: it is not a repeated one.
            (Err(invalid), Err(withdrawn)) => Err(invalid.and(withdrawn)),
        }
    }
}

fn counted(result: Result<Account, StatusBuilder>) -> Result<Account, StatusBuilder> {
    match result {
        Ok(account) => {
            metrics::count_applied(false, RequestMode::Execute);
            Ok(account)
        }
        Err(error) => Err(metrics::counted(error, RequestMode::Execute)),
    }
}
