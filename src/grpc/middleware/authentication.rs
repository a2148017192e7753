//! The layer that asks every call who makes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::auth::{Authenticator, Peer};

/// Puts the [`Caller`](crate::domain::authorization::Caller) into the extensions of the request,
/// and of the response for the layers further out, or rejects the call.
#[derive(Clone)]
pub struct AuthenticationLayer(pub Arc<Authenticator>);

/// See [`AuthenticationLayer`].
#[derive(Clone)]
pub struct AuthenticationService<S> {
    authenticator: Arc<Authenticator>,
    inner: S,
}

impl<S> Layer<S> for AuthenticationLayer {
    type Service = AuthenticationService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthenticationService { authenticator: self.0.clone(), inner }
    }
}

impl<S, B> Service<Request<B>> for AuthenticationService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let authorization = request.headers().get(AUTHORIZATION);
        let admitted = self.authenticator.admit(request.uri().path(), peer, authorization);
        // Nobody further in needs it, and so nobody can log it.
        request.headers_mut().remove(AUTHORIZATION);
        match admitted {
            Err(error) => Box::pin(async move { Ok(Status::from(error).into_http()) }),
            Ok(caller) => {
                request.extensions_mut().insert(caller.clone());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut response = answer.await?;
                    response.extensions_mut().insert(caller);
                    Ok(response)
                })
            }
        }
    }
}
