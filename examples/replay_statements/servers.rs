//! Calls to one or more servers over one database, with retries until there is a result.

use std::time::Duration;

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use passbook::proto::account_service_client::AccountServiceClient;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

pub type Client = AccountServiceClient<Channel>;

/// The most retries of a call. With the delays below they take about half a minute, which is enough
/// to restart a server or a database.
const RETRIES_MAX: usize = 12;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// The servers, in the order in which they take turns.
pub struct Servers {
    clients: Vec<Client>,
    timeout: Duration,
}

impl Servers {
    /// Connects to all of `targets`. `timeout` is the deadline of one attempt.
    pub async fn connect(targets: &[String], timeout: Duration) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for target in targets {
            let channel = Endpoint::from_shared(target.clone())?
                .connect()
                .await
                .with_context(|| format!("cannot reach {target}"))?;
            clients.push(Client::new(channel));
        }
        Ok(Self { clients, timeout })
    }

    /// Sends `message` to server number `turn`, and retries on the next servers until there is a
    /// result. Counts the retries in `retries`. All attempts have the same request id, so a change is
    /// applied at most once.
    pub async fn call<Message, Reply, Call>(
        &self,
        turn: usize,
        retries: &mut u64,
        message: &Message,
        send: impl Fn(Client, Request<Message>) -> Call,
    ) -> Result<Reply, Status>
    where
        Message: Clone,
        Call: Future<Output = Result<Response<Reply>, Status>>,
    {
        let mut turn = turn;
        let attempt = || {
            let client = self.clients[turn % self.clients.len()].clone();
            turn += 1;
            let mut request = Request::new(message.clone());
            request.set_timeout(self.timeout);
            send(client, request)
        };
        let delays = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY_MIN)
            .with_max_delay(RETRY_DELAY_MAX)
            .with_max_times(RETRIES_MAX)
            .with_jitter();
        attempt
            .retry(delays)
            .when(can_retry)
            .adjust(|status, delay| Some(delay?.max(requested_delay(status))))
            .notify(|_, _| *retries += 1)
            .await
            .map(Response::into_inner)
    }
}

/// The code, the reason and the text of an error in one line.
pub fn describe(status: &Status) -> String {
    let info = status.get_details_error_info();
    let reason = info.map(|info| info.reason).unwrap_or_default();
    format!("{:?} {reason}: {}", status.code(), status.message())
}

/// Whether the request was not applied or its outcome is unknown. The client of tonic returns
/// CANCELLED if the deadline passes on its side.
fn can_retry(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
    )
}

/// The delay that the server asks for in its RetryInfo.
fn requested_delay(status: &Status) -> Duration {
    let retry_info = status.get_details_retry_info();
    retry_info.and_then(|retry_info| retry_info.retry_delay).unwrap_or_default()
}
