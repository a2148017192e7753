//! What callers send, and what the server compares it with.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::SystemTime};

use http::HeaderValue;

use crate::{
    auth::{
        policy::Policy,
        tokens::{self, Tokens},
    },
    budget::Connection,
    domain::{authorization::Caller, ids::Identity},
};

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address and port. None if the operating system does not say.
    pub address: Option<SocketAddr>,
    /// The verified client certificate, if one was sent.
    pub certificate: Option<PeerCertificate>,
    /// The connection.
    pub connection: Option<Arc<Connection>>,
}

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The identity that it proves, if it names one.
    pub identity: Option<Identity>,
    /// Its SHA-256 fingerprint.
    pub sha256: [u8; 32],
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

impl AuthError {
    /// The caller, without any right, if the caller was identified.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        match self {
            Self::Unauthenticated(_) => None,
            Self::MethodDenied { identity, .. } => Some(Caller {
                identity: identity.clone(),
                recorded_as: identity.clone(),
                grant: Arc::default(),
                expire_time: None,
            }),
        }
    }
}

impl Credentials {
    /// The identity of a caller, by its token, or else by its certificate, and when the token expires.
    ///
    /// # Errors
    /// The token is malformed, unknown or expired, or the call has no credential at all.
    pub fn identity(
        &self,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Identity, Option<SystemTime>), AuthError> {
        if let Some(authorization) = authorization {
            let malformed = AuthError::Unauthenticated("authorization is not `Bearer TOKEN`");
            let invalid = AuthError::Unauthenticated("the token is unknown or has expired");
            let token = tokens::bearer(authorization).ok_or(malformed)?;
            let token = self.tokens.find(token, SystemTime::now()).ok_or(invalid)?;
            return Ok((token.identity.clone(), token.expire_time));
        }
        let missing = AuthError::Unauthenticated(
            "no credential: send `authorization: Bearer TOKEN` or a client certificate",
        );
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let identity = certificate.and_then(|it| it.identity.clone()).ok_or(missing)?;
        Ok((identity, None))
    }

    /// The identities of these credentials that callers do not have with the others.
    pub(super) fn identities_missing_in(&self, others: &Self) -> BTreeSet<Identity> {
        let with_token = |of: &Self| of.tokens.0.iter().map(|it| it.identity.clone()).collect();
        let (mut missing, kept): (BTreeSet<_>, BTreeSet<_>) =
            (with_token(self), with_token(others));
        missing.retain(|identity| !kept.contains(identity));
        let of_policy = self.policy.0.keys().filter(|it| others.policy.of(it).is_none());
        missing.extend(of_policy.cloned());
        missing
    }
}
