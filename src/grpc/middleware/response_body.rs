//! Bounds the memory of responses that their callers do not read, and the time for which they stay.
//!
//! hyper polls a body when the peer's flow control allows it to send, and then buffers what it gets.
//! So a small frame is unread until the body is polled again. A large frame keeps its share itself:
//! it is unread until h2 has written it to the connection and drops it.
//!
//! A response for which there is no room is an error. A stream of results waits for room instead: it
//! can send its next results later. The messages of other streams take no room, but each waits until
//! the one before it is written: so a watcher has one unread message, and what others have unread does
//! not delay it.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};
use tonic::{Status, body::Body};

use crate::{
    budget::{BriefCall, Budget, Connection, OpenCall, SMALL_BYTES_MAX, Share, Unread},
    domain::ids::Identity,
    grpc::error,
    ledger::Outcome,
    proto::methods::Method,
};

/// The room that a stream of results waits for before its next message is encoded: more than its next
/// results have. A result is not lost because its caller has too much unread.
const RESULTS_BYTES_MAX: usize = 64 * 1024;
/// How often a stream of results looks for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(50);

type PolledFrame = Option<Result<Frame<Bytes>, Status>>;

pin_project! {
    /// The body of a response, with the share of its call. The call is in flight until the body is
    /// sent.
    pub struct ResponseBody {
        #[pin]
        body: Body,
        // The frames of a unary response, encoded before the caller reads.
        first: Option<PolledFrame>,
        last: Option<PolledFrame>,
        call: InFlight,
        recipient: Recipient,
        unread: Option<Unread>,
        pace: Pace,
        // Of a change that was done when the response exceeds the budget.
        outcome: Outcome,
        // Of a request of the call, for the error that a message is too large.
        message_size_max: u32,
    }
}

/// What the next frame of a response waits for.
enum Pace {
    /// Nothing: it is the only one.
    Unary,
    /// Room for results. With the timer of the wait.
    Room(Option<Pin<Box<Sleep>>>),
    /// That the frame before it is written to the connection. None: it is.
    Turn(Option<oneshot::Receiver<Infallible>>),
}

/// What a call has until its response is sent.
pub struct InFlight {
    pub _share: Share,
    /// On its connection.
    pub _open: Option<OpenCall>,
    /// Only of a control call of nobody that is no stream.
    pub _brief: Option<BriefCall>,
}

/// To whom a response is charged until it is read.
pub struct Recipient {
    /// The budget of bytes that are not read yet.
    pub budget: Arc<Budget>,
    pub identity: Identity,
    pub connection: Option<Arc<Connection>>,
}

/// The data of a frame that is not written to the connection yet.
struct UnwrittenBytes {
    bytes: Bytes,
    /// What the frame is charged to.
    _share: Option<Share>,
    _unread: Option<Unread>,
    /// Its other end learns that the frame is written, or that the connection has ended.
    _written: Option<oneshot::Sender<Infallible>>,
}

impl AsRef<[u8]> for UnwrittenBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Recipient {
    fn unread(&self) -> Option<Unread> {
        self.connection.as_ref().map(Connection::unread)
    }

    fn share(&self) -> Share {
        let connection = self.connection.as_ref().map(|it| it.id);
        self.budget.share(self.identity.clone(), connection)
    }

    /// Waits until there is room for the next results, and takes it.
    fn poll_room(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<Share> {
        let mut share = self.share();
        while !share.try_resize(RESULTS_BYTES_MAX) {
            let waiting = timer.get_or_insert_with(|| Box::pin(sleep(ROOM_INTERVAL)));
            ready!(waiting.as_mut().poll(context));
            *timer = None;
        }
        *timer = None;
        Poll::Ready(share)
    }

    /// Charges what was polled to the share. If there is no room for it, the response ends with an error
    /// instead.
    fn charge(&self, polled: PolledFrame, mut share: Share, outcome: Outcome) -> PolledFrame {
        let frame = match polled {
            Some(Ok(frame)) => frame,
            other => return other,
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        if size <= SMALL_BYTES_MAX {
            return Some(Ok(frame));
        }
        if let Err(exhausted) = share.resize(size) {
            return Some(Err(error::overloaded(exhausted, Some(outcome)).into()));
        }
        Some(Ok(self.unwritten(frame, Some(share), None)))
    }

    fn unwritten(
        &self,
        frame: Frame<Bytes>,
        share: Option<Share>,
        written: Option<oneshot::Sender<Infallible>>,
    ) -> Frame<Bytes> {
        let (_share, _unread, _written) = (share, self.unread(), written);
        frame.map_data(|bytes| {
            Bytes::from_owner(UnwrittenBytes { bytes, _share, _unread, _written })
        })
    }
}

/// An error, which a body cannot end with, as trailers. The trailers of an error have its reason.
fn ending_with_reason(frame: Result<Frame<Bytes>, Status>, message_size_max: u32) -> Frame<Bytes> {
    match frame {
        Err(status) => Frame::trailers(error::into_trailers(status)),
        Ok(frame) => match frame.into_trailers() {
            Ok(trailers) => {
                Frame::trailers(error::name_reason_in_trailers(trailers, message_size_max))
            }
            Err(frame) => frame,
        },
    }
}

impl ResponseBody {
    /// Wraps the body of a response to a call of `method`. None: of no method.
    pub fn wrap(
        response: Response<Body>,
        method: Option<&Method>,
        call: InFlight,
        recipient: Recipient,
        message_size_max: u32,
    ) -> Response<Body> {
        let is_read = method.is_none_or(Method::is_read);
        let outcome = if is_read { Outcome::NotApplied } else { Outcome::Unknown };
        let is_unary = method.is_some_and(Method::is_unary);
        response.map(|body| {
            let unread = recipient.unread();
            let pace = match (is_unary, method.is_none_or(Method::has_one_request)) {
                (true, _) => Pace::Unary,
                (false, true) => Pace::Turn(None),
                (false, false) => Pace::Room(None),
            };
            let mut body = Self {
                body,
                first: None,
                last: None,
                call,
                recipient,
                unread,
                pace,
                outcome,
                message_size_max,
            };
            // An error has no body: its headers end the stream. grpc-go takes an error whose
            // headers do not end it for a broken response.
            if is_unary && !body.body.is_end_stream() {
                body.encode();
            }
            Body::new(body)
        })
    }

    /// Encodes a unary response, so that it is charged although nobody reads it, and takes no more memory
    /// than its bytes. A body that is not ready is encoded when it is polled.
    fn encode(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(&mut context) else { return };
        let polled = polled.map(|frame| frame.map(without_spare_room));
        self.first = Some(self.recipient.charge(polled, self.recipient.share(), self.outcome));
        if let Poll::Ready(trailers) = Pin::new(&mut self.body).poll_frame(&mut context) {
            self.last = Some(trailers);
            // It keeps the buffer in which the message was not compressed yet.
            self.body = Body::empty();
        }
    }
}

/// A compressed message lies in a buffer that is as large as before it was compressed.
fn without_spare_room(frame: Frame<Bytes>) -> Frame<Bytes> {
    const IS_COMPRESSED: u8 = 1;
    frame.map_data(|data| match data.first() {
        Some(&IS_COMPRESSED) => Bytes::copy_from_slice(&data),
        _ => data,
    })
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let polled = match (this.first.take(), &mut *this.last) {
            (Some(first), _) => Poll::Ready(first),
            (None, last @ Some(_)) => {
                *this.unread = None;
                Poll::Ready(last.take().flatten())
            }
            (None, None) => {
                *this.unread = None;
                let (recipient, outcome) = (&*this.recipient, *this.outcome);
                Poll::Ready(match this.pace {
                    Pace::Unary => {
                        let polled = ready!(this.body.poll_frame(context));
                        recipient.charge(polled, recipient.share(), outcome)
                    }
                    Pace::Room(timer) => {
                        let share = ready!(recipient.poll_room(timer, context));
                        let polled = ready!(this.body.poll_frame(context));
                        recipient.charge(polled, share, outcome)
                    }
                    Pace::Turn(last) => {
                        if let Some(written) = last {
                            // It has no value, only an end.
                            let _ = ready!(Pin::new(written).poll(context));
                            *last = None;
                        }
                        match ready!(this.body.poll_frame(context)) {
                            Some(Ok(frame)) if frame.is_data() => {
                                let (sender, written) = oneshot::channel();
                                *last = Some(written);
                                Some(Ok(recipient.unwritten(frame, None, Some(sender))))
                            }
                            other => other,
                        }
                    }
                })
            }
        };
        let max = *this.message_size_max;
        let polled = polled.map(|polled| polled.map(|frame| Ok(ending_with_reason(frame, max))));
        if this.unread.is_none() && matches!(polled, Poll::Ready(Some(Ok(_)))) {
            *this.unread = this.recipient.unread();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, &self.last) {
            (None, None) => self.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use http::HeaderMap;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::{
        budget::{Limit, Maxima},
        proto::methods,
    };

    /// The only frame of a response, and what is charged for it.
    const SIZE: usize = 2 * SMALL_BYTES_MAX;

    fn response_of(method: &str, budget: &Arc<Budget>) -> Body {
        respond(method, budget, Body::new(Full::new(Bytes::from(vec![0; SIZE]))))
    }

    fn respond(method: &str, budget: &Arc<Budget>, body: Body) -> Body {
        let path = format!("/passbook.v1.AccountService/{method}");
        let identity = Identity::from_stored("");
        let call =
            InFlight { _share: budget.share(identity.clone(), None), _open: None, _brief: None };
        let recipient = Recipient { budget: budget.clone(), identity, connection: None };
        let method = methods::of_path(&path);
        ResponseBody::wrap(Response::new(body), method, call, recipient, 0).into_body()
    }

    #[tokio::test]
    async fn a_stream_of_results_waits_for_room_and_a_single_response_does_not() {
        let size = RESULTS_BYTES_MAX;
        let maxima = Maxima { server: size, identity: size, anonymous: size, connection: size };
        let budget = Budget::new(Limit::ResponseBytes, maxima);
        let mut others = budget.share(Identity::from_stored(""), None);
        others.resize(size).unwrap();
        let mut single = response_of("ListEntries", &budget);
        let mut results = response_of("StreamTransactions", &budget);

        let frame = single.frame().await.unwrap().expect("no reset of the stream");
        let trailers = frame.into_trailers().expect("trailers");
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
        assert!(!status.details().is_empty(), "an error that clients can read");
        assert!(results.frame().now_or_never().is_none());
        assert_eq!(budget.used(), size, "what waits has nothing");

        others.resize(0).unwrap();
        let frame = results.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), SIZE);
        drop(frame);
        assert_eq!(budget.used(), 0);
    }

    /// A body with a message, which knows when it is dropped.
    fn kept_body(message: Vec<u8>) -> (Body, Arc<()>) {
        let kept = Arc::new(());
        let held = kept.clone();
        let frames = [Frame::data(Bytes::from(message)), Frame::trailers(HeaderMap::new())];
        let frames = tokio_stream::iter(frames.map(Ok::<_, Status>));
        (Body::new(StreamBody::new(frames.inspect(move |_| drop(held.clone())))), kept)
    }

    #[tokio::test]
    async fn a_unary_response_that_is_not_read_keeps_nothing_but_its_bytes() {
        let maxima = Maxima { server: 9999, identity: 9999, anonymous: 9999, connection: 9999 };
        let budget = Budget::new(Limit::ResponseBytes, maxima);
        let (body, kept) = kept_body(vec![0; SIZE]);
        let mut response = respond("ListEntries", &budget, body);
        assert_eq!(Arc::strong_count(&kept), 1, "the body is dropped");
        assert_eq!(budget.used(), SIZE);
        assert!(!response.is_end_stream());
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().expect("data").len(), SIZE);
        assert!(!response.is_end_stream());
        assert!(response.frame().await.unwrap().unwrap().is_trailers());
        assert!(response.is_end_stream() && response.frame().await.is_none());
    }

    #[test]
    fn a_compressed_message_has_a_buffer_of_its_own_size() {
        for (flag, is_copied) in [(1, true), (0, false)] {
            let mut buffer = bytes::BytesMut::with_capacity(1024 * 1024);
            buffer.extend_from_slice(&[flag, 0, 0, 0, 1, 7]);
            let data = buffer.split().freeze();
            let (begin, frame) = (data.as_ptr(), without_spare_room(Frame::data(data)));
            let data = frame.into_data().expect("data");
            assert_eq!(data[..], [flag, 0, 0, 0, 1, 7]);
            assert_eq!(data.as_ptr() != begin, is_copied);
        }
    }

    #[tokio::test]
    async fn a_watcher_has_one_unread_message_whatever_others_have() {
        let maxima = Maxima { server: 0, identity: 0, anonymous: 0, connection: 0 };
        let budget = Budget::new(Limit::ResponseBytes, maxima);
        for size in [1, SIZE] {
            let frame = || Ok::<_, Status>(Frame::data(Bytes::from(vec![0; size])));
            let frames = StreamBody::new(tokio_stream::iter([frame(), frame(), frame()]));
            let mut watch = respond("WatchEntries", &budget, Body::new(frames));
            for _ in 0..3 {
                let frame = watch.frame().now_or_never().expect("no wait").unwrap();
                let frame = frame.unwrap().into_data().expect("data");
                assert_eq!(frame.len(), size);
                assert!(watch.frame().now_or_never().is_none(), "the one before is unread");
                let part = frame.slice(..1);
                drop(frame);
                assert!(watch.frame().now_or_never().is_none(), "a part of it is unread");
                drop(part);
            }
            assert!(watch.frame().now_or_never().expect("no wait").is_none(), "the end");
        }
    }
}
