//! One StreamTransactions that many callers share. While one message is on its way, the next gathers
//! the requests of all callers, and results come in any order: a caller waits for its own alone.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    proto::{ResultOrder, StreamTransactionsRequest, StreamTransactionsResponse, StreamedRequest},
    servers::Client,
    workload::Operation,
};

/// The most requests in flight, and so the most callers, on one stream. More use several streams.
pub const REQUESTS_PER_STREAM: u32 = 512;
/// The most requests of one message that the server takes.
const MESSAGE_REQUESTS_MAX: usize = 1000;

/// The streams that callers share.
#[derive(Default)]
pub struct SharedStreams {
    /// By server: the stream that its next caller joins, and the callers that have joined it.
    by_server: BTreeMap<usize, (SharedStream, u32)>,
}

/// A stream that callers share. It ends when the last of them has dropped it.
#[derive(Clone)]
pub struct SharedStream {
    calls: mpsc::UnboundedSender<Call>,
}

/// A request whose caller waits for the result.
struct Call {
    request_id: String,
    request: StreamedRequest,
    result: oneshot::Sender<Result<(), Status>>,
}

impl SharedStreams {
    /// The stream for one more caller of this server.
    pub fn join(&mut self, server: usize, client: &Client) -> SharedStream {
        let open = || (SharedStream::open(client.clone()), 0);
        let current = self.by_server.entry(server).or_insert_with(open);
        if current.1 == REQUESTS_PER_STREAM {
            *current = open();
        }
        current.1 += 1;
        current.0.clone()
    }
}

impl SharedStream {
    /// Opens a stream. If it cannot be opened, its requests fail.
    fn open(client: Client) -> Self {
        let (calls, receiver) = mpsc::unbounded_channel();
        tokio::spawn(serve(client, receiver));
        Self { calls }
    }

    /// Sends a request, and waits for its result.
    pub async fn send(&self, request_id: &str, operation: &Operation) -> Result<(), Status> {
        let request_id = request_id.to_owned();
        let request = operation.streamed(request_id.clone());
        let (result, receiver) = oneshot::channel();
        let ended = || Status::unavailable("the stream ended");
        self.calls.send(Call { request_id, request, result }).map_err(|_| ended())?;
        receiver.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn serve(mut client: Client, mut calls: mpsc::UnboundedReceiver<Call>) {
    let (messages, receiver) = mpsc::channel(1);
    let mut waiting = HashMap::new();
    let end = match client.accounts.stream_transactions(ReceiverStream::new(receiver)).await {
        Ok(results) => exchange(&mut calls, messages, results.into_inner(), &mut waiting).await,
        Err(status) => Err(status),
    };
    // Without an error, the last caller has gone.
    if let Err(status) = end {
        for (_, result) in waiting {
            // Fails if the caller no longer waits.
            let _ = result.send(Err(status.clone()));
        }
    }
}

async fn exchange(
    calls: &mut mpsc::UnboundedReceiver<Call>,
    messages: mpsc::Sender<StreamTransactionsRequest>,
    mut results: Streaming<StreamTransactionsResponse>,
    waiting: &mut HashMap<String, oneshot::Sender<Result<(), Status>>>,
) -> Result<(), Status> {
    let (mut arrived, mut requests) = (Vec::new(), Vec::new());
    loop {
        let room = MESSAGE_REQUESTS_MAX - requests.len();
        tokio::select! {
            count = calls.recv_many(&mut arrived, room), if room > 0 => {
                if count == 0 {
                    return Ok(());
                }
                for Call { request_id, request, result } in arrived.drain(..) {
                    requests.push(request);
                    waiting.insert(request_id, result);
                }
            }
            permit = messages.reserve(), if !requests.is_empty() => {
                let permit = permit.map_err(|_| Status::unavailable("the stream ended"))?;
                permit.send(StreamTransactionsRequest {
                    requests: mem::take(&mut requests),
                    result_order: ResultOrder::AsCompleted.into(),
                    ..Default::default()
                });
            }
            message = results.message() => {
                let message = message?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                for result in message.results {
                    let Some(caller) = waiting.remove(&result.request_id) else { continue };
                    // Fails if the caller no longer waits.
                    let _ = caller.send(result.error.map_or(Ok(()), |error| Err(status_of(error))));
                }
            }
        }
    }
}

/// The error of one request in a message, as of a unary call.
pub fn status_of(error: tonic_types::pb::Status) -> Status {
    let details = prost::Message::encode_to_vec(&error).into();
    Status::with_details(error.code.into(), error.message, details)
}
