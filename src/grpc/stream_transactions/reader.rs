//! The task of a stream: reads requests, and submits those that have arrived.

use std::{pin::Pin, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

use crate::{
    auth::CallAuthorization,
    domain::authorization::Caller,
    grpc::{
        decode,
        error::{StatusBuilder, invalid::Invalid},
        middleware::deadline::Deadline,
        stream_transactions::{
            context::StreamContext,
            messages::{self, Requests, StreamedItem},
            responses::{InFlight, Permits},
        },
    },
    ledger::{CallContext, Error, Outcome},
    proto::{ErrorReason, streamed_request},
};

/// The most requests of a stream that are submitted together. Fewer, and a required audit log needs
/// more writes; more, and the first of them waits for the last to be decoded.
const CHUNK_MAX: usize = 128;

/// Reads the requests of one stream.
pub struct Reader {
    pub context: StreamContext,
    pub deadline: Deadline,
    pub authorization: CallAuthorization,
    /// Ready when the caller may no longer call the method.
    pub denied: Pin<Box<dyn Future<Output = Status> + Send>>,
    pub requests: Requests,
    /// The requests that the stream may have in flight.
    pub in_flight: Arc<Semaphore>,
    pub results: mpsc::UnboundedSender<Result<InFlight, Status>>,
}

impl Reader {
    /// Reads until the caller has sent its last request, or has disconnected, or the stream must end.
    pub async fn run(mut self) {
        if let Err(status) = self.read().await {
            // Fails only if the caller has disconnected.
            let _ = self.results.send(Err(status));
        }
    }

    async fn read(&mut self) -> Result<(), Status> {
        loop {
            if *self.context.stopping.borrow() {
                return Err(Error::ShuttingDown.into());
            }
            let Some(first) = self.next().await? else { return Ok(()) };
            // Requests that have arrived already are submitted together.
            let (mut chunk, mut end) = (vec![first], None);
            while chunk.len() < CHUNK_MAX
                && end.is_none()
                && let Some(next) = self.next().now_or_never()
            {
                match next {
                    Ok(Some(next)) => chunk.push(next),
                    Ok(None) => end = Some(Ok(())),
                    Err(status) => end = Some(Err(status)),
                }
            }
            self.submit(chunk).await;
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The next request, and the room for its result. None: the caller has sent its last request, or
    /// has disconnected. May be dropped while it waits.
    async fn next(&mut self) -> Result<Option<(StreamedItem, Permits)>, Status> {
        let Self { context, deadline, authorization, denied, requests, in_flight, results } = self;
        let StreamContext { ledger, call, stopping, .. } = context;
        let next = async {
            // Before a message is read. None only if the semaphore were closed, which nothing does.
            let of_stream = in_flight.clone().acquire_owned().await.ok();
            if !requests.fill(*deadline).await? {
                return Ok(None);
            }
            let permits = (of_stream, ledger.stream_permit(&call.caller, requests.permits()).await);
            // Credentials may have changed since the last request.
            call.caller = authorization.caller()?.clone();
            Ok(requests.take().map(|request| (request, permits)))
        };
        tokio::select! {
            // The next request is often there.
            biased;
            next = next => next,
            // An error means that the server has ended: a reason to stop as well.
            _ = stopping.wait_for(|stop| *stop) => Err(Error::ShuttingDown.into()),
            () = results.closed() => Ok(None),
            // Without this, a stream without requests would keep its place.
            status = denied => Err(status),
            () = deadline.passed_for_stream() => {
                Err(Error::DeadlineExceeded(Some(Outcome::NotApplied)).into())
            }
        }
    }

    /// Submits requests together, and passes their results on.
    async fn submit(&mut self, chunk: Vec<(StreamedItem, Permits)>) {
        let order = self.requests.order();
        let (mut requests, mut replies) = (Vec::with_capacity(chunk.len()), Vec::new());
        for (StreamedItem { request, deadline, reply }, permits) in chunk {
            let deadline = deadline.unwrap_or_else(|| self.deadline.for_item(None));
            let checked = self.check(request);
            requests.push(checked.and_then(|(caller, request)| {
                let context = CallContext { caller, deadline, ..self.context.call.clone() };
                let request = self.context.decode(&context, request, decode::streamed)?;
                Ok((context, request))
            }));
            replies.push((reply, permits));
        }
        let (pending, submission) = self.context.submit(requests);
        for (pending, (reply, permits)) in pending.into_iter().zip(replies) {
            // Fails only if the caller has disconnected.
            let _ = self.results.send(Ok(InFlight { pending, reply, order, permits }));
        }
        submission.enqueue().await;
    }

    /// Checks what comes before the fields of a request, as the layers do for a call of its own.
    /// Returns the caller with the rights that it has for this request.
    fn check(
        &mut self,
        request: Option<streamed_request::Request>,
    ) -> Result<(Caller, streamed_request::Request), StatusBuilder> {
        let method = request.as_ref().and_then(messages::method);
        let caller = match method {
            None => self.context.call.caller.clone(),
            Some(method) => match self.authorization.caller_of(method) {
                Ok(caller) => caller,
                Err(error) => {
                    let call = &self.context.call;
                    if let Some(audit) = &call.audit {
                        audit.deny(&call.caller.identity, None);
                    }
                    return Err(error.into());
                }
            },
        };
        self.context.ledger.budgets().take_call(&caller.identity).map_err(Error::from)?;
        let missing = || Invalid::new(ErrorReason::InvalidRequests, "request", "is required");
        Ok((caller, request.ok_or_else(missing)?))
    }
}
