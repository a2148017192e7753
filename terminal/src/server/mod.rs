//! The server that a command calls: the connection, and calls with their repeats.

mod advice;
mod connection;
mod error;
mod invocation;
mod stream;

use std::time::Duration;

use passbook_command::{
    CliError,
    client::Connection,
    proto::{
        account_service_client::AccountServiceClient, admin_service_client::AdminServiceClient,
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status};

pub use crate::server::{
    connection::{ConnectionArguments, TARGET_DEFAULT},
    error::CallError,
    stream::Watch,
};
use crate::{
    output::Format,
    server::error::{Outcome, Report},
};

/// The longest pause after the first attempt. It doubles with each attempt.
const BACKOFF_FIRST_MAX: Duration = Duration::from_millis(50);
/// The longest pause after any attempt.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The server that a command calls.
pub struct Server {
    connection: Connection,
    /// Why there is no connection: the error of the first call.
    unreachable: Option<CallError>,
    timeout: Duration,
    format: Format,
}

/// What a call is, which decides when it is repeated.
#[derive(Clone, Copy)]
pub enum CallKind<'a> {
    /// Nothing changes. Always safe to repeat.
    Read,
    /// A change under this `request_id`: a repeat is not applied a second time.
    Change(&'a str),
    /// The opening of accounts that have ids: a repeat returns them. With the id, if the command has
    /// created it: a repeat of the same command would create another one.
    Opening(Option<&'a str>),
    /// A change of this account, without a `request_id`: a late repeat could undo what another caller
    /// has changed.
    Update(&'a str),
}

impl Server {
    pub fn accounts(&self) -> AccountServiceClient<Connection> {
        AccountServiceClient::new(self.connection.clone())
    }

    pub fn admin(&self) -> AdminServiceClient<Connection> {
        AdminServiceClient::new(self.connection.clone())
    }

    pub const fn format(&self) -> Format {
        self.format
    }

    /// Makes a call, and repeats it by the rules of `docs/guides/requests.md` until it has a result
    /// or its time is up.
    pub async fn call<Q: Clone, R>(
        &self,
        kind: CallKind<'_>,
        request: Q,
        send: impl AsyncFn(Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, CliError> {
        self.require_connection(kind)?;
        let deadline = Instant::now() + self.timeout;
        let mut in_doubt = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match self.attempt(&request, &send, deadline).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(error) => error,
            };
            let outcome = error.outcome(kind, in_doubt);
            in_doubt = outcome == Some(Outcome::Unknown);
            let pause = backoff(attempt) + error.retry_delay();
            let is_safe = match kind {
                CallKind::Update(_) => outcome == Some(Outcome::NotApplied),
                CallKind::Read | CallKind::Change(_) | CallKind::Opening(_) => true,
            };
            if error.is_final() || !is_safe || Instant::now() + pause >= deadline {
                return Err(Report { error: &error, kind, outcome }.fail(self.format));
            }
            sleep(pause).await;
        }
    }

    /// Reports that there is no connection, if so.
    fn require_connection(&self, kind: CallKind<'_>) -> Result<(), CliError> {
        self.unreachable.as_ref().map_or(Ok(()), |error| Err(self.fail(kind, error)))
    }

    async fn attempt<Q: Clone, R>(
        &self,
        request: &Q,
        send: impl AsyncFn(Request<Q>) -> Result<Response<R>, Status>,
        deadline: Instant,
    ) -> Result<Response<R>, CallError> {
        let mut request = Request::new(request.clone());
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match timeout_at(deadline, send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) if Instant::now() < deadline => Err(CallError::of(&status)),
            Ok(Err(status)) => Err(CallError::at_deadline(&status, self.timeout)),
            Err(_) => Err(CallError::without_response(self.timeout)),
        }
    }

    /// Reports an error that `call` has not reported: of a read with its own attempts, or of one of
    /// the requests of a call.
    pub fn fail(&self, kind: CallKind<'_>, error: &CallError) -> CliError {
        Report { error, kind, outcome: error.outcome(kind, false) }.fail(self.format)
    }
}

/// The pause after an attempt: full jitter, so that clients do not come back all at once.
pub fn backoff(attempt: u32) -> Duration {
    let most = BACKOFF_FIRST_MAX.saturating_mul(1 << attempt.saturating_sub(1).min(10));
    most.min(BACKOFF_MAX).mul_f64(fastrand::f64())
}
