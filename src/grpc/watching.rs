//! What WatchEntries and WatchEvents have in common: one message waits for the caller, heartbeats, and
//! the end of a stream.

use std::time::Duration;

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Extensions, Status};

use crate::{
    auth::CallAuthorization,
    budget::Share,
    domain::authorization::{Grant, PermissionDenied},
    grpc::middleware::{authentication, deadline::Deadline},
    ledger::Error,
};

/// The time without a message after which a heartbeat is sent. Longer, and proxies between caller and
/// server close the stream as idle.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a message may wait for the caller to read. Meanwhile nothing is read for the stream.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for the caller to read, besides those in HTTP/2's buffers.
const UNREAD_MAX: usize = 1;
/// How often the rights of the caller are checked again.
const AUTHORIZATION_INTERVAL: Duration = Duration::from_secs(1);

/// Takes the messages of a stream.
pub struct Messages<M>(mpsc::Sender<Result<M, Status>>);

/// A call whose response is such a stream.
pub struct WatchCall {
    deadline: Deadline,
    pub authorization: CallAuthorization,
    /// Turns true when streams must end.
    stopping: watch::Receiver<bool>,
}

impl WatchCall {
    /// The call of a request with these extensions.
    ///
    /// # Errors
    /// See [`authentication::authorization_of`].
    pub fn of(extensions: &Extensions, stopping: &watch::Receiver<bool>) -> Result<Self, Error> {
        Ok(Self {
            deadline: Deadline::of(extensions),
            authorization: authentication::authorization_of(extensions)?,
            stopping: stopping.clone(),
        })
    }

    /// Serves the stream: `forward` sends messages until an error, unless the stream ends before.
    /// That is when `check` denies it by the rights of that moment, or for another reason.
    pub fn serve<M, Forward>(
        mut self,
        share: Share,
        check: impl Fn(&Grant) -> Result<(), PermissionDenied> + Send + 'static,
        forward: impl FnOnce(Messages<M>) -> Forward,
    ) -> impl Stream<Item = Result<M, Status>> + Send + 'static
    where
        M: Send + 'static,
        Forward: Future<Output = Status> + Send + 'static,
    {
        let (messages, unread) = mpsc::channel(UNREAD_MAX);
        let forward = forward(Messages(messages.clone()));
        tokio::spawn(async move {
            let status = tokio::select! {
                status = forward => status,
                // An error means that the server has ended, which is a reason to stop as well.
                _ = self.stopping.wait_for(|stop| *stop) => Error::ShuttingDown.into(),
                () = self.deadline.passed_for_stream() => Error::DeadlineExceeded(None).into(),
                status = denied(self.authorization, check) => status,
                () = messages.closed() => return,
            };
            // Sending fails only if the caller has disconnected.
            let _ = messages.send(Err(status)).await;
            // An unread message may still take memory: the share is kept until the stream is gone.
            drop(share);
        });
        ReceiverStream::new(unread)
    }
}

impl<M> Messages<M> {
    /// Sends a message when the one before it is read.
    ///
    /// # Errors
    /// The caller has not read for too long.
    pub async fn send(&self, message: M) -> Result<(), Error> {
        // Waits seldom. Trying first avoids the cost of a timer.
        let Err(TrySendError::Full(message)) = self.0.try_send(Ok(message)) else { return Ok(()) };
        let late = |_| Error::WatcherTooSlow { limit: UNREAD_TIME_MAX };
        // Sending fails only if the caller has disconnected, which `serve` notices.
        let _ = timeout(UNREAD_TIME_MAX, self.0.send(message)).await.map_err(late)?;
        Ok(())
    }
}

/// Waits until the caller may no longer call the method, or no longer has a right.
async fn denied(
    mut authorization: CallAuthorization,
    check: impl Fn(&Grant) -> Result<(), PermissionDenied>,
) -> Status {
    loop {
        sleep(AUTHORIZATION_INTERVAL).await;
        match authorization.caller().map(|caller| check(&caller.grant)) {
            Ok(Ok(())) => {}
            Ok(Err(denied)) => return Error::from(denied).into(),
            Err(error) => return error.into(),
        }
    }
}
