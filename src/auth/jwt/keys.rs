//! The public keys of an issuer (JSON Web Key Set, RFC 7517), and the tokens that they have verified.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::RwLock,
    time::SystemTime,
};

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{auth::principal::Principal, lock};

/// Verified tokens that are kept. A caller has one token at a time.
const VERIFIED_MAX: usize = 4096;
/// The bytes of the groups of the verified tokens that are kept. The rest of each has some hundred bytes.
const VERIFIED_GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Verified tokens of one identity that are kept when there are too many of all. A program may get a
/// new token for each call: it must not cost the others the tokens that they use.
const VERIFIED_OF_IDENTITY_MAX: usize = 64;
/// The shortest modulus of RSA, in bytes.
const RSA_MODULUS_MIN: usize = 2048 / 8;

/// The keys of an issuer that verify tokens, by their ids.
#[derive(Default)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
    /// How many keys of the set cannot verify tokens.
    skipped: usize,
    /// The principals of tokens by the SHA-256 of the token. Verifying a signature takes up to 0.1 ms.
    verified: RwLock<Verified>,
}

#[derive(Default)]
struct Verified {
    principals: HashMap<[u8; 32], Principal>,
    group_bytes: usize,
}

/// A public key, and the one algorithm for which it is used.
pub struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// The keys are parsed one by one: those that this program does not know are skipped.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl KeySet {
    /// Parses a JSON Web Key Set. Keys that cannot verify RS256, ES256 or EdDSA, or that have no
    /// `kid`, are skipped. A set without keys is valid: the issuer has withdrawn them all.
    ///
    /// # Errors
    /// It is no key set, or two keys have one `kid`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let jwks: Jwks = serde_json::from_str(text)
            .map_err(|error| format!("is not a JSON Web Key Set: {error}"))?;
        let mut set = Self::default();
        for jwk in jwks.keys {
            match key(jwk) {
                None => set.skipped += 1,
                Some((id, key)) => {
                    if set.keys.insert(id.clone(), key).is_some() {
                        return Err(format!("two keys have the kid {id:?}"));
                    }
                }
            }
        }
        Ok(set)
    }

    /// Checks that not all of its keys were skipped, which is most likely a mistake in the settings.
    ///
    /// # Errors
    /// It has keys, and none can verify tokens.
    pub fn check_usable(&self) -> Result<(), String> {
        if self.skipped == 0 || !self.keys.is_empty() {
            return Ok(());
        }
        Err("has no key with a kid for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519)"
            .to_owned())
    }

    /// The ids of the keys that can verify tokens.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }

    /// The principal of a token that was verified before. The token may have expired since.
    pub(super) fn verified(&self, sha256: &[u8; 32]) -> Option<Principal> {
        lock::read(&self.verified).principals.get(sha256).cloned()
    }

    pub(super) fn remember(&self, sha256: [u8; 32], principal: Principal, now: SystemTime) {
        let mut verified = lock::write(&self.verified);
        if verified.is_full() {
            verified.retain(|principal| principal.expire_time.is_some_and(|it| now < it));
        }
        if verified.is_full() {
            let mut counts = HashMap::<_, usize>::new();
            for principal in verified.principals.values() {
                *counts.entry(principal.identity.clone()).or_default() += 1;
            }
            verified.retain(|principal| {
                counts.get(&principal.identity).is_none_or(|it| *it <= VERIFIED_OF_IDENTITY_MAX)
            });
        }
        if verified.is_full() {
            verified.retain(|_| false);
        }
        verified.group_bytes += group_bytes(&principal);
        let before = verified.principals.insert(sha256, principal);
        // Two calls may have verified one token at once.
        verified.group_bytes -= before.as_ref().map_or(0, group_bytes);
    }
}

impl Verified {
    fn is_full(&self) -> bool {
        self.principals.len() >= VERIFIED_MAX || self.group_bytes >= VERIFIED_GROUP_BYTES_MAX
    }

    fn retain(&mut self, is_kept: impl Fn(&Principal) -> bool) {
        self.principals.retain(|_, principal| is_kept(principal));
        self.group_bytes = self.principals.values().map(group_bytes).sum();
    }
}

/// The memory of the names of its groups, in bytes.
fn group_bytes(principal: &Principal) -> usize {
    principal.groups.iter().map(|name| size_of::<String>() + name.len()).sum()
}

/// The ids of the keys.
impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.ids()).finish()
    }
}

/// The key and its id. None if the key cannot verify tokens.
fn key(jwk: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let is_for_it = jwk.common.key_algorithm.is_none_or(|it| it == algorithm.into())
        && jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(|it| it.contains(&KeyOperations::Verify));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let is_long = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= RSA_MODULUS_MIN,
        DecodingKeyKind::SecretOrDer(_) => true,
    };
    (is_for_it && is_long).then_some((jwk.common.key_id?, Key { algorithm, key }))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use serde_json::json;

    use super::*;
    use crate::domain::ids::{Identity, IdentityKind};

    fn set(keys: &[Value]) -> String {
        json!({ "keys": keys }).to_string()
    }

    /// A key of this shape and size. Whether its numbers are a key shows when a token is verified.
    fn jwk(change: Value) -> Value {
        let mut jwk = json!({"kty": "RSA", "kid": "a", "n": "A".repeat(342), "e": "AQAB"});
        for (name, value) in change.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        jwk
    }

    #[test]
    fn a_key_has_one_algorithm_and_others_are_skipped() {
        let point = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
        let edwards = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"});
        for (key, algorithm) in [
            (jwk(json!({})), Algorithm::RS256),
            (jwk(json!({"alg": "RS256", "use": "sig", "x5c": ["AA"]})), Algorithm::RS256),
            (jwk(json!({"key_ops": ["verify"]})), Algorithm::RS256),
            (jwk(point.clone()), Algorithm::ES256),
            (jwk(edwards.clone()), Algorithm::EdDSA),
        ] {
            let keys = KeySet::parse(&set(&[json!(7), key])).unwrap();
            assert_eq!(keys.get("a").map(|key| key.algorithm), Some(algorithm));
            assert!(keys.get("b").is_none());
        }
        for skipped in [
            json!({"kid": null}),
            json!({"use": "enc"}),
            json!({"key_ops": ["encrypt"]}),
            json!({"alg": "PS256"}),
            json!({"alg": "RS512"}),
            json!({"alg": "HS256"}),
            json!({"n": "A".repeat(340)}),
            json!({"n": "?"}),
            json!({"kty": "oct", "k": "AA"}),
            json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}),
            json!({"kty": "new"}),
        ] {
            let keys = KeySet::parse(&set(&[jwk(skipped.clone())])).unwrap();
            assert_eq!(keys.ids().count(), 0, "{skipped}");
            let error = keys.check_usable().unwrap_err();
            assert!(error.starts_with("has no key"), "{skipped}: {error}");
        }
        let none = KeySet::parse(&set(&[])).unwrap();
        assert_eq!((none.ids().count(), none.check_usable()), (0, Ok(())), "all are withdrawn");
    }

    #[test]
    fn errors_in_a_key_set_name_the_problem() {
        for (text, expected) in [
            (String::new(), "is not a JSON Web Key Set"),
            ("{}".to_owned(), "is not a JSON Web Key Set: missing field `keys`"),
            ("{\"keys\": [".to_owned(), "is not a JSON Web Key Set"),
            (set(&[jwk(json!({})), jwk(json!({}))]), "two keys have the kid \"a\""),
        ] {
            let error = KeySet::parse(&text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn hash(number: usize) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        hash
    }

    fn principal(name: &str, expire_second: u64) -> Principal {
        Principal {
            identity: Identity::new(IdentityKind::Jwt, name).unwrap(),
            groups: Arc::default(),
            expire_time: Some(at(expire_second)),
        }
    }

    #[test]
    fn an_identity_with_many_tokens_does_not_cost_others_theirs() {
        let keys = KeySet::default();
        for number in 0..10 {
            keys.remember(hash(number), principal(&format!("other-{number}"), 100), at(0));
        }
        for number in 10..3 * VERIFIED_MAX {
            keys.remember(hash(number), principal("many", 100), at(0));
        }
        assert!((0..10).all(|number| keys.verified(&hash(number)).is_some()));
        assert!(lock::read(&keys.verified).principals.len() <= VERIFIED_MAX);
    }

    #[test]
    fn the_number_of_verified_tokens_is_bounded() {
        let keys = KeySet::default();
        let until = |second| principal("a", second);
        for number in 0..VERIFIED_MAX {
            keys.remember(hash(number), until(if number == 7 { 100 } else { 10 }), at(0));
        }
        assert!(keys.verified(&hash(0)).is_some());
        // The first to go are those that have expired.
        keys.remember(hash(VERIFIED_MAX), until(100), at(10));
        assert!(keys.verified(&hash(0)).is_none() && keys.verified(&hash(7)).is_some());
        for number in 0..2 * VERIFIED_MAX {
            keys.remember(hash(number), until(100), at(10));
        }
        assert!(lock::read(&keys.verified).principals.len() <= VERIFIED_MAX);
    }

    #[test]
    fn the_groups_of_verified_tokens_are_bounded() {
        let keys = KeySet::default();
        let groups: Arc<[String]> = (0..256).map(|number| format!("group-{number}")).collect();
        for number in 0..VERIFIED_MAX {
            let principal = || Principal { groups: groups.clone(), ..principal("many", 100) };
            keys.remember(hash(number), principal(), at(0));
            keys.remember(hash(number), principal(), at(0));
            let verified = lock::read(&keys.verified);
            let bytes: usize = verified.principals.values().map(group_bytes).sum();
            assert_eq!(verified.group_bytes, bytes);
            assert!(bytes < VERIFIED_GROUP_BYTES_MAX + 16 * 1024, "{bytes} bytes");
        }
        assert!(keys.verified(&hash(VERIFIED_MAX - 1)).is_some());
    }
}
