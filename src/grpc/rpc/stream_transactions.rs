//! StreamTransactions and BatchPostTransactions: many postings in one call.
//!
//! One task reads requests and submits them to the ledger; for each it passes on a
//! [`PendingResult`], so results come in the order of the requests. The channel between is bounded,
//! and so are the places of all streams together in the ledger's queue. A caller who does not read
//! results, or who sends more than the ledger applies, is soon not read from, and flow control of
//! HTTP/2 slows it down. When the caller goes, the channel closes, and requests that no transaction
//! has yet are canceled.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    domain::{money::Currencies, unit_of_work::RequestResult},
    grpc::{
        decode::{self, Invalid},
        encode,
        error::StatusBuilder,
        metrics::{self, RequestMode},
        middleware::deadline::Deadline,
    },
    ledger::{CallContext, Error, Ledger, PendingRequest, StreamPermit},
    proto::{self, ErrorReason, post_transaction_result},
    telemetry::traces::CallTrace,
};

/// Requests of one stream that are in flight: enough to fill a database transaction while another
/// commits.
const IN_FLIGHT_MAX: usize = 1024;

/// What a call of many postings needs.
#[derive(Clone)]
pub struct StreamContext {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
    /// The call's. Requests of a stream get deadlines of their own.
    pub call: CallContext,
    /// Turns true when no more requests are to be read.
    pub stopping: watch::Receiver<bool>,
}

/// The result of one posting, now or later.
pub enum PendingResult {
    /// The request is in the queue.
    Submitted(PendingRequest, RequestMode),
    /// The request is invalid, denied or shed. Boxed: a stream has room for 32 results at least.
    Ready(Box<proto::PostTransactionResult>),
}

impl StreamContext {
    /// Decodes and submits one posting.
    pub fn submit(
        &self,
        request: proto::PostTransactionRequest,
        permit: Option<StreamPermit>,
    ) -> PendingResult {
        let caller = &self.call.caller.recorded_as;
        let request = match decode::transaction(&self.currencies, caller, request) {
            Ok(request) => request,
            Err(invalid) => return PendingResult::invalid(invalid),
        };
        let mode = RequestMode::of(&request);
        match self.ledger.submit(&self.call, request, permit) {
            Ok(pending) => PendingResult::Submitted(pending, mode),
            Err(error) => PendingResult::Ready(Box::new(failed((&error).into(), mode))),
        }
    }

    /// Serves one stream.
    pub fn serve(
        mut self,
        mut requests: Streaming<proto::StreamTransactionsRequest>,
        deadline: Deadline,
    ) -> impl Stream<Item = Result<proto::StreamTransactionsResponse, Status>> + Send + 'static
    {
        // One stream must not fill the queue by itself.
        let in_flight_max = IN_FLIGHT_MAX.min(self.ledger.queue_capacity() / 8).max(1);
        let (sender, results) = mpsc::channel(in_flight_max);
        let read = async move {
            loop {
                // Room for the result first: without it, nothing is read.
                let Ok(room) = sender.reserve().await else { return };
                let message = tokio::select! {
                    message = requests.message() => message,
                    // Fails only if the server has ended, which is a reason to stop, too.
                    _ = self.stopping.wait_for(|stop| *stop) => {
                        return room.send(Err(Status::from(Error::ShuttingDown)));
                    }
                };
                match message {
                    Ok(Some(message)) => {
                        let permit = tokio::select! {
                            // Nearly always there at once.
                            biased;
                            permit = self.ledger.stream_permit() => permit,
                            _ = self.stopping.wait_for(|stop| *stop) => {
                                return room.send(Err(Status::from(Error::ShuttingDown)));
                            }
                            () = sender.closed() => return,
                        };
                        self.call.deadline = deadline.for_item();
                        room.send(Ok(self.submit_message(message, permit)));
                    }
                    Ok(None) => return,
                    Err(status) => return room.send(Err(status)),
                }
            }
        };
        tokio::spawn(CallTrace::current().run(read));
        ReceiverStream::new(results).then(|pending: Result<PendingResult, Status>| async move {
            let result = Some(pending?.wait().await);
            Ok(proto::StreamTransactionsResponse { result })
        })
    }

    fn submit_message(
        &self,
        message: proto::StreamTransactionsRequest,
        permit: StreamPermit,
    ) -> PendingResult {
        match message.request {
            Some(request) => self.submit(request, Some(permit)),
            None => {
                let reason = ErrorReason::InvalidRequests;
                PendingResult::invalid(Invalid::new(reason, "request", "is required"))
            }
        }
    }
}

impl PendingResult {
    fn invalid(invalid: Invalid) -> Self {
        Self::Ready(Box::new(failed(invalid.into(), RequestMode::Execute)))
    }

    /// Waits for the result.
    pub async fn wait(self) -> proto::PostTransactionResult {
        match self {
            Self::Ready(result) => *result,
            Self::Submitted(pending, mode) => match pending.wait().await {
                Ok(result) => {
                    let RequestResult { effects, replayed } = result;
                    metrics::count_applied(replayed, mode);
                    let transaction = effects.transaction.map(|it| encode::transaction(&it));
                    let result = transaction.map(post_transaction_result::Result::Transaction);
                    proto::PostTransactionResult { result, replayed }
                }
                Err(error) => failed((&error).into(), mode),
            },
        }
    }
}

/// Counts an error, and encodes it as the result of one request.
fn failed(error: StatusBuilder, mode: RequestMode) -> proto::PostTransactionResult {
    metrics::count_error(&error, mode);
    let result = Some(post_transaction_result::Result::Error(error.into_proto()));
    proto::PostTransactionResult { result, replayed: false }
}
