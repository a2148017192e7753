//! What callers send, and what the server compares it with.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::SystemTime};

use http::HeaderValue;

use crate::{
    auth::{
        jwt::{JwtError, JwtIssuer},
        policy::Policy,
        principal::Principal,
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
    /// Who it proves the caller to be until it expires, or why it is not the certificate of a caller.
    pub principal: Result<Principal, &'static str>,
    /// Its SHA-256 fingerprint.
    pub sha256: [u8; 32],
}

/// The valid tokens, and the policy.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The valid tokens.
    pub tokens: Tokens,
    /// The permissions of identities and groups.
    pub policy: Policy,
}

/// Why a call is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The call has no valid credential.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The policy does not let the identity call this method.
    #[error("identity {identity:?} may not call {method}")]
    MethodDenied {
        /// The caller's identity.
        identity: Identity,
        /// `AccountService/Deposit`
        method: String,
    },
    /// The policy does not let the identity call any method.
    #[error("identity {identity:?} may not call any method")]
    NoMethodAllowed {
        /// The caller's identity.
        identity: Identity,
    },
}

/// Why a caller has no identity. The text says nothing that the caller has sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// Neither a token nor a certificate.
    #[error("no credential: send `authorization: Bearer TOKEN` or a client certificate")]
    NoCredential,
    /// Another scheme, or no token behind it.
    #[error("authorization is not `Bearer TOKEN`")]
    NoBearerToken,
    /// Which one counts would be a guess.
    #[error("the call has more than one `authorization`")]
    SeveralAuthorizations,
    /// No valid token of the file, and no JWT.
    #[error("the token is unknown or has expired")]
    UnknownToken,
    /// A certificate that is not one of a caller, or that has expired.
    #[error("{0}")]
    Certificate(&'static str),
    /// An invalid JWT.
    #[error(transparent)]
    Jwt(#[from] JwtError),
}

impl Unauthenticated {
    /// The label of metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::NoBearerToken => "no_bearer_token",
            Self::SeveralAuthorizations => "several_authorizations",
            Self::UnknownToken => "unknown_token",
            Self::Certificate(_) => "certificate",
            Self::Jwt(error) => error.reason(),
        }
    }
}

impl AuthError {
    /// The caller, without any right, if the caller was identified.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        match self {
            Self::Unauthenticated(_) => None,
            Self::MethodDenied { identity, .. } | Self::NoMethodAllowed { identity } => {
                Some(Caller {
                    identity: identity.clone(),
                    recorded_as: identity.clone(),
                    grant: Arc::default(),
                    expire_time: None,
                })
            }
        }
    }
}

impl PeerCertificate {
    fn principal_at(&self, now: SystemTime) -> Result<Principal, Unauthenticated> {
        let principal = self.principal.clone().map_err(Unauthenticated::Certificate)?;
        match principal.expire_time {
            Some(expire_time) if expire_time <= now => {
                Err(Unauthenticated::Certificate("the client certificate has expired"))
            }
            _ => Ok(principal),
        }
    }
}

impl Credentials {
    /// The principal of a caller, by its token, or else by its certificate. What is no known token
    /// can be a JWT of the issuer.
    ///
    /// # Errors
    /// The certificate is not one of a caller or has expired, the token is malformed, unknown or
    /// expired, or the call has no credential at all.
    pub fn principal(
        &self,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
        issuer: Option<&JwtIssuer>,
    ) -> Result<Principal, Unauthenticated> {
        let now = SystemTime::now();
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let by_certificate = certificate.map(|it| it.principal_at(now)).transpose()?;
        let Some(authorization) = authorization else {
            return by_certificate.ok_or(Unauthenticated::NoCredential);
        };
        let text = tokens::bearer(authorization).ok_or(Unauthenticated::NoBearerToken)?;
        if let Some(token) = self.tokens.find(text, now) {
            let (identity, expire_time) = (token.identity.clone(), token.expire_time);
            return Ok(Principal { identity, groups: Arc::default(), expire_time });
        }
        match issuer {
            Some(issuer) if text.matches('.').count() == 2 => Ok(issuer.verify(text, now)?),
            _ => Err(Unauthenticated::UnknownToken),
        }
    }

    /// The identities of these credentials that callers do not have with the others, or with which
    /// they may then do nothing.
    pub(super) fn identities_missing_in(&self, others: &Self) -> BTreeSet<Identity> {
        let with_token = |of: &Self| of.tokens.0.iter().map(|it| it.identity.clone()).collect();
        let (mut missing, kept): (BTreeSet<_>, BTreeSet<_>) =
            (with_token(self), with_token(others));
        missing.retain(|identity| !kept.contains(identity));
        let of_policy = self.policy.identities.keys();
        let of_policy = of_policy.filter(|it| !others.policy.identities.contains_key(it));
        missing.extend(of_policy.cloned());
        missing.extend(others.policy.identities_without_methods().cloned());
        missing
    }
}
