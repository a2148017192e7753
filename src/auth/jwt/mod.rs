//! JSON Web Tokens (RFC 7519) of one issuer, verified with its public keys.

mod keys;
mod signatures;

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Validation,
    errors::{Error, ErrorKind},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

pub use crate::auth::jwt::keys::KeySet;
use crate::{
    auth::principal::Principal,
    domain::ids::{Identity, IdentityKind},
    lock,
};

/// How far the clocks of issuer and server may differ: a token is accepted for so long before its
/// `nbf` and after its `exp`.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(30);
/// The most groups of a token. Entra ID names 200, the most of the common providers.
const GROUPS_MAX: usize = 256;

/// What a JWT must say, and where it says who the caller is.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// `iss` must be this.
    pub issuer: String,
    /// `aud` must be this or contain it.
    pub audience: String,
    /// The claim with the identity.
    pub identity_claim: String,
    /// The claim with the groups. None: JWTs name no groups.
    pub groups_claim: Option<String>,
}

/// The issuer whose JWTs are accepted.
#[derive(Debug)]
pub struct JwtIssuer {
    settings: JwtSettings,
    /// Empty until the first keys are there: then no JWT is accepted.
    keys: RwLock<Arc<KeySet>>,
    /// Counts how often the keys were replaced.
    keys_version: AtomicU64,
    unknown_key: Notify,
}

/// Why a JWT is not accepted. The text says nothing that the token says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not decodable, or signed with an algorithm that is not accepted.
    #[error("the token is neither a known one nor a JWT that is signed with RS256, ES256 or EdDSA")]
    Malformed,
    /// `kid` is missing or unknown.
    #[error("the token's `kid` is of no key that the issuer has published")]
    UnknownKey,
    /// `alg` is not the algorithm of the key.
    #[error("the token's `alg` is not that of its key")]
    Algorithm,
    /// The signature is not that of the key.
    #[error("the token's signature is invalid")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` is another.
    #[error("the token is for another audience")]
    Audience,
    /// A claim that must be there is missing, or has a value that it cannot have.
    #[error("the token's claim {0:?} is missing or malformed")]
    Claim(String),
}

impl JwtIssuer {
    /// An issuer without keys.
    #[must_use]
    pub fn new(settings: JwtSettings) -> Self {
        signatures::install();
        Self {
            settings,
            keys: RwLock::default(),
            keys_version: AtomicU64::new(0),
            unknown_key: Notify::new(),
        }
    }

    /// Verifies tokens with these keys from now on, also those of streams that have begun.
    pub fn replace_keys(&self, keys: KeySet) {
        *lock::write(&self.keys) = Arc::new(keys);
        // After the keys: who sees the new version, sees these or later ones.
        self.keys_version.fetch_add(1, Ordering::Release);
    }

    /// Changes with the keys.
    pub(super) fn keys_version(&self) -> u64 {
        self.keys_version.load(Ordering::Acquire)
    }

    /// Waits for a token whose key is unknown. A token from before the call counts, once.
    pub async fn unknown_key_seen(&self) {
        self.unknown_key.notified().await;
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Principal, JwtError> {
        let keys = lock::read(&self.keys).clone();
        let sha256 = Sha256::digest(token.as_bytes()).into();
        let principal = match keys.verified(&sha256) {
            Some(principal) => principal,
            None => {
                let principal = self.verify_with(&keys, token)?;
                keys.remember(sha256, principal.clone(), now);
                principal
            }
        };
        match principal.expire_time {
            Some(expire_time) if now < expire_time => Ok(principal),
            _ => Err(JwtError::Expired),
        }
    }

    fn verify_with(&self, keys: &KeySet, token: &str) -> Result<Principal, JwtError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let Some(key) = header.kid.and_then(|id| keys.get(&id)) else {
            self.unknown_key.notify_one();
            return Err(JwtError::UnknownKey);
        };
        // The key says how tokens are verified, never the token: a token with HS256 would be
        // verified with the public key as its secret.
        if header.alg != key.algorithm {
            return Err(JwtError::Algorithm);
        }
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = CLOCK_DIFFERENCE_MAX.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        let claims: Map<String, Value> = jsonwebtoken::decode(token, &key.key, &validation)?.claims;
        // The library also accepts a list that contains the issuer.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.settings.issuer) {
            return Err(JwtError::Issuer);
        }
        self.principal(&claims)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, JwtError> {
        let malformed = |claim: &str| JwtError::Claim(claim.to_owned());
        let claim = &self.settings.identity_claim;
        let identity = claims.get(claim).and_then(Value::as_str);
        let identity = identity.and_then(|claimed| Identity::new(IdentityKind::Jwt, claimed).ok());
        let identity = identity.ok_or_else(|| malformed(claim))?;
        let groups = match &self.settings.groups_claim {
            None => Vec::new(),
            Some(claim) => {
                groups(claims.get(claim).unwrap_or(&Value::Null)).ok_or_else(|| malformed(claim))?
            }
        };
        let seconds = claims.get("exp").and_then(Value::as_f64);
        let since_epoch = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
        let expire_time = since_epoch.and_then(|it| UNIX_EPOCH.checked_add(it));
        let expire_time = expire_time.and_then(|it| it.checked_add(CLOCK_DIFFERENCE_MAX));
        let expire_time = Some(expire_time.ok_or_else(|| malformed("exp"))?);
        Ok(Principal { identity, groups: groups.into(), expire_time })
    }
}

/// The groups in a claim: a list of texts, a single text, or none. None of too many count: those that
/// are left out might be the ones with denials.
fn groups(claim: &Value) -> Option<Vec<String>> {
    match claim {
        Value::Null => Some(Vec::new()),
        Value::String(group) => Some(vec![group.clone()]),
        Value::Array(groups) if groups.len() <= GROUPS_MAX => {
            groups.iter().map(|group| group.as_str().map(str::to_owned)).collect()
        }
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

impl JwtError {
    /// The label of metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "jwt_malformed",
            Self::UnknownKey => "jwt_unknown_key",
            Self::Algorithm => "jwt_algorithm",
            Self::Signature => "jwt_signature",
            Self::Expired => "jwt_expired",
            Self::NotYetValid => "jwt_not_yet_valid",
            Self::Issuer => "jwt_issuer",
            Self::Audience => "jwt_audience",
            Self::Claim(_) => "jwt_claim",
        }
    }
}

impl From<Error> for JwtError {
    fn from(error: Error) -> Self {
        match error.into_kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
                Self::Claim(claim)
            }
            _ => Self::Malformed,
        }
    }
}
