//! Calls to one or more servers over one database, repeated until there is a result.

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

/// A call is repeated this often before it fails. With the delays below that is about half a
/// minute: enough for a server or a database to be started again.
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

    /// Sends `message` to the server whose `turn` it is, and on to the next ones for as long as
    /// there is no result; adds to `retries`. It is the same request id every time, so a
    /// change is made once at most.
    pub async fn call<Message, Answer, Sent>(
        &self,
        turn: usize,
        retries: &mut u64,
        message: &Message,
        send: impl Fn(Client, Request<Message>) -> Sent,
    ) -> Result<Answer, Status>
    where
        Message: Clone,
        Sent: Future<Output = Result<Response<Answer>, Status>>,
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
            .when(is_worth_repeating)
            .adjust(|status, delay| Some(delay?.max(delay_asked_for(status))))
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

/// Whether nothing was decided, or it is not known what was. CANCELLED is what tonic's client
/// says when the deadline passes on its own side.
fn is_worth_repeating(status: &Status) -> bool {
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

fn delay_asked_for(status: &Status) -> Duration {
    let retry_info = status.get_details_retry_info();
    retry_info.and_then(|retry_info| retry_info.retry_delay).unwrap_or_default()
}
