//! Bounds the memory of responses that their callers do not read, and the time for which they stay.
//!
//! hyper polls a body for more only when the peer's flow control has let it send what was there. So
//! a frame that was polled is unread until the body is polled again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Status, body::Body};

use crate::{
    budget::{Connection, Share, Unread},
    grpc::{error, middleware::telemetry::methods::MethodMetrics},
    ledger::Outcome,
};

/// A frame of at most this many bytes is not charged: the limits on calls bound small ones.
const SMALL_BYTES_MAX: usize = 4 * 1024;

type PolledFrame = Option<Result<Frame<Bytes>, Status>>;

pin_project! {
    /// The body of a response, with the shares of its call. The call is in flight until the body is
    /// sent.
    pub struct ResponseBody {
        #[pin]
        body: Body,
        // The frame of a unary response, encoded before the caller reads.
        first: Option<PolledFrame>,
        call: Share,
        bytes: Share,
        connection: Option<Arc<Connection>>,
        unread: Option<Unread>,
        // Of a change that was done when the response exceeds the budget.
        outcome: Outcome,
    }
}

impl ResponseBody {
    /// Wraps the body of a response to a call of `method`.
    pub fn wrap(
        response: Response<Body>,
        method: &MethodMetrics,
        call: Share,
        bytes: Share,
        connection: Option<Arc<Connection>>,
    ) -> Response<Body> {
        let outcome = if method.is_read { Outcome::NotApplied } else { Outcome::Unknown };
        response.map(|body| {
            let unread = connection.as_ref().map(Connection::unread);
            let mut body = Self { body, first: None, call, bytes, connection, unread, outcome };
            if method.is_unary {
                body.encode();
            }
            Body::new(body)
        })
    }

    /// Encodes the message of a unary response, so that it is charged although nobody reads it, and
    /// takes no more memory than its bytes.
    fn encode(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(&mut context) {
            self.first = Some(charge(polled, &mut self.bytes, self.outcome));
        }
    }
}

/// Charges what was polled. If there is no room for it, the response ends with an error instead.
fn charge(polled: PolledFrame, share: &mut Share, outcome: Outcome) -> PolledFrame {
    let frame = match polled {
        Some(Ok(frame)) => frame,
        other => return other,
    };
    let size = frame.data_ref().map_or(0, Bytes::len);
    let charged = share.resize(if size > SMALL_BYTES_MAX { size } else { 0 });
    Some(
        charged
            .map(|()| frame)
            .map_err(|exhausted| error::overloaded(exhausted, Some(outcome)).into_status()),
    )
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let polled = match this.first.take() {
            Some(first) => Poll::Ready(first),
            None => {
                *this.unread = None;
                let polled = this.body.poll_frame(context);
                polled.map(|polled| charge(polled, this.bytes, *this.outcome))
            }
        };
        if this.unread.is_none() && matches!(polled, Poll::Ready(Some(Ok(_)))) {
            *this.unread = this.connection.as_ref().map(Connection::unread);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.first {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
