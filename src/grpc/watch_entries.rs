//! WatchEntries: sends pages of new entries, heartbeats without them, and an error to a caller that
//! does not read, or that may no longer read the account.

use std::time::Duration;

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    auth::CallAuthorization,
    domain::ids::AccountId,
    grpc::{encode, middleware::deadline::Deadline},
    ledger::{Error, Watcher},
    proto::WatchEntriesResponse,
};

/// The time without an entry after which a heartbeat is sent. Longer, and proxies between caller and
/// server close the stream as idle.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a message may wait for the caller to read. Meanwhile no entries are read for the stream.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for the caller to read, besides those in HTTP/2's buffers.
const UNREAD_MAX: usize = 1;

/// How often the rights of the caller are checked again.
const AUTHORIZATION_INTERVAL: Duration = Duration::from_secs(1);

type Message = Result<WatchEntriesResponse, Status>;

/// Serves one stream, until `denied` is ready.
pub fn serve(
    mut watcher: Watcher,
    mut stopping: watch::Receiver<bool>,
    deadline: Deadline,
    denied: impl Future<Output = Status> + Send + 'static,
) -> impl Stream<Item = Message> + Send + 'static {
    let (messages, unread) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(async move {
        let status: Status = tokio::select! {
            error = forward(&mut watcher, &messages) => error.into(),
            // An error means that the server has ended, which is a reason to stop as well.
            _ = stopping.wait_for(|stop| *stop) => Error::ShuttingDown.into(),
            () = deadline.passed_for_stream() => Error::DeadlineExceeded(None).into(),
            status = denied => status,
            () = messages.closed() => return,
        };
        // An unread message may still take memory: the permit is kept until the stream is gone.
        let _permit = watcher.end();
        // Sending fails only if the caller has disconnected.
        let _ = messages.send(Err(status)).await;
    });
    ReceiverStream::new(unread)
}

/// Forwards pages until an error, and returns the error.
async fn forward(watcher: &mut Watcher, messages: &mpsc::Sender<Message>) -> Error {
    loop {
        if let Err(error) = forward_page(watcher, messages).await {
            return error;
        }
    }
}

/// Forwards the next page, and heartbeats until there is one.
async fn forward_page(
    watcher: &mut Watcher,
    messages: &mpsc::Sender<Message>,
) -> Result<(), Error> {
    let sequence = watcher.sequence();
    let page = {
        // One future across heartbeats: a slow read must reach its result or its error.
        let mut next = std::pin::pin!(watcher.next());
        loop {
            match timeout(HEARTBEAT_INTERVAL, &mut next).await {
                Ok(page) => break page?,
                Err(_) => {
                    send(messages, WatchEntriesResponse::new(Vec::new(), sequence)).await?;
                }
            }
        }
    };
    let entries = page.encoded(encode::watched_entry);
    send(messages, WatchEntriesResponse::of_encoded(entries, watcher.sequence())).await
}

async fn send(
    messages: &mpsc::Sender<Message>,
    message: WatchEntriesResponse,
) -> Result<(), Error> {
    // Waits seldom. Trying first avoids the cost of a timer.
    let Err(TrySendError::Full(message)) = messages.try_send(Ok(message)) else { return Ok(()) };
    let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
    // Sending fails only if the caller has disconnected, which `serve` notices.
    let _ = timeout(UNREAD_TIME_MAX, messages.send(message)).await.map_err(late)?;
    Ok(())
}

/// Waits until the caller may no longer watch this account.
pub async fn denied(mut authorization: CallAuthorization, account_id: AccountId) -> Status {
    loop {
        sleep(AUTHORIZATION_INTERVAL).await;
        match authorization.caller().map(|caller| caller.grant.check_read(&account_id)) {
            Ok(Ok(())) => {}
            Ok(Err(denied)) => return Error::from(denied).into(),
            Err(error) => return error.into(),
        }
    }
}
