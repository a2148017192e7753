//! Bounds the memory of requests that are being received, and the time for which a call waits for the
//! rest of its only message.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use crate::{
    budget::Share,
    grpc::error,
    ledger::{Error, Outcome},
};

/// Bytes of one call that HTTP/2 keeps until the call reads them: flow control stops a client that
/// sends faster. Lower, and large messages over long distances are slow, because so many bytes
/// travel in each round trip.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// What HTTP/2 may keep of a stream that is not read: its window, and trailers.
const UNREAD_MAX: usize = 2 * STREAM_WINDOW as usize;
/// The prefix of a message: a byte that says whether it is compressed, and its length in four bytes.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const PREFIX_LENGTH: usize = 5;

/// The body of a request. Its headers and its incomplete message are charged to a share: a message
/// with the length in its prefix, as soon as the prefix has arrived. While a stream is not read, all
/// that HTTP/2 may keep for it is charged. A stream stays charged with its largest message, because
/// its buffer stays as large, or, after a compressed one, with the largest that there can be.
///
/// The only message of a call is not passed on before the request ends: tonic would decode it at once, and
/// wait for the end with what it has made of it, which may take a hundred times its bytes.
pub struct RequestBody {
    body: Body,
    header_size: usize,
    /// When the request must be complete. None for a stream, which may wait for its client.
    receive_until: Option<Instant>,
    /// Created when the body first waits. Most bodies never wait.
    timer: Option<Pin<Box<Sleep>>>,
    message: MessageProgress,
    /// The last frame of the only message, until the request ends.
    held: Option<Frame<Bytes>>,
    /// A message whose prefix has a greater length is rejected before it is received.
    message_size_max: usize,
    share: Share,
}
/// How much of the current message has arrived.
struct MessageProgress {
    prefix: [u8; PREFIX_LENGTH],
    received: usize,
    /// The length of the message with its prefix; that of the prefix until the prefix is complete.
    total: usize,
    /// The length of the largest message of the body so far, without its prefix.
    largest: usize,
    /// Whether a message of the body was compressed.
    is_compressed: bool,
    /// Whether a message of the body is complete.
    has_message: bool,
}

impl Default for MessageProgress {
    fn default() -> Self {
        let prefix = [0; PREFIX_LENGTH];
        let (total, is_compressed, has_message) = (PREFIX_LENGTH, false, false);
        Self { prefix, received: 0, total, largest: 0, is_compressed, has_message }
    }
}

impl MessageProgress {
    /// Counts bytes that have arrived.
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.received < PREFIX_LENGTH {
                self.prefix[self.received] = bytes[0];
                self.received += 1;
                bytes = &bytes[1..];
                if self.received == PREFIX_LENGTH {
                    let [flag, a, b, c, d] = self.prefix;
                    self.is_compressed |= flag != 0;
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.total = PREFIX_LENGTH.saturating_add(length);
                    self.largest = self.largest.max(length);
                }
            } else {
                let taken = bytes.len().min(self.total - self.received);
                self.received += taken;
                bytes = &bytes[taken..];
            }
            if self.received == self.total && self.received >= PREFIX_LENGTH {
                (self.received, self.total) = (0, PREFIX_LENGTH);
                self.has_message = true;
            }
        }
    }

    /// The length of the message that is incomplete.
    fn incomplete(&self) -> usize {
        if self.received < PREFIX_LENGTH { self.received } else { self.total }
    }
}

impl RequestBody {
    /// Wraps a body. Messages have at most `message_size_max` bytes.
    pub fn wrap(
        body: Body,
        header_size: usize,
        message_size_max: usize,
        receive_until: Option<Instant>,
        share: Share,
    ) -> Body {
        // Most requests are complete when they arrive, and small: they are never charged.
        let message = MessageProgress::default();
        Body::new(Self {
            body,
            header_size,
            receive_until,
            timer: None,
            message,
            held: None,
            message_size_max,
            share,
        })
    }

    /// Charges the headers, and the incomplete message or what a stream's buffer keeps. `unread` is what
    /// HTTP/2 may keep beside them.
    fn charge(&mut self, unread: usize) -> Result<(), Status> {
        let buffered = match self.receive_until {
            Some(_) if self.held.is_some() => PREFIX_LENGTH + self.message.largest,
            Some(_) => self.message.incomplete(),
            // However short the compressed message is.
            None if self.message.is_compressed => self.message_size_max,
            None => self.message.incomplete().max(self.message.largest),
        };
        let bytes = self.header_size + buffered.min(self.message_size_max).max(unread);
        let charged = self.share.resize_bytes(bytes);
        charged.map_err(|exhausted| error::overloaded(exhausted, Some(Outcome::NotApplied)).into())
    }

    /// The body waits: its headers stay in memory, for a time that is bounded.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Err(status) = self.charge(0) {
            return Poll::Ready(Some(Err(status)));
        }
        let Some(receive_until) = self.receive_until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(receive_until)));
        let late = || Error::DeadlineExceeded(Some(Outcome::NotApplied));
        timer.as_mut().poll(context).map(|()| Some(Err(Status::from(late()))))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return this.wait(context),
                Poll::Ready(Some(Ok(frame))) => frame,
                // What is held is the end.
                Poll::Ready(None) => return Poll::Ready(this.held.take().map(Ok)),
                failed @ Poll::Ready(Some(Err(_))) => return failed,
            };
            let Some(data) = frame.data_ref() else {
                // Trailers of a request have no meaning, but they end it.
                return Poll::Ready(Some(Ok(this.held.take().unwrap_or(frame))));
            };
            this.message.advance(data);
            if this.message.largest > this.message_size_max {
                let status = too_large(this.message.largest, this.message_size_max);
                return Poll::Ready(Some(Err(status)));
            }
            // A unary call reads on. A stream may wait for its turn, while its client sends.
            let (is_stream, is_end) = (this.receive_until.is_none(), this.body.is_end_stream());
            let unread = if is_stream && !is_end { UNREAD_MAX } else { 0 };
            if is_stream || is_end || !this.message.has_message {
                // An empty frame may end the request.
                let frame = this.held.take().unwrap_or(frame);
                return Poll::Ready(Some(this.charge(unread).map(|()| frame)));
            }
            // What comes behind the only message has no meaning.
            this.held.get_or_insert(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// The error for a message that is too large. In a stream, earlier messages get their results; the
/// rest of the frame is dropped.
fn too_large(length: usize, max: usize) -> Status {
    let message = format!(
        "the message has {length} bytes; at most {max} are allowed: send less at a time, e.g. fewer \
         requests in a batch"
    );
    error::request_too_large("message_size_max", max as u32, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::{
        budget::{Budget, Limit, Maxima, SMALL_BYTES_MAX},
        domain::ids::Identity,
    };

    #[test]
    fn a_message_counts_until_it_is_complete_however_it_is_cut() {
        let message = |length: usize| {
            let mut bytes = vec![0];
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend(vec![7; length]);
            bytes
        };
        let all = [message(3), message(0), message(10), message(300)].concat();
        for chunk_size in 1..all.len() {
            let mut progress = MessageProgress::default();
            let mut at = 0;
            for bytes in all.chunks(chunk_size) {
                at += bytes.len();
                // The bounds of the four messages.
                let bounds = [(0, 8), (8, 13), (13, 28), (28, 333), (333, 333)];
                let (begin, end) = bounds.into_iter().rfind(|(begin, _)| *begin <= at).unwrap();
                let is_announced = at - begin >= PREFIX_LENGTH;
                let needs = if is_announced { end - begin } else { at - begin };
                progress.advance(bytes);
                assert_eq!(progress.incomplete(), needs, "{chunk_size} bytes at a time, {at}");
            }
            assert_eq!(progress.largest, 300);
        }
    }

    fn budget_of(bytes: usize) -> Arc<Budget> {
        let maxima = Maxima { server: bytes, identity: bytes, anonymous: 0, connection: bytes };
        Budget::new(Limit::RequestBytes, maxima)
    }

    /// The message is cut in two. It has a multiple of what is free.
    #[tokio::test]
    async fn the_only_message_is_passed_on_when_the_request_ends() {
        let length = 4 * SMALL_BYTES_MAX;
        let [a, b, c, d] = (length as u32).to_be_bytes();
        let message = [&[0, a, b, c, d][..], &vec![7; length]].concat();
        let data = |bytes: &[u8]| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(bytes)));
        for beyond in [&[][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 7]] {
            let budget = budget_of(1024 * 1024);
            let share = budget.share(Identity::from_stored("mallory"), None);
            let (sender, frames) = tokio::sync::mpsc::channel(9);
            let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
            let late = Some(Instant::now() + std::time::Duration::from_secs(60));
            let body = Body::new(StreamBody::new(frames));
            let mut body = RequestBody::wrap(body, 100, 1024 * 1024, late, share);

            sender.send(data(&message[..99])).await.unwrap();
            let begin = body.frame().await.unwrap().unwrap().into_data().expect("data");
            sender.send(data(&message[99..])).await.unwrap();
            assert!(body.frame().now_or_never().is_none(), "the request has not ended");
            assert_eq!(budget.used(), message.len() + 100, "it is charged meanwhile");
            for bytes in [beyond, beyond] {
                sender.send(data(bytes)).await.unwrap();
                assert!(body.frame().now_or_never().is_none() && !body.is_end_stream());
            }
            drop(sender);
            let end = body.frame().await.unwrap().unwrap().into_data().expect("data");
            assert_eq!([begin, end].concat(), message);
            assert!(body.frame().await.is_none());
        }
    }

    #[test]
    fn small_requests_are_free_and_others_are_charged_up_to_the_largest_that_is_received() {
        const MIB: usize = 1024 * 1024;
        let maxima =
            Maxima { server: 64 * MIB, identity: 32 * MIB, anonymous: 0, connection: usize::MAX };
        let budget = Budget::new(Limit::RequestBytes, maxima);
        let mut body = RequestBody {
            body: Body::empty(),
            header_size: 100,
            receive_until: None,
            timer: None,
            message: MessageProgress::default(),
            held: None,
            message_size_max: 20 * MIB,
            share: budget.share(Identity::from_stored("mallory"), None),
        };
        let announce = |body: &mut RequestBody, length: usize| {
            body.message = MessageProgress::default();
            let [a, b, c, d] = (length as u32).to_be_bytes();
            body.message.advance(&[0, a, b, c, d]);
            assert_eq!(body.message.incomplete(), length + PREFIX_LENGTH);
        };
        let small = SMALL_BYTES_MAX - 100 - PREFIX_LENGTH;
        announce(&mut body, small);
        assert!(body.charge(0).is_ok());
        assert_eq!(budget.used(), 0);
        announce(&mut body, small + 1);
        assert!(body.charge(0).is_ok());
        assert_eq!(budget.used(), SMALL_BYTES_MAX + 1, "the headers count");
        assert!(body.charge(UNREAD_MAX).is_ok());
        assert_eq!(budget.used(), UNREAD_MAX + 100, "a stream may send more meanwhile");
        announce(&mut body, MIB);
        body.message.advance(&vec![0; MIB]);
        assert_eq!(body.message.incomplete(), 0);
        assert!(body.charge(0).is_ok());
        assert_eq!(budget.used(), MIB + 100, "the buffer of a stream stays as large");
        body.receive_until = Some(Instant::now());
        assert!(body.charge(0).is_ok());
        assert_eq!(budget.used(), 0, "a unary call has no other message");
        body.receive_until = None;
        announce(&mut body, 50 * MIB);
        assert!(body.charge(0).is_ok(), "no more is received than 20 MiB");
        assert_eq!(budget.used(), 20 * MIB + 100);
        let mut other = budget.share(Identity::from_stored("mallory"), None);
        assert!(other.resize(12 * MIB).is_err());
        body.message = MessageProgress::default();
        assert!(body.charge(0).is_ok());
        assert!(other.resize(12 * MIB).is_ok());
        assert!(other.resize(0).is_ok());
        body.message.advance(&[1, 0, 0, 0, 1, 7]);
        assert!(body.charge(0).is_ok());
        assert_eq!(budget.used(), 20 * MIB + 100, "a message that is decompressed");
    }
}
