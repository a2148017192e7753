//! Bearer tokens (RFC 6750). The server knows only their hashes.

use std::{fmt, time::SystemTime};

use http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::domain::ids::Identity;

/// A valid token. An identity may have several, so that a token can be replaced without downtime.
#[derive(Clone, Debug)]
pub struct Token {
    /// The identity that the token proves.
    pub identity: Identity,
    /// SHA-256 of the token's text. Tokens are random and long, so that guessing is hopeless even
    /// with a fast hash.
    pub sha256: [u8; 32],
    /// The token is valid before this time. None: without a time limit.
    pub expire_time: Option<SystemTime>,
}

/// The valid tokens.
#[derive(Clone, Default)]
pub struct Tokens(pub Vec<Token>);

impl Tokens {
    /// The entry of a token, if the token is known and has not expired. Compares every byte of
    /// every hash, so that the time taken reveals nothing of the hashes.
    pub fn find(&self, token: &str, now: SystemTime) -> Option<&Token> {
        let sha256 = Sha256::digest(token.as_bytes());
        let mut found = u32::MAX;
        for (index, known) in (0..u32::MAX).zip(&self.0) {
            let is_same: Choice = known.sha256.ct_eq(&sha256);
            found.conditional_assign(&index, is_same);
        }
        let known = self.0.get(usize::try_from(found).ok()?)?;
        let is_valid = known.expire_time.is_none_or(|expire_time| now < expire_time);
        is_valid.then_some(known)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tokens", self.0.len())
    }
}

/// Extracts the token from the value of `authorization`.
pub fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(identity: &str, text: &str, expire_time: Option<SystemTime>) -> Token {
        Token {
            identity: Identity::from_stored(identity),
            sha256: Sha256::digest(text).into(),
            expire_time,
        }
    }

    #[test]
    fn a_token_is_its_owners_until_it_expires() {
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        let tokens = Tokens(vec![
            token("billing", "old", Some(now + second)),
            token("billing", "new", None),
            token("shop", "gone", Some(now)),
        ]);
        let identity = |text: &str, at| tokens.find(text, at).map(|it| it.identity.to_string());
        assert_eq!(identity("old", now).as_deref(), Some("billing"));
        assert_eq!(identity("new", now).as_deref(), Some("billing"));
        assert_eq!(identity("old", now + second), None);
        assert_eq!(identity("gone", now), None);
        for wrong in ["", "ol", "olds", "OLD"] {
            assert_eq!(identity(wrong, now), None, "{wrong}");
        }
        assert!(Tokens::default().find("old", now).is_none());
    }

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        let bearer = |text| bearer(&HeaderValue::from_static(text)).map(str::to_owned);
        assert_eq!(bearer("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(bearer("bearer  abc ").as_deref(), Some("abc"));
        for wrong in ["abc", "Bearer", "Bearer ", "Basic abc", ""] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }
}
