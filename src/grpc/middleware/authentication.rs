//! Authenticates every call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use metrics::counter;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::auth::{AuthError, Authenticator, Peer};

/// Attaches the [`Caller`](crate::domain::authorization::Caller) to the request, and to the response
/// for the layers outside of this one; or denies the call.
#[derive(Clone)]
pub struct AuthenticationLayer(pub Arc<Authenticator>);

/// The service of an [`AuthenticationLayer`].
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
        let authorized = self.authenticator.authorize(request.uri().path(), peer, authorization);
        // Nothing further in needs the token, and what is not there cannot be logged.
        request.headers_mut().remove(AUTHORIZATION);
        match authorized {
            Err(error) => {
                if let AuthError::Unauthenticated(error) = &error {
                    let reason = error.reason();
                    counter!("passbook_unauthenticated_total", "reason" => reason).increment(1);
                }
                Box::pin(async move { Ok(Status::from(error).into_http()) })
            }
            Ok(caller) => {
                request.extensions_mut().insert(caller.clone());
                let responding = self.inner.call(request);
                Box::pin(async move {
                    let mut response = responding.await?;
                    response.extensions_mut().insert(caller);
                    Ok(response)
                })
            }
        }
    }
}
