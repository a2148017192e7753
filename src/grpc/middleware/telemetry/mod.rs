//! The outermost layer: every call is counted, timed, named by its `call_id`, traced, and at its
//! end written to the log, whatever the layers further in do with it.
//!
//! A gRPC call ends with its status, which is in the trailers of the answer, or in its headers if
//! there is nothing else; so the body of the answer is watched as well. Whoever is dropped before
//! was given up by its caller.

mod call;
mod methods;

pub use methods::METRICS_BY_METHOD;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::{
    domain::authorization::Caller,
    grpc::middleware::telemetry::call::{CALL_ID_HEADER, Call, Observer},
};

/// See the module. To be made after metrics are set up.
#[derive(Clone)]
pub struct ObserveLayer(Arc<Observer>);

impl ObserveLayer {
    /// Unary calls that take longer than `slow_threshold` are warned of.
    #[must_use]
    pub fn new(slow_threshold: Duration) -> Self {
        Self(Arc::new(Observer::new(slow_threshold)))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { observer: self.0.clone(), inner }
    }
}

/// See [`ObserveLayer`].
#[derive(Clone)]
pub struct Observed<S> {
    observer: Arc<Observer>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = ObservedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.observer.begin(&request);
        let answer = call.run(|| self.inner.call(request));
        ObservedFuture { answer, call: Some(call) }
    }
}

pin_project! {
    /// A call that has no answer yet.
    pub struct ObservedFuture<F> {
        #[pin]
        answer: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for ObservedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ObservedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = this.answer;
        let polled = match this.call {
            Some(call) => call.run(|| answer.poll(context)),
            None => answer.poll(context),
        };
        let result = ready!(polled);
        let mut call = this.call.take();
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                if let Some(call) = &mut call {
                    call.end(Code::Unknown);
                }
                return Poll::Ready(Err(error));
            }
        };
        if let Some(call) = &mut call {
            let caller = response.extensions().get::<Caller>().map(|it| it.identity.clone());
            call.identity = caller.filter(|identity| !identity.is_anonymous());
            let name = HeaderName::from_static(CALL_ID_HEADER);
            response.headers_mut().insert(name, call.names.call_id.clone());
            if let Some(code) = code_of(response.headers()) {
                call.end(code);
            } else if response.status() != StatusCode::OK {
                call.end(Code::Unknown);
            }
        }
        Poll::Ready(Ok(response.map(|body| ObservedBody { body, call })))
    }
}

pin_project! {
    /// An answer that is on its way.
    pub struct ObservedBody<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let body = this.body;
        let Some(call) = this.call else { return body.poll_frame(context) };
        let polled = call.run(|| body.poll_frame(context));
        let code = match &polled {
            Poll::Pending => None,
            Poll::Ready(Some(Ok(frame))) => frame.trailers_ref().and_then(code_of),
            // Neither is a way in which tonic ends a call.
            Poll::Ready(Some(Err(_)) | None) => Some(Code::Unknown),
        };
        if let Some(code) = code {
            call.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Call {
    /// Runs a step of the call: what it logs and begins belongs to it.
    fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        let _trace = self.trace.enter();
        let _names = self.names.enter();
        step()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
