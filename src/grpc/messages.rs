//! The messages of a stream to a watcher, of which one at most is unread.
//!
//! The next message is made when the stream is polled, which is when the last one was written to the
//! connection (`middleware::response_body`). So a caller that does not read has one message in memory.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};
use tokio_stream::Stream;
use tonic::Status;

use crate::ledger::Error;

/// The most bytes of a message of any stream with its prefix, unless its first item alone has more: as
/// many as a frame of HTTP/2 has by default. More, and callers that do not read cost more memory, and
/// results wait longer for each other.
pub const MESSAGE_SIZE_MAX: usize = 16 * 1024;
/// The time without a message after which a heartbeat is sent. Longer, and proxies between caller and
/// server close the stream as idle.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a message may wait for the caller to read. Meanwhile nothing is read for the stream.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);

/// What a stream has: messages, and at its end an error.
type Message<M> = Result<M, Status>;

/// The messages to a caller.
pub struct Messages<M> {
    messages: mpsc::Receiver<Message<M>>,
    /// Notified once for each message: when it is wanted.
    wanted: Arc<Notify>,
    is_wanted: bool,
    /// tonic has a message, and asks whether there is more for the same frame.
    is_gathered: bool,
}

/// The other end of [`Messages`].
pub struct MessageSender<M> {
    messages: mpsc::Sender<Message<M>>,
    wanted: Arc<Notify>,
    is_wanted: bool,
    /// When the last message was sent, or when the stream began.
    sent_at: Instant,
}

impl<M> Messages<M> {
    /// A stream, its sender, and where the error is sent that ends it.
    pub fn channel() -> (Self, MessageSender<M>, mpsc::Sender<Message<M>>) {
        let (sender, messages) = mpsc::channel(1);
        let wanted = Arc::new(Notify::new());
        let end = sender.clone();
        let stream =
            Self { messages, wanted: wanted.clone(), is_wanted: false, is_gathered: false };
        let sent_at = Instant::now();
        (stream, MessageSender { messages: sender, wanted, is_wanted: false, sent_at }, end)
    }
}

impl<M> Stream for Messages<M> {
    type Item = Message<M>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message<M>>> {
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

impl<M> MessageSender<M> {
    /// Waits until the caller has read the last message.
    ///
    /// # Errors
    /// The caller has not read for too long.
    pub async fn wants_more(&mut self) -> Result<(), Error> {
        if !self.is_wanted {
            let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
            timeout(UNREAD_TIME_MAX, self.wanted.notified()).await.map_err(late)?;
            self.is_wanted = true;
        }
        Ok(())
    }

    /// The same, while `next` goes on. Some: what `next` has yielded meanwhile.
    ///
    /// # Errors
    /// The caller has not read for too long.
    pub async fn wants_more_beside<T>(
        &mut self,
        next: &mut (impl Future<Output = T> + Unpin),
    ) -> Result<Option<T>, Error> {
        let yielded = tokio::select! {
            wanted = self.wants_more() => return wanted.map(|()| None),
            yielded = next => yielded,
        };
        self.wants_more().await?;
        Ok(Some(yielded))
    }

    /// When a heartbeat is due, unless a message is sent before.
    pub fn heartbeat_time(&self) -> Instant {
        self.sent_at + HEARTBEAT_INTERVAL
    }

    /// Sends a message that is wanted.
    pub async fn send(&mut self, message: M) {
        (self.is_wanted, self.sent_at) = (false, Instant::now());
        // Does not wait, because the last message was taken. Fails only if the caller has
        // disconnected, which ends the stream.
        let _ = self.messages.send(Ok(message)).await;
    }
}
