//! StreamTransactions and BatchPostTransactions: many requests in one call.
//!
//! Each stream has a task, the [`Reader`]. It reads messages (`messages`), submits
//! the requests that have arrived to the ledger, and passes a `PendingResult` for each to the
//! responses (`responses`), which send the results: in the order of the requests, or each as soon as
//! it is there. A request is read only when the stream has room for its result, and so have all
//! streams of the identity and of the server. If a caller does not read its results, or sends faster
//! than the ledger applies, the task stops reading, and flow control of HTTP/2 slows the caller down.
//! If the caller disconnects, the results are no longer awaited, and requests that are not in a
//! database transaction yet are canceled.
//!
//! Each request of a stream has the rights that its caller has when the request is read: with the
//! method of its own kind, and postings with that of the stream. A caller whose credential is no
//! longer valid gets the results of its earlier requests, then the error.

mod context;
mod messages;
mod pending_result;
mod reader;
mod responses;

use std::sync::Arc;

use tokio::{
    sync::{Semaphore, mpsc},
    task::consume_budget,
};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

pub use crate::grpc::stream_transactions::context::StreamContext;
use crate::{
    auth::CallAuthorization,
    grpc::{
        decode,
        encode::{self, response_size},
        middleware::deadline::Deadline,
        stream_transactions::{messages::Requests, reader::Reader},
    },
    ledger::Error,
    proto,
    telemetry::traces::CallTrace,
};

/// The most requests of one stream in flight. Fewer would not fill a database transaction while
/// another one commits.
const IN_FLIGHT_MAX: usize = 1024;
/// One stream may have an eighth of the queue: half of what all streams of its identity may have.
const STREAM_PART: usize = 8;

impl StreamContext {
    /// Serves one batch: the results in the order of the requests.
    pub async fn post_batch(
        &self,
        request: proto::BatchPostTransactionsRequest,
    ) -> Result<Vec<proto::PostTransactionResult>, Status> {
        let requests = decode::batch(request)?;
        // Results without a request in the queue, such as errors, count as well.
        let size = response_size::check_room(&requests, |it| it.legs.len())?;
        let (budgets, identity) = (self.ledger.budgets(), &self.call.caller.identity);
        let _share = budgets.response_share(identity, size).map_err(Error::from)?;
        budgets.charge_batch(identity, requests.len());
        let mut decoded = Vec::with_capacity(requests.len());
        for request in requests {
            // A thousand requests without a pause would be one for every call of the same thread.
            consume_budget().await;
            let request = self.decode(&self.call, request, decode::transaction);
            decoded.push(request.map(|request| (self.call.clone(), request)));
        }
        // All requests are submitted before the first result is awaited: one database transaction
        // can apply many of them.
        let (pending, submission) = self.submit(decoded);
        submission.enqueue().await;
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(encode::posting_result(pending.wait().await));
        }
        response_size::fit_postings(&mut results);
        Ok(results)
    }

    /// Serves one stream.
    pub fn serve(
        self,
        messages: Streaming<proto::StreamTransactionsRequest>,
        deadline: Deadline,
        authorization: CallAuthorization,
    ) -> impl Stream<Item = Result<proto::StreamTransactionsResponse, Status>> + Send + 'static
    {
        let budgets = self.ledger.budgets();
        let queue_part = budgets.queue.capacity() / STREAM_PART;
        let in_flight_max = IN_FLIGHT_MAX.min(queue_part).max(1);
        // The requests in flight bound it.
        let (sender, pending) = mpsc::unbounded_channel();
        // Nothing is taken yet.
        let share = budgets.request_bytes.share(self.call.caller.identity.clone(), None);
        let reader = Reader {
            context: self,
            deadline,
            denied: Box::pin(authorization.clone().denied(|_| Ok(()))),
            authorization,
            requests: Requests::of(messages, share),
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            results: sender,
        };
        tokio::spawn(CallTrace::current().run(reader.run()));
        responses::of(pending)
    }
}
