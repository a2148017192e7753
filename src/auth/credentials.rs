//! What callers send, and what the server compares it with.

use std::{net::SocketAddr, time::SystemTime};

use http::HeaderValue;

use crate::{
    auth::{
        policy::Policy,
        tokens::{self, Tokens},
    },
    domain::ids::Identity,
};

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address and port. None if the operating system does not say.
    pub address: Option<SocketAddr>,
    /// The identity in the verified client certificate, if one was sent, or why it is not one of a
    /// caller.
    pub certificate: Option<Result<Identity, &'static str>>,
}

/// The valid tokens, and the policy.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The valid tokens.
    pub tokens: Tokens,
    /// The permissions of each identity.
    pub policy: Policy,
}

/// Why a call is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The call has no valid credential.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The policy does not let the identity call this method.
    #[error("identity {identity:?} may not call {method}")]
    MethodDenied {
        /// The caller's identity.
        identity: Identity,
        /// `AccountService/Deposit`
        method: String,
    },
}

impl Credentials {
    /// The identity of a caller, by its token, or else by its certificate.
    ///
    /// # Errors
    /// The certificate is not one of a caller, the token is malformed, unknown or expired, or the call
    /// has no credential at all.
    pub fn identity(
        &self,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Identity, AuthError> {
        let certificate = peer.and_then(|peer| peer.certificate.clone()).transpose();
        let certificate = certificate.map_err(AuthError::Unauthenticated)?;
        if let Some(authorization) = authorization {
            let malformed = AuthError::Unauthenticated("authorization is not `Bearer TOKEN`");
            let invalid = AuthError::Unauthenticated("the token is unknown or has expired");
            let token = tokens::bearer(authorization).ok_or(malformed)?;
            return self.tokens.identity_of(token, SystemTime::now()).ok_or(invalid);
        }
        certificate.ok_or(AuthError::Unauthenticated(
            "no credential: send `authorization: Bearer TOKEN` or a client certificate",
        ))
    }
}
