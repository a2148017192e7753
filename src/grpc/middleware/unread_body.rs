//! What is left of a request when its answer is out.
//!
//! A call can be answered before its request was read: it was refused, or its stream has ended. Its
//! caller goes on sending until it hears of that. h2 counts the small frames that come for a body
//! nobody reads against the whole connection, for as long as it lives, and ends it when there were
//! too many: refusals would in the end cut the calls that are served. So what comes is read on, and
//! thrown away, for as long as news takes to get about.

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

/// How long a body is read on: some round trips around the world. Longer, those who never end their
/// requests would keep them for longer.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Bodies that are read on at the same time; of more, the rest is not read.
const BODIES_MAX: usize = 1024;

/// The bodies that are read on.
#[derive(Clone)]
pub struct Leftovers(Arc<Semaphore>);

impl Default for Leftovers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_MAX)))
    }
}

/// Has what is left of a request read and thrown away.
pub fn discard(request: Request<Body>, leftovers: &Leftovers) -> Request<Body> {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(Discarded { body: Some(body), leftovers: leftovers.clone() }))
}

struct Discarded {
    /// None when it has come to its end.
    body: Option<Body>,
    leftovers: Leftovers,
}

impl HttpBody for Discarded {
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

impl Drop for Discarded {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let runtime = tokio::runtime::Handle::try_current();
        let permit = self.leftovers.0.clone().try_acquire_owned();
        if let (Ok(runtime), Ok(permit)) = (runtime, permit) {
            runtime.spawn(read_on(body, permit));
        }
    }
}

async fn read_on(mut body: Body, _permit: OwnedSemaphorePermit) {
    let to_the_end = async { while let Some(Ok(_)) = body.frame().await {} };
    // What is not over by then is broken off.
    let _ = timeout(TIME_MAX, to_the_end).await;
}
