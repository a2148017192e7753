//! Bounds the memory of messages that have arrived in part, and the time for which a unary call
//! waits for the rest of its message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::counter;
use tokio::time::{Sleep, sleep_until};
use tonic::{Status, body::Body};

use crate::{
    auth,
    grpc::{
        error,
        middleware::{
            deadline::Deadline,
            identity_budget::{Exhausted, IdentityBudget, Reservation},
            telemetry::METRICS_BY_METHOD,
        },
    },
    ledger::{Error, Outcome},
};

/// Bytes of all incomplete messages together: far above what honest callers send at a time, far
/// below what would exhaust the memory.
const BUFFERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the incomplete messages of one identity: half is left to the others.
const IDENTITY_BUFFERED_BYTES_MAX: usize = BUFFERED_BYTES_MAX / 2;
/// A message of at most so many bytes is not charged: the limits on calls bound these, and large
/// messages of others never shed a deposit.
const SMALL_BYTES_MAX: usize = 4 * 1024;
/// The name of the limit in errors and metrics.
const LIMIT: &str = "buffered_bytes";
/// What RetryInfo advises after a message that was one too many.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Before each message: whether it is compressed, and its length in four bytes.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
const PREFIX_LENGTH: usize = 5;

/// The budget for incomplete messages. A message is charged with the length that it announces, when
/// its first bytes arrive.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    bytes: Arc<IdentityBudget>,
    /// A message that announces more is rejected, not received.
    message_size_max: usize,
}

impl BodyBudget {
    /// A budget for messages of at most this many bytes each.
    #[must_use]
    pub fn new(message_size_max: usize) -> Self {
        let bytes = IdentityBudget::new(BUFFERED_BYTES_MAX, IDENTITY_BUFFERED_BYTES_MAX);
        Self { bytes, message_size_max }
    }

    /// Charges the incomplete messages of a request to the budget, and fails the body of a unary
    /// call at its deadline. Comes after [`crate::grpc::stamp`] and
    /// [`crate::grpc::AuthenticationLayer`].
    pub fn track(&self, request: Request<Body>) -> Request<Body> {
        let is_unary = METRICS_BY_METHOD.of(request.uri().path()).is_unary;
        let deadline = is_unary.then(|| Deadline::of(request.extensions()));
        let reservation = self.bytes.reservation(auth::caller(request.extensions()).identity);
        let message_size_max = self.message_size_max;
        request.map(|body| {
            let message = MessageProgress::default();
            let timer = None;
            Body::new(BudgetedBody {
                body,
                deadline,
                timer,
                message,
                message_size_max,
                reservation,
            })
        })
    }
}

struct BudgetedBody {
    body: Body,
    deadline: Option<Deadline>,
    /// Started when the body has to wait, which is seldom.
    timer: Option<Pin<Box<Sleep>>>,
    message: MessageProgress,
    message_size_max: usize,
    reservation: Reservation,
}

/// How much of a message has arrived.
struct MessageProgress {
    prefix: [u8; PREFIX_LENGTH],
    received: usize,
    /// With its prefix; a guess until that is there.
    is_whole_after: usize,
    /// The length of the largest message so far, without its prefix.
    largest: usize,
}

impl Default for MessageProgress {
    fn default() -> Self {
        let prefix = [0; PREFIX_LENGTH];
        Self { prefix, received: 0, is_whole_after: PREFIX_LENGTH, largest: 0 }
    }
}

impl MessageProgress {
    /// Counts bytes that have arrived. Returns the length of the message that is incomplete now.
    fn advance(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            if self.received < PREFIX_LENGTH {
                self.prefix[self.received] = bytes[0];
                self.received += 1;
                bytes = &bytes[1..];
                if self.received == PREFIX_LENGTH {
                    let [_, a, b, c, d] = self.prefix;
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.is_whole_after = PREFIX_LENGTH.saturating_add(length);
                    self.largest = self.largest.max(length);
                }
            } else {
                let taken = bytes.len().min(self.is_whole_after - self.received);
                self.received += taken;
                bytes = &bytes[taken..];
            }
            if self.received == self.is_whole_after && self.received >= PREFIX_LENGTH {
                (self.received, self.is_whole_after) = (0, PREFIX_LENGTH);
            }
        }
        if self.received < PREFIX_LENGTH { self.received } else { self.is_whole_after }
    }
}

impl BudgetedBody {
    fn charge(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let bytes = bytes.min(self.message_size_max);
        self.reservation.resize(if bytes > SMALL_BYTES_MAX { bytes } else { 0 })
    }
}

impl HttpBody for BudgetedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
                let bytes = this.message.advance(data);
                if this.message.largest > this.message_size_max {
                    let status = too_large(this.message.largest, this.message_size_max);
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(Some(this.charge(bytes).map(|()| frame).map_err(too_much)))
            }
            Poll::Pending => {
                let Some(deadline) = this.deadline else { return Poll::Pending };
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.at)));
                let late = || Error::DeadlineExceeded(Some(Outcome::NotApplied));
                timer.as_mut().poll(context).map(|()| Some(Err(Status::from(late()))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whatever came before in a stream is answered; this, and what came with it in one frame, is not
/// looked at.
fn too_large(length: usize, max: usize) -> Status {
    let message = format!(
        "the message has {length} bytes; at most {max} are allowed: send less at a time, e.g. fewer \
         requests in a batch"
    );
    error::request_too_large("message_size_max", max as u32, message)
}

fn too_much(exhausted: Exhausted) -> Status {
    let (Exhausted::Total(max) | Exhausted::Identity(max)) = exhausted;
    counter!("passbook_calls_shed_total", "limit" => LIMIT).increment(1);
    let message = "too many large messages are on their way in already".to_owned();
    error::call_shed(LIMIT, max as u32, message, RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Identity;

    #[test]
    fn a_message_counts_until_it_is_whole_however_it_is_cut() {
        let message = |length: usize| {
            let mut bytes = vec![0];
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend(vec![7; length]);
            bytes
        };
        let all = [message(3), message(0), message(10), message(300)].concat();
        for piece in 1..all.len() {
            let mut progress = MessageProgress::default();
            let mut at = 0;
            for bytes in all.chunks(piece) {
                at += bytes.len();
                // The four messages.
                let bounds = [(0, 8), (8, 13), (13, 28), (28, 333), (333, 333)];
                let (begin, end) = bounds.into_iter().rfind(|(begin, _)| *begin <= at).unwrap();
                let is_announced = at - begin >= PREFIX_LENGTH;
                let needs = if is_announced { end - begin } else { at - begin };
                assert_eq!(progress.advance(bytes), needs, "{piece} bytes at a time, {at}");
            }
            assert_eq!(progress.largest, 300);
        }
    }

    #[test]
    fn small_messages_are_free_and_others_are_charged_up_to_the_largest_that_is_received() {
        const MIB: usize = 1024 * 1024;
        let budget = BodyBudget::new(20 * MIB);
        let mut body = BudgetedBody {
            body: Body::empty(),
            deadline: None,
            timer: None,
            message: MessageProgress::default(),
            message_size_max: budget.message_size_max,
            reservation: budget.bytes.reservation(Identity::from_stored("mallory")),
        };
        let mut other = budget.bytes.reservation(Identity::from_stored("mallory"));
        assert_eq!(body.charge(SMALL_BYTES_MAX), Ok(()));
        assert_eq!(other.resize(IDENTITY_BUFFERED_BYTES_MAX), Ok(()), "a small message is free");
        assert_eq!(body.charge(MIB), Err(Exhausted::Identity(IDENTITY_BUFFERED_BYTES_MAX)));
        assert_eq!(other.resize(IDENTITY_BUFFERED_BYTES_MAX - 20 * MIB), Ok(()));
        assert_eq!(body.charge(50 * MIB), Ok(()), "no more is received than 20 MiB");
    }
}
