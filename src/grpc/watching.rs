//! What WatchEntries and WatchEvents have in common besides their messages: when a stream ends.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};
use tonic::{Extensions, Status};

use crate::{
    auth::CallAuthorization,
    budget::Share,
    domain::authorization::{Grant, PermissionDenied},
    grpc::{
        messages::{MessageSender, Messages},
        middleware::{authentication, deadline::Deadline},
    },
    ledger::Error,
};

/// How often the rights of the caller are checked again.
const AUTHORIZATION_INTERVAL: Duration = Duration::from_secs(1);

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
    /// See [`authentication::authorization`].
    pub fn of(extensions: &Extensions, stopping: &watch::Receiver<bool>) -> Result<Self, Error> {
        Ok(Self {
            deadline: Deadline::of(extensions),
            authorization: authentication::authorization(extensions)?,
            stopping: stopping.clone(),
        })
    }

    /// Serves the stream: `forward` sends messages until an error, unless the stream ends before.
    /// That is when `check` denies it by the rights of that moment, or for another reason.
    pub fn serve<M, Forward>(
        mut self,
        share: Share,
        check: impl Fn(&Grant) -> Result<(), PermissionDenied> + Send + 'static,
        forward: impl FnOnce(MessageSender<M>) -> Forward,
    ) -> Messages<M>
    where
        M: Send + 'static,
        Forward: Future<Output = Status> + Send + 'static,
    {
        let (messages, sender, end) = Messages::channel();
        let forward = forward(sender);
        tokio::spawn(async move {
            let status = tokio::select! {
                status = forward => status,
                // An error means that the server has ended, which is a reason to stop as well.
                _ = self.stopping.wait_for(|stop| *stop) => Error::ShuttingDown.into(),
                () = self.deadline.passed_for_stream() => Error::DeadlineExceeded(None).into(),
                status = denied(self.authorization, check) => status,
                () = end.closed() => return,
            };
            // Sending fails only if the caller has disconnected.
            let _ = end.send(Err(status)).await;
            // An unread message may still take memory: the share is kept until the stream is gone.
            drop(share);
        });
        messages
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
