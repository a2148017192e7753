//! Drains the request body that is left when a call was answered early.
//!
//! A call can be answered before its request was read: it was rejected, or its stream has ended.
//! The caller keeps sending until it receives the response. h2 counts the small frames of a body
//! that nothing reads against the whole connection, for the connection's whole life, and closes a
//! connection with too many: in the end, rejected calls would cut the calls that are served. So the
//! rest of the body is read and thrown away, for as long as a response may take to arrive.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Status, body::Body};

/// How long a body is drained: several round trips around the world. A longer time would serve
/// callers that never end their requests.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// Bodies that are drained at the same time. The rest of any other body stays unread.
const BODIES_MAX: usize = 1024;

/// Bounds the bodies that are drained at the same time.
#[derive(Clone)]
pub struct UnreadBodies(Arc<Semaphore>);

impl Default for UnreadBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_MAX)))
    }
}

impl UnreadBodies {
    /// Wraps the body of a request so that the rest of it is drained when the body is dropped.
    pub fn drain(&self, request: Request<Body>) -> Request<Body> {
        if request.body().is_end_stream() {
            return request;
        }
        request.map(|body| Body::new(DrainedBody { body: Some(body), unread_bodies: self.clone() }))
    }
}

struct DrainedBody {
    /// None after the end of the body.
    body: Option<Body>,
    unread_bodies: UnreadBodies,
}

impl HttpBody for DrainedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for DrainedBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let runtime = tokio::runtime::Handle::try_current();
        let permit = self.unread_bodies.0.clone().try_acquire_owned();
        if let (Ok(runtime), Ok(permit)) = (runtime, permit) {
            runtime.spawn(drain(body, permit));
        }
    }
}

async fn drain(mut body: Body, _permit: OwnedSemaphorePermit) {
    let to_the_end = async { while let Some(Ok(_)) = body.frame().await {} };
    // After the timeout the body is dropped, which resets the stream.
    let _ = timeout(DRAIN_TIME_MAX, to_the_end).await;
}
