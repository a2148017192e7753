//! Requests that are on their way in. A caller who sends a part of one and no more would keep its
//! call, and what was received of it, for ever.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
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
        middleware::{deadline::Deadline, telemetry::METRICS_BY_METHOD},
    },
    ledger::{Failure, Outcome},
    lock::lock,
};

/// What all messages that have not come to their ends may have in memory, in bytes: far above what
/// honest callers have under way, far below what hurts.
const UNFINISHED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same of one identity: half is left to the others.
const IDENTITY_UNFINISHED_BYTES_MAX: usize = UNFINISHED_BYTES_MAX / 2;
/// A message of so many bytes does not count: the limits on calls bound these, and a deposit is
/// never refused for what others send.
const SMALL_BYTES_MAX: usize = 4 * 1024;
/// The name of that in errors and metrics.
const LIMIT: &str = "unfinished_bytes";
/// After how long a call that was one too many is worth a new attempt.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Before each message: whether it is compressed, and its length in four bytes.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
const PREFIX_LENGTH: usize = 5;

/// The bytes of messages that have not come to their ends, of all calls together. A message counts
/// with the length that it announces: there is room made for that when its first bytes are there.
#[derive(Clone, Debug)]
pub struct Unfinished {
    taken: Arc<Mutex<Taken>>,
    /// One that announces more is refused, not received.
    message_size_max: usize,
}

/// In bytes.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of those that have any.
    of_identity: HashMap<Arc<str>, usize>,
}

impl Unfinished {
    /// There is none, and no message will be larger than this.
    #[must_use]
    pub fn new(message_size_max: usize) -> Self {
        Self { taken: Arc::default(), message_size_max }
    }
}

/// Has a request's messages counted as long as they are not whole, and, if it is only one, waited
/// for no longer than the call may take. After [`crate::grpc::stamp`], and after
/// [`crate::grpc::AuthenticationLayer`] has said whose they are.
pub fn receive(request: Request<Body>, unfinished: &Unfinished) -> Request<Body> {
    let is_unary = METRICS_BY_METHOD.of(request.uri().path()).is_unary;
    let deadline = is_unary.then(|| Deadline::of(request.extensions()));
    let identity = auth::caller(request.extensions()).identity;
    let share = Share { of: unfinished.clone(), identity, bytes: 0 };
    request.map(|body| {
        let message = MessageProgress::default();
        Body::new(Receiving { body, deadline, timer: None, message, share })
    })
}

struct Receiving {
    body: Body,
    deadline: Option<Deadline>,
    /// Made when there is something to wait for, which is seldom.
    timer: Option<Pin<Box<Sleep>>>,
    message: MessageProgress,
    share: Share,
}

/// How much of a message is there.
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

/// What one call has of all that is unfinished; given back with the call's body.
struct Share {
    of: Unfinished,
    identity: Arc<str>,
    bytes: usize,
}

impl MessageProgress {
    /// Takes in what has come; returns how much room is needed by a message that is not whole yet.
    fn take_in(&mut self, mut bytes: &[u8]) -> usize {
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

impl Share {
    /// From now on it is this much, if there may be so much; otherwise the most that there may be.
    fn set(&mut self, bytes: usize) -> Result<(), usize> {
        let bytes = bytes.min(self.of.message_size_max);
        let bytes = if bytes > SMALL_BYTES_MAX { bytes } else { 0 };
        if bytes == self.bytes {
            return Ok(());
        }
        let mut taken = lock(&self.of.taken);
        let others = taken.all - self.bytes;
        let own = taken.of_identity.get(&self.identity).map_or(0, |own| own - self.bytes);
        if others + bytes > UNFINISHED_BYTES_MAX {
            return Err(UNFINISHED_BYTES_MAX);
        }
        // Without authentication all are nobody, who has no share of their own.
        if own + bytes > IDENTITY_UNFINISHED_BYTES_MAX && !self.identity.is_empty() {
            return Err(IDENTITY_UNFINISHED_BYTES_MAX);
        }
        taken.all = others + bytes;
        if own + bytes == 0 {
            taken.of_identity.remove(&self.identity);
        } else {
            taken.of_identity.insert(self.identity.clone(), own + bytes);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nothing is always little enough.
        let _ = self.set(0);
    }
}

impl HttpBody for Receiving {
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
                let bytes = this.message.take_in(data);
                if this.message.largest > this.share.of.message_size_max {
                    let status = too_large(this.message.largest, this.share.of.message_size_max);
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(Some(this.share.set(bytes).map(|()| frame).map_err(too_much)))
            }
            Poll::Pending => {
                let Some(deadline) = this.deadline else { return Poll::Pending };
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.at)));
                let late = || Failure::DeadlineExceeded(Some(Outcome::NotApplied));
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

fn too_much(max: usize) -> Status {
    counter!("passbook_calls_shed_total", "limit" => LIMIT).increment(1);
    let message = "too many large messages are on their way in already".to_owned();
    error::of_limit(LIMIT, max as u32, message, RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                assert_eq!(progress.take_in(bytes), needs, "{piece} bytes at a time, {at}");
            }
            assert_eq!(progress.largest, 300);
        }
    }

    #[test]
    fn what_a_call_has_is_given_back_and_others_have_their_half() {
        const MIB: usize = 1024 * 1024;
        let unfinished = Unfinished::new(20 * MIB);
        let call =
            |identity: &str| Share { of: unfinished.clone(), identity: identity.into(), bytes: 0 };
        let mut first = call("mallory");
        assert_eq!(first.set(20 * MIB), Ok(()));
        let mut second = call("mallory");
        assert_eq!(second.set(13 * MIB), Err(32 * MIB));
        assert_eq!(second.set(12 * MIB), Ok(()));
        let mut alice = call("alice");
        // What is too large is not received.
        assert_eq!(alice.set(50 * MIB), Ok(()));
        let mut bob = call("bob");
        assert_eq!(bob.set(13 * MIB), Err(64 * MIB));
        assert_eq!(bob.set(SMALL_BYTES_MAX), Ok(()));
        first.set(0).unwrap();
        assert_eq!(bob.set(13 * MIB), Ok(()));
        drop((first, second, alice, bob));
        let taken = lock(&unfinished.taken);
        assert_eq!((taken.all, taken.of_identity.len()), (0, 0));
    }

    #[test]
    fn who_is_nobody_has_no_half() {
        let unfinished = Unfinished::new(usize::MAX);
        let mut share = Share { of: unfinished, identity: "".into(), bytes: 0 };
        assert_eq!(share.set(UNFINISHED_BYTES_MAX), Ok(()));
        assert_eq!(share.set(UNFINISHED_BYTES_MAX + 1), Err(UNFINISHED_BYTES_MAX));
    }
}
