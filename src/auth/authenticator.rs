//! Identifies the caller of each call, and checks that it may call the method.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Extensions, HeaderValue};

use crate::{
    auth::{
        credentials::{AuthError, Credentials, Peer},
        jwt::JwtIssuer,
        policy::ledger_methods,
        principal::Principal,
        recorded_names::RecordedNames,
    },
    domain::{authorization::Caller, ids::Identity},
    lock,
};

/// Authenticates callers and authorizes their methods.
#[derive(Debug)]
pub struct Authenticator {
    /// None: callers are not authenticated, and every caller may do everything.
    credentials: Option<RwLock<Arc<Credentials>>>,
    /// Under which names the callers of all policies so far were recorded.
    recorded_names: Mutex<RecordedNames>,
    /// The issuer whose JWTs are accepted, if there is one.
    issuer: Option<Arc<JwtIssuer>>,
    /// Counts how often the credentials were replaced.
    version: AtomicU64,
    /// The full names of services that need no credential.
    public: Vec<&'static str>,
}

impl Authenticator {
    /// An authenticator with these credentials. Without credentials, callers are not authenticated.
    /// JWTs of `issuer` are accepted, too. The services in `public` need no credential.
    #[must_use]
    pub fn new(
        credentials: Option<Credentials>,
        issuer: Option<Arc<JwtIssuer>>,
        public: Vec<&'static str>,
    ) -> Self {
        let mut recorded_names = RecordedNames::default();
        if let Some(credentials) = &credentials {
            recorded_names.note(&credentials.policy);
        }
        let credentials = credentials.map(|credentials| RwLock::new(Arc::new(credentials)));
        let recorded_names = Mutex::new(recorded_names);
        Self { credentials, recorded_names, issuer, version: AtomicU64::new(0), public }
    }

    /// Replaces the credentials, also for streams that have begun. Returns the identities that callers
    /// no longer have: without a method in the policy, or without any token where there was one. Does
    /// nothing if callers are not authenticated.
    pub fn replace(&self, credentials: Credentials) -> BTreeSet<Identity> {
        let Some(current) = &self.credentials else { return BTreeSet::new() };
        // Before the policy is in force: each name that a request can have is noted.
        lock::lock(&self.recorded_names).note(&credentials.policy);
        let credentials = Arc::new(credentials);
        let before = std::mem::replace(&mut *lock::write(current), credentials.clone());
        // After the credentials: who sees the new version, sees these or later ones.
        self.version.fetch_add(1, Ordering::Release);
        before.identities_missing_in(&credentials)
    }

    /// Checks that with these credentials, too, each caller is recorded under the name that it has had
    /// since the start. A repeat of an earlier request is found under this name only.
    ///
    /// # Errors
    /// An identity for which that is not so, in one line.
    pub fn check_names_kept(&self, next: &Credentials) -> Result<(), String> {
        lock::lock(&self.recorded_names).check_kept(&next.policy)
    }

    /// Changes with the credentials and with the keys for JWTs.
    pub(super) fn version(&self) -> u64 {
        let keys_version = self.issuer.as_ref().map_or(0, |issuer| issuer.keys_version());
        // Both only grow, so the sum grows with each of them.
        self.version.load(Ordering::Acquire) + keys_version
    }

    /// Whether a caller can have its requests recorded under this name.
    #[must_use]
    pub fn may_record_as(&self, name: &Identity) -> bool {
        let Some(credentials) = &self.credentials else { return name.is_anonymous() };
        let policy = &lock::read(credentials).policy;
        // The identities of a group's members are in no file.
        let is_member =
            name.is_known_by_jwt() && self.issuer.is_some() && !policy.groups.is_empty();
        is_member || policy.recorded_names().any(|recorded| recorded == name)
    }

    /// Whether these credentials prove an identity that may call any method. True if callers are not
    /// authenticated.
    #[must_use]
    pub fn identifies(&self, peer: Option<&Peer>, authorization: Option<&HeaderValue>) -> bool {
        let Some(credentials) = &self.credentials else { return true };
        let credentials = lock::read(credentials).clone();
        let principal = credentials.principal(peer, authorization, self.issuer.as_deref());
        principal.is_ok_and(|it| credentials.policy.allows_any_method(&it.identity, &it.groups))
    }

    /// Identifies the caller of a call, and checks that it may call the method at `path`.
    ///
    /// # Errors
    /// The caller has no valid credential, or the policy denies the method.
    pub fn authorize(
        &self,
        path: &str,
        peer: Option<&Peer>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Caller, AuthError> {
        let Some(credentials) = &self.credentials else { return Ok(Caller::unrestricted("")) };
        let credentials = lock::read(credentials).clone();
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        let principal = credentials.principal(peer, authorization, self.issuer.as_deref());
        if self.public.contains(&service) {
            // With a credential, the call counts among those of its identity.
            let known = principal
                .ok()
                .filter(|it| credentials.policy.allows_any_method(&it.identity, &it.groups));
            return Ok(known.map_or_else(anonymous_caller, |principal| Caller {
                recorded_as: credentials.policy.recorded_as(&principal.identity),
                identity: principal.identity,
                grant: Arc::default(),
                expire_time: principal.expire_time,
            }));
        }
        let Principal { identity, groups, expire_time } = principal?;
        let grant = match credentials.policy.grant(&identity, &groups, (service, method)) {
            Some(grant) => grant,
            // Not even reflection or health: the caller would take the places of those with rights.
            None if !credentials.policy.allows_any_method(&identity, &groups) => {
                return Err(AuthError::NoMethodAllowed { identity });
            }
            // Reflection, health, or no method at all, which gets UNIMPLEMENTED later.
            None if !ledger_methods().any(|it| it.service == service && it.name == method) => {
                Arc::default()
            }
            None => {
                let method = path.trim_start_matches("/passbook.v1.").to_owned();
                return Err(AuthError::MethodDenied { identity, method });
            }
        };
        let recorded_as = credentials.policy.recorded_as(&identity);
        Ok(Caller { identity, recorded_as, grant, expire_time })
    }
}

/// The caller that the authentication layer has attached. Without one, which would be a defect of
/// the stack, an anonymous caller that may do nothing.
pub fn caller(extensions: &Extensions) -> Caller {
    extensions.get().cloned().unwrap_or_else(anonymous_caller)
}

fn anonymous_caller() -> Caller {
    Caller {
        identity: Identity::anonymous(),
        recorded_as: Identity::anonymous(),
        grant: Arc::default(),
        expire_time: None,
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::auth::{
        policy::{AllowedMethods, Permission, Policy},
        tokens::{Token, Tokens},
    };

    #[test]
    fn an_identity_without_a_method_may_call_only_what_is_public() {
        let names = [("reader", &["read".to_owned()][..]), ("idle", &[])];
        let identities = names.map(|(name, methods)| {
            let methods = AllowedMethods::parse(methods).unwrap();
            let permission = Permission { methods, grant: Arc::default(), recorded_as: None };
            (Identity::from_stored(name), permission)
        });
        let policy = Policy { identities: identities.into(), ..Policy::default() };
        let tokens = ["reader", "idle", "unknown"].map(|name| Token {
            identity: Identity::from_stored(name),
            sha256: Sha256::digest(name).into(),
            expire_time: None,
        });
        let credentials = Credentials { tokens: Tokens(tokens.into()), policy };
        let authenticator = Authenticator::new(Some(credentials), None, vec!["public"]);
        let authorization = |name| HeaderValue::from_str(&format!("Bearer {name}")).unwrap();
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let get_account = "/passbook.v1.AccountService/GetAccount";
        for (name, has_rights) in [("reader", true), ("idle", false), ("unknown", false)] {
            let authorization = authorization(name);
            assert_eq!(authenticator.identifies(None, Some(&authorization)), has_rights, "{name}");
            let authorize = |path| authenticator.authorize(path, None, Some(&authorization));
            for path in [reflection, "/x/y", get_account] {
                let denied = authorize(path).err();
                let is_denied = matches!(denied, Some(AuthError::NoMethodAllowed { .. }));
                assert_eq!(
                    (denied.is_none(), is_denied),
                    (has_rights, !has_rights),
                    "{name} {path}"
                );
            }
            let caller = authorize("/public/any").unwrap();
            assert_eq!(caller.identity.as_str(), if has_rights { name } else { "" });
        }
    }
}
