//! The unary RPCs that change something: decode, execute, count, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{
        account::{Account, AccountUpdate},
        command,
        ids::Identity,
        money::Currencies,
        unit_of_work::RequestResult,
    },
    grpc::{
        context::unpack,
        decode, encode,
        error::{StatusBuilder, invalid::Invalid},
        metrics::{self, RequestMode},
    },
    ledger::{Error, Ledger},
    proto,
};

type Reply<T> = Result<Response<T>, Status>;

/// Serves the commands of AccountService.
pub struct Commands {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
}

impl Commands {
    /// Serves a request that moves or holds money.
    pub async fn execute<T, R: From<RequestResult>>(
        &self,
        request: Request<T>,
        decode: impl FnOnce(&Currencies, &Identity, T) -> Result<command::Request, Invalid>,
    ) -> Reply<R> {
        let (context, request) = unpack(request);
        let request = decode(&self.currencies, &context.caller.recorded_as, request);
        let request = request.map_err(invalid)?;
        let mode = RequestMode::of(&request);
        match self.ledger.execute(&context, request).await {
            Ok(result) => {
                metrics::count_applied(result.replayed, mode);
                Ok(Response::new(result.into()))
            }
            Err(error) => Err(counted(StatusBuilder::from(&error), mode)),
        }
    }

    /// Serves an update of an account's attributes or state.
    pub async fn update<T, R: From<Account>>(
        &self,
        request: Request<T>,
        decode: impl FnOnce(&Currencies, &Identity, T) -> Result<AccountUpdate, Invalid>,
    ) -> Reply<R> {
        let (context, request) = unpack(request);
        let update = decode(&self.currencies, &context.caller.recorded_as, request);
        let update = update.map_err(invalid)?;
        updated(self.ledger.update_account(&context, update).await)
    }

    pub async fn create_account(
        &self,
        request: Request<proto::CreateAccountRequest>,
    ) -> Reply<proto::CreateAccountResponse> {
        let (context, request) = unpack(request);
        let new = decode::new_account(&self.currencies, &context.caller.recorded_as, request)
            .map_err(invalid)?;
        // A repeated call gets the account, even if no more accounts are opened in its currency.
        if let Err(violation) = decode::check_currency_of_new_account(&self.currencies, &new)
            && !self.ledger.has_account(&context, &new).await?
        {
            return Err(invalid(violation));
        }
        updated(self.ledger.create_account(&context, new).await)
    }

    pub async fn fence_request(
        &self,
        request: Request<proto::FenceRequestRequest>,
    ) -> Reply<proto::FenceRequestResponse> {
        let (context, request) = unpack(request);
        let request_id = decode::request_id(&self.currencies, &request.request_id)?;
        let record = self.ledger.fence(&context, request_id).await?;
        Ok(Response::new(encode::fenced(record)))
    }
}

/// Counts and encodes the result of a command for an account.
fn updated<R: From<Account>>(result: Result<Account, Error>) -> Reply<R> {
    let mode = RequestMode::Execute;
    let account = result.map_err(|error| counted(StatusBuilder::from(&error), mode))?;
    metrics::count_applied(false, mode);
    Ok(Response::new(account.into()))
}

fn invalid(invalid: Invalid) -> Status {
    counted(invalid.into(), RequestMode::Execute)
}

/// Counts and encodes an error.
fn counted(error: StatusBuilder, mode: RequestMode) -> Status {
    metrics::count_error(&error, mode);
    error.into_status()
}
