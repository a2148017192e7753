//! Who calls, and what they may do.
//!
//! A caller shows a bearer token (`authorization: Bearer TOKEN`) or, on a connection with mutual
//! TLS, a certificate; a token counts before a certificate, and a wrong one is not made good by
//! it. The policy says which methods an identity may call, and which accounts and amounts it may
//! touch; what it does not say is denied. AllowedMethods are checked here, before the request is read;
//! accounts and amounts by the ledger, which knows them ([`crate::domain::authorization`]).

mod files;
mod policy;
mod tokens;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::SystemTime,
};

use http::{Extensions, HeaderValue};

pub use crate::auth::files::CredentialFiles;
use crate::{auth::policy::ledger_methods, domain::ids::Identity, lock};
pub use crate::{
    auth::{
        policy::{AllowedMethods, MethodsError, Permission, Policy},
        tokens::{Token, Tokens},
    },
    domain::authorization::{Caller, Grant},
};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where that is.
    pub address: Option<SocketAddr>,
    /// Who the certificate says it is, if one was shown: it has been verified.
    pub certificate_identity: Option<Identity>,
}

/// By what callers are known, and what they may do.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The tokens that are valid.
    pub tokens: Tokens,
    /// What each identity may do.
    pub policy: Policy,
}

/// Why a call is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No valid credential was sent.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The policy does not let the identity call this method.
    #[error("identity {identity:?} may not call {method}")]
    MethodDenied {
        /// Of the caller.
        identity: Identity,
        /// `AccountService/Deposit`
        method: String,
    },
}

/// Tells who calls, and whether they may.
#[derive(Debug)]
pub struct Authenticator {
    /// None: nobody is asked, and everyone may do everything.
    credentials: Option<RwLock<Arc<Credentials>>>,
    /// Services that everyone may call, by their full names.
    public: Vec<&'static str>,
}

impl Authenticator {
    /// Asks for these credentials, or, without them, nobody for any. Everyone may call the
    /// services in `public`.
    #[must_use]
    pub fn new(credentials: Option<Credentials>, public: Vec<&'static str>) -> Self {
        let credentials = credentials.map(|credentials| RwLock::new(Arc::new(credentials)));
        Self { credentials, public }
    }

    /// From now on these credentials count, for calls that are not yet under way. Does nothing if
    /// nobody is asked for any.
    pub fn replace(&self, credentials: Credentials) {
        if let Some(current) = &self.credentials {
            *lock::write(current) = Arc::new(credentials);
        }
    }

    /// The names under which callers' requests are recorded.
    #[must_use]
    pub fn recorded_names(&self) -> BTreeSet<Identity> {
        let Some(credentials) = &self.credentials else {
            return BTreeSet::from([Identity::anonymous()]);
        };
        let credentials = lock::read(credentials).clone();
        credentials.policy.recorded_names().cloned().collect()
    }

    /// Who makes this call, if they may.
    pub fn admit(
        &self,
        path: &str,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Caller, AuthError> {
        let Some(credentials) = &self.credentials else { return Ok(Caller::unrestricted("")) };
        let credentials = lock::read(credentials).clone();
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        if self.public.contains(&service) {
            return Ok(nobody());
        }
        let identity = credentials.identity(peer, authorization)?;
        let permission = credentials.policy.of(&identity);
        let grant = match permission.filter(|it| it.methods.contain(service, method)) {
            Some(permission) => permission.grant.clone(),
            // Reflection or health, or nothing that exists: then it is answered with UNIMPLEMENTED.
            None if !ledger_methods().any(|it| it.service == service && it.name == method) => {
                Arc::default()
            }
            None => {
                let method = path.trim_start_matches("/passbook.v1.").to_owned();
                return Err(AuthError::MethodDenied { identity, method });
            }
        };
        let recorded_as = permission.and_then(|it| it.recorded_as.clone());
        let recorded_as = recorded_as.unwrap_or_else(|| identity.clone());
        Ok(Caller { identity, recorded_as, grant })
    }
}

impl Credentials {
    fn identity(
        &self,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Identity, AuthError> {
        if let Some(authorization) = authorization {
            let malformed = AuthError::Unauthenticated("authorization is not `Bearer TOKEN`");
            let invalid = AuthError::Unauthenticated("the token is unknown or has expired");
            let token = tokens::bearer(authorization).ok_or(malformed)?;
            return self.tokens.identity_of(token, SystemTime::now()).ok_or(invalid);
        }
        let missing = AuthError::Unauthenticated(
            "no credential: send `authorization: Bearer TOKEN` or a client certificate",
        );
        peer.and_then(|peer| peer.certificate_identity.clone()).ok_or(missing)
    }
}

/// Who makes the call with these extensions. Without the layer that says so it would be nobody,
/// who may do nothing.
pub fn caller(extensions: &Extensions) -> Caller {
    extensions.get().cloned().unwrap_or_else(nobody)
}

fn nobody() -> Caller {
    Caller {
        identity: Identity::anonymous(),
        recorded_as: Identity::anonymous(),
        grant: Arc::default(),
    }
}
