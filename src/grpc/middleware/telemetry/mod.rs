//! Counts, times, traces and logs every call, whatever the layers further in do with it.
//!
//! A gRPC call ends with its status, which is in the trailers of the response, or in its headers if
//! the response has no body. So the body of the response is observed as well. A call that is dropped
//! before its status was canceled by its caller.

mod call;
pub mod methods;

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
    audit::AuditLog,
    auth::{AuthError, Authenticator},
    domain::authorization::Caller,
    grpc::middleware::telemetry::call::{CALL_ID_HEADER, Call, CallRecorder},
};

/// Records every call. Build it after metrics are installed.
#[derive(Clone)]
pub struct TelemetryLayer(Arc<CallRecorder>);

impl TelemetryLayer {
    /// A layer that logs unary calls longer than `slow_threshold` at WARN, and records denials in the
    /// audit log. Callers that `authenticator` identifies decide whether their calls are traced.
    #[must_use]
    pub fn new(
        slow_threshold: Duration,
        authenticator: Arc<Authenticator>,
        audit: Option<Arc<AuditLog>>,
    ) -> Self {
        Self(Arc::new(CallRecorder::new(slow_threshold, authenticator, audit)))
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = TelemetryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TelemetryService { recorder: self.0.clone(), inner }
    }
}

/// The service of a [`TelemetryLayer`].
#[derive(Clone)]
pub struct TelemetryService<S> {
    recorder: Arc<CallRecorder>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for TelemetryService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<TelemetryBody<R>>;
    type Error = S::Error;
    type Future = TelemetryFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = self.recorder.begin(&mut request);
        let responding = call.run(|| self.inner.call(request));
        TelemetryFuture { responding, call: Some(call) }
    }
}

pin_project! {
    /// A call before its response.
    pub struct TelemetryFuture<F> {
        #[pin]
        responding: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for TelemetryFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<TelemetryBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let responding = this.responding;
        let polled = match this.call {
            Some(call) => call.run(|| responding.poll(context)),
            None => responding.poll(context),
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
            let denied = response.extensions().get::<AuthError>();
            call.has_rights = !matches!(denied, Some(AuthError::NoMethodAllowed { .. }));
            let name = HeaderName::from_static(CALL_ID_HEADER);
            response.headers_mut().insert(name, call.fields.call_id.clone());
            if let Some(code) = code_of(response.headers()) {
                call.end(code);
            } else if response.status().is_client_error() {
                // No gRPC call: the fault of who sent it.
                call.end(Code::InvalidArgument);
            } else if response.status() != StatusCode::OK {
                call.end(Code::Unknown);
            }
        }
        Poll::Ready(Ok(response.map(|body| TelemetryBody { body, call })))
    }
}

pin_project! {
    /// The body of a response, which ends the call with its trailers.
    pub struct TelemetryBody<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

impl<B: Body<Data = Bytes>> Body for TelemetryBody<B> {
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
            // tonic ends no call in these ways.
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
    /// Runs a step of the call. What the step logs, and the spans that it begins, belong to the call.
    fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        let _trace = self.trace.enter();
        let _fields = self.fields.enter();
        step()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
