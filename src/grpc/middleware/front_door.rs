//! Rejects what is no gRPC call: another method than POST, another content type than gRPC with
//! protobuf.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::body::Body;
use tower::{Layer, Service};

/// Rejects what is no gRPC call with a status of HTTP.
#[derive(Clone)]
pub struct FrontDoorLayer;

/// The service of a [`FrontDoorLayer`].
#[derive(Clone)]
pub struct FrontDoorService<S>(S);

impl<S> Layer<S> for FrontDoorLayer {
    type Service = FrontDoorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FrontDoorService(inner)
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
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rejected = if request.method() != Method::POST {
            StatusCode::METHOD_NOT_ALLOWED
        } else if !is_grpc(&request) {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else {
            return Either::Right(self.0.call(request));
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = rejected;
        Either::Left(ready(Ok(response)))
    }
}

/// Whether the content type is gRPC's with protobuf:
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type =
        content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].contains(&media_type)
}
