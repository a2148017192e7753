//! Rejects what is no gRPC call: another method than POST, another content type than gRPC with
//! protobuf, a malformed `grpc-timeout`. Attaches the deadline to all others.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    grpc::{
        error::invalid::Invalid,
        middleware::deadline::{self, DeadlinePolicy, MalformedTimeout, TIMEOUT_HEADER},
    },
    proto::ErrorReason,
};

/// Rejects what is no gRPC call with a status of HTTP, and a malformed deadline with INVALID_ARGUMENT:
/// the caller would wait longer, or less long, than it says. Attaches the deadline by this policy.
#[derive(Clone)]
pub struct FrontDoorLayer(pub DeadlinePolicy);

/// The service of a [`FrontDoorLayer`].
#[derive(Clone)]
pub struct FrontDoorService<S> {
    inner: S,
    deadlines: DeadlinePolicy,
}

impl<S> Layer<S> for FrontDoorLayer {
    type Service = FrontDoorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FrontDoorService { inner, deadlines: self.0 }
    }
}

impl<S, B> Service<Request<B>> for FrontDoorService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Self::Response, Self::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let response = if request.method() != Method::POST {
            with_status(StatusCode::METHOD_NOT_ALLOWED)
        } else if !is_grpc(&request) {
            with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        } else if let Err(MalformedTimeout) = deadline::attach(&mut request, self.deadlines) {
            let description = "must be digits and one of H, M, S, m, u and n, once";
            let reason = ErrorReason::InvalidMessage;
            Status::from(Invalid::new(reason, TIMEOUT_HEADER, description)).into_http()
        } else {
            return Either::Right(self.inner.call(request));
        };
        Either::Left(ready(Ok(response)))
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Whether the content type is gRPC's with protobuf:
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type =
        content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].contains(&media_type)
}
