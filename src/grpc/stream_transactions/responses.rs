//! The responses of a stream: results as they come, several in one message.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    grpc::{
        encode::{self, response_size::size_in_list},
        messages::MESSAGE_SIZE_MAX,
        stream_transactions::{messages::ReplyForm, pending_result::PendingResult},
    },
    ledger::StreamPermit,
    proto::{PostTransactionResult, ResultOrder, StreamTransactionsResponse, StreamedResult},
};

/// A request in flight.
pub struct InFlight {
    pub pending: PendingResult,
    pub reply: ReplyForm,
    /// That of the stream.
    pub order: ResultOrder,
    pub permits: Permits,
}

/// The room for the result of a request: of the stream, and of all streams. It is returned when the
/// caller's flow control lets the result be sent.
pub type Permits = (Option<OwnedSemaphorePermit>, StreamPermit);

/// A result on its way into a message.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
enum Reply {
    Single(PostTransactionResult),
    Listed(StreamedResult),
}

impl InFlight {
    async fn wait(self) -> Reply {
        let Self { pending, reply, permits: _permits, .. } = self;
        let result = pending.wait().await;
        match reply {
            ReplyForm::Single => Reply::Single(encode::posting_result(result)),
            ReplyForm::Listed { request_id } => {
                Reply::Listed(encode::streamed_result(request_id, result))
            }
        }
    }
}

/// The messages with the results of these requests, which come in the order in which they were sent.
pub fn of(
    requests: mpsc::UnboundedReceiver<Result<InFlight, Status>>,
) -> impl Stream<Item = Result<StreamTransactionsResponse, Status>> + Send + 'static {
    let mut responses = Responses {
        requests,
        order: ResultOrder::AsRequested,
        awaited: FuturesUnordered::new(),
        end: None,
        next: None,
    };
    stream::poll_fn(move |context| responses.poll_message(context))
}

struct Responses {
    requests: mpsc::UnboundedReceiver<Result<InFlight, Status>>,
    order: ResultOrder,
    /// The requests whose results may come next: a single one if they come in the order of the
    /// requests.
    awaited: FuturesUnordered<Pin<Box<dyn Future<Output = Reply> + Send>>>,
    /// The error with which the stream ends after the results.
    end: Option<Status>,
    /// A result that did not fit into the last message.
    next: Option<Reply>,
}

impl Responses {
    /// The next message, with the results that are there.
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<StreamTransactionsResponse, Status>>> {
        let (mut results, mut size) = (Vec::new(), 0);
        loop {
            let reply = match self.next.take() {
                Some(reply) => Poll::Ready(Some(reply)),
                None => self.poll_reply(context),
            };
            match reply {
                Poll::Ready(Some(Reply::Single(result))) if results.is_empty() => {
                    let result = Some(result);
                    return Poll::Ready(Some(Ok(StreamTransactionsResponse { result, results })));
                }
                Poll::Ready(Some(Reply::Listed(result))) => {
                    size += size_in_list(&result);
                    if !results.is_empty() && size > MESSAGE_SIZE_MAX {
                        self.next = Some(Reply::Listed(result));
                        break;
                    }
                    results.push(result);
                }
                Poll::Pending if results.is_empty() => return Poll::Pending,
                Poll::Ready(None) if results.is_empty() => {
                    return Poll::Ready(self.end.take().map(Err));
                }
                Poll::Ready(reply) => {
                    self.next = reply;
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(StreamTransactionsResponse { result: None, results })))
    }

    /// The next result. None: all results were sent.
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Option<Reply>> {
        loop {
            let is_behind = !self.awaited.is_empty() && self.order != ResultOrder::AsCompleted;
            if is_behind || self.end.is_some() {
                return self.awaited.poll_next_unpin(context);
            }
            match self.requests.poll_recv(context) {
                Poll::Ready(Some(Ok(request))) => {
                    self.order = request.order;
                    self.awaited.push(Box::pin(request.wait()));
                }
                Poll::Ready(Some(Err(status))) => self.end = Some(status),
                Poll::Pending if self.awaited.is_empty() => return Poll::Pending,
                Poll::Pending | Poll::Ready(None) => return self.awaited.poll_next_unpin(context),
            }
        }
    }
}
