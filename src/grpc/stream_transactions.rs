//! StreamTransactions and BatchPostTransactions: many postings in one call.
//!
//! One task for each stream reads requests, submits those that have arrived to the ledger, and sends
//! a [`PendingResult`] for each into a channel, so results come in the order of the requests. The
//! channel is bounded, and so are the requests and unread results that all streams together have.
//! If a caller does not read its results, or sends faster than the ledger applies, the task stops
//! reading, and flow control of HTTP/2 slows the caller down. If the caller disconnects, the channel
//! closes, and requests that are not in a database transaction yet are canceled.
//!
//! Each request of a stream has the rights that its caller has when the request is read. A caller
//! whose credential is no longer valid gets the results of its earlier requests, then the error.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    auth::CallAuthorization,
    domain::{money::Currencies, unit_of_work::RequestResult},
    grpc::{
        decode::{self, Decoder},
        encode::{self, response_size},
        error::{StatusBuilder, invalid::Invalid},
        metrics::{self, RequestMode},
        middleware::deadline::Deadline,
    },
    ledger::{CallContext, Error, Ledger, Outcome, PendingRequest},
    proto::{self, ErrorReason, post_transaction_result},
    telemetry::traces::CallTrace,
};

/// The most requests of one stream in flight. Fewer would not fill a database transaction while
/// another one commits.
const IN_FLIGHT_MAX: usize = 1024;
/// The most requests of a stream that are submitted together. Fewer, and a required audit log needs
/// more writes; more, and the first of them waits for the last to be decoded.
const CHUNK_MAX: usize = 128;
/// The ledger returned fewer results than it got requests: a defect.
const MISSING_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// The context of a call of many postings.
#[derive(Clone)]
pub struct StreamContext {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
    /// The caller and the deadline of the call. Each request of a stream gets its own ones.
    pub call: CallContext,
    /// Turns true when the stream must stop to read requests.
    pub stopping: watch::Receiver<bool>,
}

/// The result of one posting, already there or awaited.
pub enum PendingResult {
    /// The request is in the queue.
    Submitted(PendingRequest, RequestMode),
    /// The request is invalid, denied or shed. Boxed, because a channel allocates blocks of 32.
    Ready(Box<proto::PostTransactionResult>),
}

impl StreamContext {
    /// Decodes postings, and submits them together. Returns a result for each, in their order.
    async fn submit(
        &self,
        postings: Vec<Result<proto::PostTransactionRequest, Invalid>>,
    ) -> Vec<PendingResult> {
        let caller = &self.call.caller.recorded_as;
        let decode = |it| Decoder::decode(&self.currencies, caller, it, decode::transaction);
        let (mut requests, mut modes) = (Vec::new(), Vec::new());
        for posting in postings {
            modes.push(posting.and_then(decode).map(|request| {
                let mode = RequestMode::of(&request);
                requests.push(request);
                mode
            }));
        }
        let mut submitted = self.ledger.submit(&self.call, requests).await.into_iter();
        let result = |mode| match mode {
            Ok(mode) => match submitted.next().unwrap_or(Err(MISSING_RESULT)) {
                Ok(pending) => PendingResult::Submitted(pending, mode),
                Err(error) => PendingResult::failed(error, mode),
            },
            Err(invalid) => PendingResult::failed(invalid, RequestMode::Execute),
        };
        modes.into_iter().map(result).collect()
    }

    /// Serves one batch: the results in the order of the requests.
    pub async fn post_batch(
        &self,
        request: proto::BatchPostTransactionsRequest,
    ) -> Result<Vec<proto::PostTransactionResult>, Status> {
        let requests = decode::batch(request)?;
        // Results without a request in the queue, such as errors, count as well.
        let size = response_size::check_room(&requests)?;
        let _room = self.ledger.response_room(&self.call.caller, size)?;
        // All requests are submitted before the first result is awaited: one database transaction
        // can apply many of them.
        let pending = self.submit(requests.into_iter().map(Ok).collect()).await;
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(pending.wait().await);
        }
        response_size::shorten(&mut results);
        Ok(results)
    }

    /// Serves one stream.
    pub fn serve(
        mut self,
        mut requests: Streaming<proto::StreamTransactionsRequest>,
        deadline: Deadline,
        mut authorization: CallAuthorization,
    ) -> impl Stream<Item = Result<proto::StreamTransactionsResponse, Status>> + Send + 'static
    {
        // One stream must not fill the queue alone.
        let in_flight_max = IN_FLIGHT_MAX.min(self.ledger.queue_capacity() / 8).max(1);
        let (sender, results) = mpsc::channel(in_flight_max);
        let read = async move {
            // What was read after the last chunk of requests, and is not part of it.
            let mut read_ahead = None;
            loop {
                // A request is read only when the channel has capacity for its result.
                let Ok(slot) = sender.reserve().await else { return };
                let message = match read_ahead.take() {
                    Some(message) => message,
                    None => tokio::select! {
                        message = requests.message() => message,
                        // An error means that the server has ended: a reason to stop as well.
                        _ = self.stopping.wait_for(|stop| *stop) => {
                            return slot.send(Err(Status::from(Error::ShuttingDown)));
                        }
                    },
                };
                match message {
                    Ok(Some(message)) => {
                        let permit = tokio::select! {
                            // The permit is nearly always available.
                            biased;
                            permit = self.ledger.stream_permit(&self.call.caller) => permit,
                            _ = self.stopping.wait_for(|stop| *stop) => {
                                return slot.send(Err(Status::from(Error::ShuttingDown)));
                            }
                            () = sender.closed() => return,
                        };
                        // Credentials may have changed since the last message.
                        match authorization.caller() {
                            Ok(caller) => self.call.caller = caller.clone(),
                            Err(error) => return slot.send(Err(error.into())),
                        }
                        self.call.deadline = deadline.for_item();
                        // Requests that have arrived already are submitted together.
                        let (mut chunk, mut slots) = (vec![message], vec![(slot, permit)]);
                        while chunk.len() < CHUNK_MAX
                            && let Ok(slot) = sender.try_reserve()
                            && let Some(message) = requests.message().now_or_never()
                        {
                            let permit = self.ledger.stream_permit(&self.call.caller);
                            match (message, permit.now_or_never()) {
                                (Ok(Some(message)), Some(permit)) => {
                                    chunk.push(message);
                                    slots.push((slot, permit));
                                }
                                (message, _) => {
                                    read_ahead = Some(message);
                                    break;
                                }
                            }
                        }
                        let results = self.submit(chunk.into_iter().map(posting).collect()).await;
                        for (result, (slot, permit)) in results.into_iter().zip(slots) {
                            slot.send(Ok((result, permit)));
                        }
                    }
                    Ok(None) => return,
                    Err(status) => return slot.send(Err(status)),
                }
            }
        };
        tokio::spawn(CallTrace::current().run(read));
        ReceiverStream::new(results).then(|pending: Result<_, Status>| async move {
            // The permit is returned when the caller's flow control lets the result be sent.
            let (pending, _permit): (PendingResult, _) = pending?;
            Ok(proto::StreamTransactionsResponse { result: Some(pending.wait().await) })
        })
    }
}

/// The posting in a message of a stream.
fn posting(
    message: proto::StreamTransactionsRequest,
) -> Result<proto::PostTransactionRequest, Invalid> {
    let missing = || Invalid::new(ErrorReason::InvalidRequests, "request", "is required");
    message.request.ok_or_else(missing)
}

impl PendingResult {
    fn failed(error: impl Into<StatusBuilder>, mode: RequestMode) -> Self {
        Self::Ready(Box::new(failed(error, mode)))
    }

    /// Waits for the result.
    pub async fn wait(self) -> proto::PostTransactionResult {
        let (pending, mode) = match self {
            Self::Ready(result) => return *result,
            Self::Submitted(pending, mode) => (pending, mode),
        };
        match pending.wait().await {
            Ok(RequestResult { effects, replayed }) => {
                metrics::count_applied(replayed, mode);
                let transaction = effects.transaction.as_deref().map(encode::transaction);
                let result = transaction.map(post_transaction_result::Result::Transaction);
                proto::PostTransactionResult { result, replayed }
            }
            Err(error) => failed(error, mode),
        }
    }
}

/// Counts an error, and encodes it as the result of one request.
fn failed(error: impl Into<StatusBuilder>, mode: RequestMode) -> proto::PostTransactionResult {
    let error = metrics::counted(error, mode).into_proto();
    let result = Some(post_transaction_result::Result::Error(error));
    proto::PostTransactionResult { result, replayed: false }
}
