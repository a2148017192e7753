//! What WatchEntries and WatchEvents have in common besides their messages: when a stream ends.

use tokio::sync::watch;
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
        let denied = self.authorization.denied(move |caller| {
            check(&caller.grant).map_err(|denied| Status::from(Error::from(denied)))
        });
        tokio::spawn(async move {
            let status = tokio::select! {
                status = forward => status,
                // An error means that the server has ended, which is a reason to stop as well.
                _ = self.stopping.wait_for(|stop| *stop) => Error::ShuttingDown.into(),
                () = self.deadline.passed_for_stream() => Error::DeadlineExceeded(None).into(),
                status = denied => status,
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
