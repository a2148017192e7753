//! Authorizes a call again after its headers: credentials change and expire.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Uri};
use tokio::time::sleep;

use crate::{
    auth::{
        authenticator::Authenticator,
        credentials::{AuthError, Peer},
        tokens,
    },
    domain::authorization::Caller,
    proto::methods::ACCOUNT_SERVICE,
};

/// How often a stream that waits checks the rights of its caller again.
const AUTHORIZATION_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The caller with the rights of another method, as of `version`, or why it may not call that.
    by_method: HashMap<&'static str, Result<Caller, AuthError>>,
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
        let by_method = HashMap::new();
        Ok(Self { authenticator, uri, peer, authorization, caller, by_method, version })
    }

    /// A copy for a stream, which does not keep the memory of all headers of the call alive.
    #[must_use]
    pub fn compact(&self) -> Self {
        let copied = |value: &HeaderValue| {
            let token = tokens::bearer(value)?;
            HeaderValue::from_str(&format!("Bearer {token}")).ok()
        };
        let authorization = self.authorization.as_ref();
        Self {
            uri: self.uri.path().parse().unwrap_or_else(|_| self.uri.clone()),
            authorization: authorization.map(|it| copied(it).unwrap_or_else(|| it.clone())),
            ..self.clone()
        }
    }

    /// The caller, with the rights that are in force now. Costs little while nothing has changed.
    ///
    /// # Errors
    /// The credential is no longer valid, or the policy now denies the method.
    pub fn caller(&mut self) -> Result<&Caller, AuthError> {
        let version = self.authenticator.version();
        let is_expired = self.caller.expire_time.is_some_and(|time| time <= SystemTime::now());
        if is_expired || version != self.version {
            self.caller = self.authorize(self.uri.path())?;
            // The time of a token in the file may have changed.
            if let Some(connection) = self.peer.as_ref().and_then(|it| it.connection.as_ref())
                && !self.caller.identity.is_anonymous()
            {
                connection.note_credential(self.caller.expire_time);
            }
            self.by_method.clear();
            self.version = version;
        }
        Ok(&self.caller)
    }

    /// Waits until the caller may no longer call the method, or this check fails.
    pub async fn denied<E: From<AuthError>>(
        mut self,
        check: impl Fn(&Caller) -> Result<(), E>,
    ) -> E {
        loop {
            sleep(AUTHORIZATION_INTERVAL).await;
            match self.caller().map(&check) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(error) => return error.into(),
            }
        }
    }

    /// The caller with the rights that it has now with this method of AccountService.
    ///
    /// # Errors
    /// The credential is no longer valid, or the policy denies this method or that of the stream.
    pub fn caller_of(&mut self, method: &'static str) -> Result<Caller, AuthError> {
        self.caller()?;
        if let Some(known) = self.by_method.get(method) {
            return known.clone();
        }
        let caller = self.authorize(&format!("/{ACCOUNT_SERVICE}/{method}"));
        self.by_method.insert(method, caller.clone());
        caller
    }

    fn authorize(&self, path: &str) -> Result<Caller, AuthError> {
        let (peer, authorization) = (self.peer.as_ref(), self.authorization.as_ref());
        self.authenticator.authorize(path, peer, authorization)
    }
}
