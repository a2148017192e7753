//! StreamTransactions: requests in, results out in their order, back-pressure both ways.
//!
//! One task reads requests and hands them to the ledger; what it passes on is a place in line:
//! a ticket, or the answer already. The line is bounded, and so is what all streams together have
//! in the ledger's queue: a caller who does not read results, or who sends more than can be done,
//! soon is not read from, and HTTP/2's flow control tells it so. When the caller goes, the line
//! breaks, and tickets that nobody has claimed are given up.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    domain::{
        authorization::Caller, command::Request, money::Currencies, unit_of_work::RequestResult,
    },
    grpc::{
        decode::{self, Invalid},
        encode, error, metrics,
        metrics::Purpose,
        middleware::deadline::Deadline,
    },
    ledger::{Failure, Ledger, RequestTicket, StreamPermit},
    proto::{self, ErrorReason, post_transaction_result},
    telemetry::traces::CallTrace,
};

/// Requests of one stream that are under way: enough to fill a database transaction while
/// another commits.
const UNDER_WAY_MAX: usize = 1024;

/// What is needed to take a posting on.
#[derive(Clone)]
pub struct Intake {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
    pub caller: Caller,
    /// Turns true when no more requests are to be read.
    pub stopping: watch::Receiver<bool>,
}

/// A place in line.
pub enum InLine {
    /// Accepted; the verdict will come.
    Accepted(RequestTicket, Purpose),
    /// Malformed, not allowed or not accepted. Boxed: a stream has room for 32 places at the least.
    Answered(Box<proto::PostTransactionResult>),
}

impl Intake {
    /// Takes on one request of several.
    pub fn take(
        &self,
        request: proto::PostTransactionRequest,
        deadline: tokio::time::Instant,
    ) -> InLine {
        self.take_by(request, |posting| self.ledger.begin(&self.caller, posting, deadline))
    }

    fn take_by(
        &self,
        request: proto::PostTransactionRequest,
        begin: impl FnOnce(Request) -> Result<RequestTicket, Failure>,
    ) -> InLine {
        match decode::transaction(&self.currencies, &self.caller.recorded_as, request) {
            Ok(posting) => {
                let purpose = Purpose::of(&posting);
                match begin(posting) {
                    Ok(ticket) => InLine::Accepted(ticket, purpose),
                    Err(failure) => InLine::Answered(Box::new(refused(&failure, purpose))),
                }
            }
            Err(invalid) => InLine::malformed(invalid),
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
        let under_way_max = UNDER_WAY_MAX.min(self.ledger.queue_capacity() / 8).max(1);
        let (line, results) = mpsc::channel(under_way_max);
        let read = async move {
            loop {
                // A place first: without one, nothing is read.
                let Ok(place) = line.reserve().await else { return };
                let message = tokio::select! {
                    message = requests.message() => message,
                    // Fails only if the server is gone: then it is time to stop, too.
                    _ = self.stopping.wait_for(|stop| *stop) => {
                        return place.send(Err(Status::from(Failure::ShuttingDown)));
                    }
                };
                match message {
                    Ok(Some(message)) => {
                        let permit = tokio::select! {
                            // Nearly always there at once.
                            biased;
                            permit = self.ledger.stream_permit() => permit,
                            _ = self.stopping.wait_for(|stop| *stop) => {
                                return place.send(Err(Status::from(Failure::ShuttingDown)));
                            }
                            () = line.closed() => return,
                        };
                        place.send(Ok(self.take_message(message, deadline, permit)));
                    }
                    Ok(None) => return,
                    Err(status) => return place.send(Err(status)),
                }
            }
        };
        tokio::spawn(CallTrace::current().run(read));
        ReceiverStream::new(results).then(|in_line: Result<InLine, Status>| async move {
            let result = Some(in_line?.result().await);
            Ok(proto::StreamTransactionsResponse { result })
        })
    }

    fn take_message(
        &self,
        message: proto::StreamTransactionsRequest,
        deadline: Deadline,
        permit: StreamPermit,
    ) -> InLine {
        let begin = |posting| {
            self.ledger.begin_of_stream(&self.caller, posting, deadline.of_next(), permit)
        };
        match message.request {
            Some(request) => self.take_by(request, begin),
            None => {
                let reason = ErrorReason::InvalidRequests;
                let invalid = Invalid::new(reason, "request", "is required");
                InLine::malformed(invalid)
            }
        }
    }
}

impl InLine {
    fn malformed(invalid: Invalid) -> Self {
        Self::Answered(Box::new(error(error::message_of_malformed(invalid))))
    }

    /// Waits for the verdict.
    pub async fn result(self) -> proto::PostTransactionResult {
        match self {
            Self::Answered(result) => *result,
            Self::Accepted(ticket, purpose) => of_verdict(ticket.done().await, purpose),
        }
    }
}

fn of_verdict(
    verdict: Result<RequestResult, Failure>,
    purpose: Purpose,
) -> proto::PostTransactionResult {
    match verdict {
        Ok(done) => {
            metrics::count_done(&done, purpose);
            let RequestResult { effects, replayed } = done;
            let transaction = effects.transaction.map(|it| encode::transaction(&it));
            let result = transaction.map(post_transaction_result::Result::Transaction);
            proto::PostTransactionResult { result, replayed }
        }
        Err(failure) => refused(&failure, purpose),
    }
}

fn refused(failure: &Failure, purpose: Purpose) -> proto::PostTransactionResult {
    error(error::message_of_refused(failure, purpose))
}

fn error(status: tonic_types::pb::Status) -> proto::PostTransactionResult {
    let result = Some(post_transaction_result::Result::Error(status));
    proto::PostTransactionResult { result, replayed: false }
}
