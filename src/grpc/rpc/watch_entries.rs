//! WatchEntries: pages out as they come, a heartbeat where none comes, and an end for those who
//! do not read.

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

/// After how long without an entry the caller gets a sign of life: short enough for what stands
/// between it and the server, proxies that cut what is idle.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a message may wait for its reader. Meanwhile nothing more is read for it.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for the reader, besides what HTTP/2 has taken.
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
        let failure = tokio::select! {
            failure = forward(&mut watcher, &messages) => failure,
            // Fails only if the server is gone: then it is time to stop, too.
            _ = stopping.wait_for(|stop| *stop) => Error::ShuttingDown,
            () = passed(deadline) => Error::DeadlineExceeded(None),
            () = messages.closed() => return,
        };
        // The message that was not read is still there, so the permit is kept until it is gone.
        let _place = watcher.end();
        // Fails only if the caller has gone.
        let _ = messages.send(Err(failure.into())).await;
    });
    ReceiverStream::new(unread)
}

/// Until it fails.
async fn forward(watcher: &mut Watcher, messages: &mpsc::Sender<Message>) -> Error {
    loop {
        let sequence = watcher.sequence();
        // Kept while heartbeats go out: a read that is slow must come to its end, or its failure.
        let mut next = std::pin::pin!(watcher.next());
        let page = loop {
            match timeout(HEARTBEAT_INTERVAL, &mut next).await {
                Ok(Ok(page)) => break page,
                Ok(Err(failure)) => return failure,
                Err(_) => {
                    let heartbeat = proto::WatchEntriesResponse::new(Vec::new(), sequence);
                    if let Err(failure) = send(messages, heartbeat).await {
                        return failure;
                    }
                }
            }
        };
        let message = proto::WatchEntriesResponse::encoded(page.encoded(encode::watched_entries));
        if let Err(failure) = send(messages, message).await {
            return failure;
        }
    }
}

async fn send(
    messages: &mpsc::Sender<Message>,
    message: proto::WatchEntriesResponse,
) -> Result<(), Error> {
    // Seldom waits, and a timer is not for nothing.
    let Err(TrySendError::Full(message)) = messages.try_send(Ok(message)) else { return Ok(()) };
    let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
    // Fails only if the caller has gone, which `serve` sees.
    let _ = timeout(UNREAD_TIME_MAX, messages.send(message)).await.map_err(late)?;
    Ok(())
}

async fn passed(deadline: Deadline) {
    match deadline.for_stream() {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
