//! Authenticates every call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, HeaderValue, Request, Response, header::AUTHORIZATION};
use metrics::counter;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    auth::{AuthError, Authenticator, CallAuthorization, Caller, Peer, Unauthenticated},
    grpc::error::StatusBuilder,
    ledger::Error,
};

/// Attaches the [`Caller`] and the [`CallAuthorization`] to the request, and the caller to the response
/// for the layers outside of this one; or denies the call, and attaches the [`AuthError`] to the
/// response as well.
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

impl<S> AuthenticationService<S> {
    fn authorize<B>(
        &self,
        request: &mut Request<B>,
        authorization: Option<HeaderValue>,
    ) -> Result<Caller, AuthError> {
        let (peer, uri) = (request.extensions().get::<Peer>().cloned(), request.uri().clone());
        let authenticator = self.authenticator.clone();
        let mut call = CallAuthorization::begin(authenticator, uri, peer, authorization)?;
        let caller = call.caller()?.clone();
        request.extensions_mut().insert(call);
        Ok(caller)
    }
}

/// The authorization of a call, for a stream, which asks again and again.
pub fn authorization(extensions: &Extensions) -> Result<CallAuthorization, Error> {
    // None would be a defect of the stack.
    let call = extensions.get::<CallAuthorization>();
    call.map(CallAuthorization::compact).ok_or(Error::Internal(None))
}

/// The caller of a call whose message has arrived, with the rights of this moment. The message may
/// have followed the headers long after them.
///
/// # Errors
/// The credential is no longer valid, or the policy now denies the method.
pub fn caller_now(extensions: &mut Extensions) -> Result<Caller, StatusBuilder> {
    match extensions.get_mut::<CallAuthorization>() {
        Some(call) => Ok(call.caller()?.clone()),
        // A defect of the stack.
        None => Err(Error::Internal(None).into()),
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
        let is_ambiguous = request.headers().get_all(AUTHORIZATION).iter().count() > 1;
        // Nothing further in reads the header, and what is not there cannot be logged.
        let authorization = request.headers_mut().remove(AUTHORIZATION);
        let authorized = if is_ambiguous {
            Err(Unauthenticated::SeveralAuthorizations.into())
        } else {
            self.authorize(&mut request, authorization)
        };
        match authorized {
            Err(error) => {
                if let AuthError::Unauthenticated(error) = &error {
                    let reason = error.reason();
                    counter!("passbook_unauthenticated_total", "reason" => reason).increment(1);
                }
                let caller = error.caller();
                let mut response = Status::from(error.clone()).into_http();
                response.extensions_mut().insert(error);
                if let Some(caller) = caller {
                    response.extensions_mut().insert(caller);
                }
                Box::pin(async move { Ok(response) })
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
