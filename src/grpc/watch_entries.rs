//! WatchEntries: sends pages of new entries, heartbeats without them, and an error to a caller that
//! does not read.

use std::time::Duration;

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{sleep_until, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    grpc::{encode, middleware::deadline::Deadline},
    ledger::{Error, Watcher},
    proto,
};

/// The time without an entry after which a heartbeat is sent. Longer, and proxies between caller and
/// server close the stream as idle.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a message may wait for the caller to read. Meanwhile no entries are read for the stream.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for the caller to read, besides those in HTTP/2's buffers.
const UNREAD_MAX: usize = 1;

type Message = Result<proto::WatchEntriesResponse, Status>;

/// Serves one stream.
pub fn serve(
    mut watcher: Watcher,
    mut stopping: watch::Receiver<bool>,
    deadline: Deadline,
) -> impl Stream<Item = Message> + Send + 'static {
    let (messages, unread) = mpsc::channel(UNREAD_MAX);
    tokio::spawn(async move {
        let error = tokio::select! {
            error = forward(&mut watcher, &messages) => error,
            // An error means that the server has ended, which is a reason to stop as well.
            _ = stopping.wait_for(|stop| *stop) => Error::ShuttingDown,
            () = expired(deadline) => Error::DeadlineExceeded(None),
            () = messages.closed() => return,
        };
        // An unread message may still take memory: the permit is kept until the stream is gone.
        let _permit = watcher.end();
        // Sending fails only if the caller has disconnected.
        let _ = messages.send(Err(error.into())).await;
    });
    ReceiverStream::new(unread)
}

/// Forwards pages until an error, and returns the error.
async fn forward(watcher: &mut Watcher, messages: &mpsc::Sender<Message>) -> Error {
    loop {
        let sequence = watcher.sequence();
        // One future across heartbeats: a slow read must reach its result or its error.
        let mut next = std::pin::pin!(watcher.next());
        let page = loop {
            match timeout(HEARTBEAT_INTERVAL, &mut next).await {
                Ok(Ok(page)) => break page,
                Ok(Err(error)) => return error,
                Err(_) => {
                    let heartbeat = proto::WatchEntriesResponse::new(Vec::new(), sequence);
                    if let Err(error) = send(messages, heartbeat).await {
                        return error;
                    }
                }
            }
        };
        let message = proto::WatchEntriesResponse::encoded(page.encoded(encode::watched_entries));
        if let Err(error) = send(messages, message).await {
            return error;
        }
    }
}

async fn send(
    messages: &mpsc::Sender<Message>,
    message: proto::WatchEntriesResponse,
) -> Result<(), Error> {
    // Waits seldom. Trying first avoids the cost of a timer.
    let Err(TrySendError::Full(message)) = messages.try_send(Ok(message)) else { return Ok(()) };
    let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
    // Sending fails only if the caller has disconnected, which `serve` notices.
    let _ = timeout(UNREAD_TIME_MAX, messages.send(message)).await.map_err(late)?;
    Ok(())
}

async fn expired(deadline: Deadline) {
    match deadline.for_stream() {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
