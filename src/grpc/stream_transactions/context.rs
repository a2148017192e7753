//! What the requests of one call share, and the way in which they are submitted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    domain::{command::Request, money::Currencies},
    grpc::{
        decode::Decoder, error::StatusBuilder, metrics::RequestMode,
        stream_transactions::pending_result::PendingResult,
    },
    ledger::{CallContext, Error, Ledger, Outcome, Submission},
};

/// The ledger returned fewer results than it got requests: a defect.
const MISSING_RESULT: Error = Error::Internal(Some(Outcome::Unknown));

/// The context of a call of many requests.
#[derive(Clone)]
pub struct StreamContext {
    pub ledger: Arc<Ledger>,
    pub currencies: Arc<Currencies>,
    /// The caller and the deadline of the call. Each request of a stream gets its own ones.
    pub call: CallContext,
    /// Turns true when the stream must stop to read requests.
    pub stopping: watch::Receiver<bool>,
}

impl StreamContext {
    /// Decodes a request of this caller.
    pub fn decode<T>(
        &self,
        context: &CallContext,
        request: T,
        read: impl FnOnce(&mut Decoder<'_>, T) -> Option<Request>,
    ) -> Result<Request, StatusBuilder> {
        let caller = &context.caller.recorded_as;
        Ok(Decoder::decode(&self.currencies, caller, request, read)?)
    }

    /// Submits requests together, unless they have failed already. Returns a result for each, in
    /// their order, and those that are to be put into the queue.
    pub fn submit(
        &self,
        requests: Vec<Result<(CallContext, Request), StatusBuilder>>,
    ) -> (Vec<PendingResult>, Submission) {
        let mut accepted = Vec::with_capacity(requests.len());
        let accept = |request: Result<(CallContext, Request), StatusBuilder>| {
            request.map(|(context, request)| {
                let mode = RequestMode::of(&request);
                accepted.push((context, request));
                mode
            })
        };
        let modes: Vec<_> = requests.into_iter().map(accept).collect();
        let (submitted, submission) = self.ledger.submit(accepted);
        let mut submitted = submitted.into_iter();
        let result = |mode| match mode {
            Ok(mode) => match submitted.next().unwrap_or(Err(MISSING_RESULT)) {
                Ok(pending) => PendingResult::Submitted(pending, mode),
                Err(error) => PendingResult::failed(error, mode),
            },
            Err(error) => PendingResult::failed(error, RequestMode::Execute),
        };
        (modes.into_iter().map(result).collect(), submission)
    }
}
