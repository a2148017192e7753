//! WatchEntries: sends new entries, heartbeats without them, and an error to a caller that does not
//! read, or that may no longer read the account.
//!
//! The next message is made when the stream is polled, which is when the last one was written to the
//! connection (`middleware::response_body`). So a caller that does not read has one message in memory.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::Stream;
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
/// The most bytes of entries in one message: with its prefix and its sequence, as many as a frame of
/// HTTP/2 has by default. More, and callers that do not read cost more memory.
const ENTRIES_SIZE_MAX: usize = 16 * 1024 - 16;
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
    let (sender, messages) = mpsc::channel(1);
    let stream =
        Messages { messages, wanted: Arc::default(), is_wanted: false, is_gathered: false };
    let sender = MessageSender { messages: sender, wanted: stream.wanted.clone() };
    tokio::spawn(async move {
        let status: Status = tokio::select! {
            error = sender.follow(&mut watcher) => error.into(),
            // An error means that the server has ended, which is a reason to stop as well.
            _ = stopping.wait_for(|stop| *stop) => Error::ShuttingDown.into(),
            () = deadline.passed_for_stream() => Error::DeadlineExceeded(None).into(),
            status = denied => status,
            () = sender.messages.closed() => return,
        };
        // An unread message may still take memory: the permit is kept until the stream is gone.
        let _permit = watcher.end();
        // Sending fails only if the caller has disconnected.
        let _ = sender.messages.send(Err(status)).await;
    });
    stream
}

/// The messages to a caller.
struct Messages {
    messages: mpsc::Receiver<Message>,
    /// Notified once for each message: when it is wanted.
    wanted: Arc<Notify>,
    is_wanted: bool,
    /// tonic has a message, and asks whether there is more for the same frame.
    is_gathered: bool,
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        if std::mem::take(&mut self.is_gathered) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.is_wanted {
            self.is_wanted = true;
            self.wanted.notify_one();
        }
        let message = ready!(self.messages.poll_recv(context));
        (self.is_wanted, self.is_gathered) = (false, message.is_some());
        Poll::Ready(message)
    }
}

/// The other end of [`Messages`].
struct MessageSender {
    messages: mpsc::Sender<Message>,
    wanted: Arc<Notify>,
}

impl MessageSender {
    /// Forwards what a watcher yields until an error, and returns the error.
    async fn follow(&self, watcher: &mut Watcher) -> Error {
        loop {
            if let Err(error) = self.forward_page(watcher).await {
                return error;
            }
        }
    }

    /// Forwards the next page, and heartbeats until there is one.
    async fn forward_page(&self, watcher: &mut Watcher) -> Result<(), Error> {
        self.wants_more().await?;
        let sequence = watcher.sequence();
        let mut page = {
            // One future across heartbeats: a slow read must reach its result or its error, and is not
            // left alone with its permit.
            let mut next = pin!(watcher.next());
            loop {
                if let Ok(page) = timeout(HEARTBEAT_INTERVAL, &mut next).await {
                    break page?;
                }
                self.send(WatchEntriesResponse::new(Vec::new(), sequence)).await;
                tokio::select! {
                    wanted = self.wants_more() => wanted?,
                    page = &mut next => {
                        self.wants_more().await?;
                        break page?;
                    }
                }
            }
        };
        let mut take = || page.take_encoded(ENTRIES_SIZE_MAX, encode::watched_entry);
        let mut message = take();
        while let Some((entries, sequence)) = message {
            self.send(WatchEntriesResponse::of_encoded(entries, sequence)).await;
            message = take();
            if message.is_some() {
                self.wants_more().await?;
            }
        }
        Ok(())
    }

    /// Waits until the caller has read the last message.
    async fn wants_more(&self) -> Result<(), Error> {
        let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
        timeout(UNREAD_TIME_MAX, self.wanted.notified()).await.map_err(late)
    }

    /// Sends a message that is wanted.
    async fn send(&self, message: WatchEntriesResponse) {
        // Does not wait, because the last message was taken. Fails only if the caller has
        // disconnected, which `serve` notices.
        let _ = self.messages.send(Ok(message)).await;
    }
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
