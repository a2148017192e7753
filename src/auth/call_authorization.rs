//! Authorizes a call again after its headers: credentials change and expire.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderValue, Uri};

use crate::{
    auth::{
        authenticator::Authenticator,
        credentials::{AuthError, Peer},
    },
    domain::authorization::Caller,
};

/// The credential of a call, with the rights that it has now. Has no `Debug`, because it has the
/// token.
#[derive(Clone)]
pub struct CallAuthorization {
    authenticator: Arc<Authenticator>,
    uri: Uri,
    peer: Option<Peer>,
    authorization: Option<HeaderValue>,
    /// As of `version`.
    caller: Caller,
    /// The version of the credentials by which the caller was authorized last.
    version: u64,
}

impl CallAuthorization {
    /// Authorizes a call that begins.
    ///
    /// # Errors
    /// See [`Authenticator::authorize`].
    pub fn begin(
        authenticator: Arc<Authenticator>,
        uri: Uri,
        peer: Option<Peer>,
        authorization: Option<HeaderValue>,
    ) -> Result<Self, AuthError> {
        let version = authenticator.version();
        let caller = authenticator.authorize(uri.path(), peer.as_ref(), authorization.as_ref())?;
        Ok(Self { authenticator, uri, peer, authorization, caller, version })
    }

    /// The caller, with the rights that are in force now. Costs little while nothing has changed.
    ///
    /// # Errors
    /// The credential is no longer valid, or the policy now denies the method.
    pub fn caller(&mut self) -> Result<&Caller, AuthError> {
        let version = self.authenticator.version();
        let is_expired = self.caller.expire_time.is_some_and(|time| time <= SystemTime::now());
        if is_expired || version != self.version {
            let (peer, authorization) = (self.peer.as_ref(), self.authorization.as_ref());
            self.caller = self.authenticator.authorize(self.uri.path(), peer, authorization)?;
            self.version = version;
        }
        Ok(&self.caller)
    }
}
