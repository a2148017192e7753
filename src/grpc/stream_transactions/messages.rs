//! The messages of a stream, taken apart into their requests.

use std::{mem, time::Duration, vec};

use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::{
    budget::Share,
    domain::{
        ids::ID_LENGTH_MAX,
        text::{LABELS_SIZE_MAX, TEXT_LENGTH_MAX},
    },
    grpc::{
        decode::{BATCH_MAX, LEGS_MAX},
        error::invalid::Invalid,
        middleware::deadline::Deadline,
    },
    ledger::Error,
    proto::{
        self, ErrorReason, ResultOrder, StreamTransactionsRequest, StreamedRequest,
        streamed_request::Request,
    },
};

/// What one permit of a stream stands for, in bytes of a result in memory. More, and results that are not
/// read take more memory; less, and requests with a few legs take two permits.
const PERMIT_BYTES: usize = 4 * 1024;
/// About the memory of an entry in a result, in bytes.
const ENTRY_BYTES: usize = 300;
/// No valid request has more bytes: the texts below, ids, and 100 legs.
const REQUEST_SIZE_MAX: usize = 64 * 1024;
/// The most bytes of the labels and the description that a hold may have.
const HOLD_TEXTS_MAX: usize = LABELS_SIZE_MAX + TEXT_LENGTH_MAX;

/// One request of a stream, as it was sent.
pub struct StreamedItem {
    /// None: the message has no request in this place, which is an error.
    pub request: Option<Request>,
    /// The deadline that the request brings.
    pub deadline: Option<Instant>,
    pub reply: ReplyForm,
}

/// The form in which the result of a request is returned.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplyForm {
    /// In `result`, in a message of its own.
    Single,
    /// In `results`, with the name of its request.
    Listed { request_id: String },
}

/// The requests of a stream, one after another.
pub struct Requests {
    messages: Streaming<StreamTransactionsRequest>,
    /// What is left of the last message.
    rest: vec::IntoIter<StreamedItem>,
    /// For the last message until nothing is left of it: a small message of many empty elements can
    /// be large in memory, and may wait for long.
    share: Share,
    /// None until the first message.
    order: Option<ResultOrder>,
}

impl Requests {
    /// The requests in these messages. `share` grows with each.
    pub fn of(messages: Streaming<StreamTransactionsRequest>, share: Share) -> Self {
        Self { messages, rest: Vec::new().into_iter(), share, order: None }
    }

    /// Waits until a request is there. False: there are no more. May be dropped while it waits.
    ///
    /// # Errors
    /// The stream must end.
    pub async fn fill(&mut self, deadline: Deadline) -> Result<bool, Status> {
        while self.rest.as_slice().is_empty() {
            let message = self.messages.message().await?;
            let Some(message) = message else { return Ok(false) };
            let of_message = proto::memory(&message);
            let items = split(message, &mut self.order, deadline)?;
            let size = of_message + items.len() * mem::size_of::<StreamedItem>();
            self.share.resize_bytes(size).map_err(Error::from)?;
            self.rest = items.into_iter();
        }
        Ok(true)
    }

    /// How many permits the next request takes.
    pub fn permits(&self) -> usize {
        self.rest.as_slice().first().map_or(1, |item| permits(item.request.as_ref()))
    }

    /// Takes the next request, if it is there.
    pub fn take(&mut self) -> Option<StreamedItem> {
        let item = self.rest.next();
        if self.rest.as_slice().is_empty() {
            // Returning a share cannot fail.
            let _ = self.share.resize(0);
        }
        item
    }

    /// The order of the results.
    pub fn order(&self) -> ResultOrder {
        self.order.unwrap_or_default()
    }
}

/// Takes a message apart. The first message sets the order of the results.
fn split(
    message: StreamTransactionsRequest,
    stream_order: &mut Option<ResultOrder>,
    deadline: Deadline,
) -> Result<Vec<StreamedItem>, Invalid> {
    let StreamTransactionsRequest { request, requests, result_order } = message;
    let invalid = |field, description: String| {
        Err(Invalid::new(ErrorReason::InvalidRequests, field, description))
    };
    let order = match ResultOrder::try_from(result_order) {
        Ok(ResultOrder::Unspecified) => stream_order.unwrap_or(ResultOrder::AsRequested),
        Ok(order) => order,
        Err(_) => return invalid("result_order", format!("has no value {result_order}")),
    };
    if stream_order.is_some_and(|first| first != order) {
        return invalid("result_order", "must be that of the first message".to_owned());
    }
    let is_first = stream_order.replace(order).is_none();
    let count = requests.len() + usize::from(request.is_some());
    if count > BATCH_MAX {
        let description = format!("has {count} requests; at most {BATCH_MAX} are allowed");
        return invalid("requests", description);
    }
    let has_order = result_order != i32::from(ResultOrder::Unspecified);
    let is_missing = count == 0 && !(is_first && has_order);
    let single = |request: Option<Request>| StreamedItem {
        reply: match order {
            ResultOrder::AsCompleted => ReplyForm::listed(request.as_ref()),
            _ => ReplyForm::Single,
        },
        request,
        deadline: None,
    };
    let request = request.map(|request| single(Some(Request::PostTransaction(request))));
    let missing = is_missing.then(|| single(None));
    let listed = |StreamedRequest { timeout, request }: StreamedRequest| StreamedItem {
        reply: ReplyForm::listed(request.as_ref()),
        request,
        deadline: timeout.map(|timeout| {
            // Below zero, it has passed.
            let timeout = Duration::try_from(timeout).unwrap_or_default();
            deadline.for_item(Some(timeout))
        }),
    };
    let requests = requests.into_iter().map(listed);
    Ok(request.into_iter().chain(missing).chain(requests).collect())
}

impl ReplyForm {
    fn listed(request: Option<&Request>) -> Self {
        let request_id = match request {
            None => "",
            Some(Request::Deposit(it)) => &it.request_id,
            Some(Request::Withdraw(it)) => &it.request_id,
            Some(Request::Transfer(it)) => &it.request_id,
            Some(Request::PostTransaction(it)) => &it.request_id,
            Some(Request::ReverseTransaction(it)) => &it.request_id,
            Some(Request::PlaceHold(it)) => &it.request_id,
            Some(Request::UpdateHold(it)) => &it.request_id,
            Some(Request::CaptureHold(it)) => &it.request_id,
            Some(Request::ReleaseHold(it)) => &it.request_id,
        };
        // A part of it could be the id of another request.
        let is_allowed = request_id.len() <= ID_LENGTH_MAX;
        Self::Listed { request_id: if is_allowed { request_id.to_owned() } else { String::new() } }
    }
}

/// How many permits a request takes: one for each part of its result, which has its texts and an entry
/// for each leg.
fn permits(request: Option<&Request>) -> usize {
    let Some(request) = request else { return 1 };
    let (texts, entries) = match request {
        Request::PostTransaction(it) => (0, it.legs.len()),
        // How many entries the transaction has is not known yet.
        Request::ReverseTransaction(_) => (0, LEGS_MAX),
        Request::Deposit(_) | Request::Withdraw(_) | Request::Transfer(_) => (0, 2),
        Request::PlaceHold(_) => (0, 0),
        // The result has the texts of the hold.
        Request::UpdateHold(_) | Request::ReleaseHold(_) => (HOLD_TEXTS_MAX, 0),
        Request::CaptureHold(_) => (HOLD_TEXTS_MAX, 2),
    };
    let size = request.encoded_len() + texts;
    // The result of an invalid request is a small error.
    if size > REQUEST_SIZE_MAX || entries > LEGS_MAX {
        return 1;
    }
    1 + (size + entries * ENTRY_BYTES) / PERMIT_BYTES
}

/// The method of AccountService whose right the request needs beside that of the stream. None: a
/// posting needs no other.
pub fn method(request: &Request) -> Option<&'static str> {
    match request {
        Request::PostTransaction(_) => None,
        Request::Deposit(_) => Some("Deposit"),
        Request::Withdraw(_) => Some("Withdraw"),
        Request::Transfer(_) => Some("Transfer"),
        Request::ReverseTransaction(_) => Some("ReverseTransaction"),
        Request::PlaceHold(_) => Some("PlaceHold"),
        Request::UpdateHold(_) => Some("UpdateHold"),
        Request::CaptureHold(_) => Some("CaptureHold"),
        Request::ReleaseHold(_) => Some("ReleaseHold"),
    }
}
