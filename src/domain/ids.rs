//! Ids of accounts, holds, requests, transactions and callers. Each type checks its grammar.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest account id and request id, in bytes.
pub const ID_LENGTH_MAX: usize = 64;

/// Defines an id as a text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// An id that was checked when it was stored.
            pub fn from_stored(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// `[A-Za-z0-9._:-]{1,64}`; compared byte by byte.
    AccountId
}

/// Between the name of a hold and the identity that placed it.
const HOLD_OWNER: char = '@';

text_id! {
    /// `[A-Za-z0-9._:-]{1,64}`, which the caller chose, and the identity that placed the hold, as
    /// `order-1@billing`. Without an identity: the id of a server, or of a caller that was not
    /// authenticated. Compared byte by byte.
    HoldId
}

text_id! {
    /// 1-64 printable ASCII characters.
    RequestId
}

/// The longest identity, in bytes: it is stored with every change.
pub const IDENTITY_LENGTH_MAX: usize = 256;

/// The name of a caller, together with how it is known: `billing` by a token, `spiffe://...` and
/// `dns:...` by a certificate, `jwt:...` by a JWT. So two callers that are known in different ways are
/// never the same. Empty where callers are not authenticated.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// By a bearer token of the tokens file.
    Token,
    /// By the SPIFFE URI of its certificate.
    Spiffe,
    /// By the DNS name of its certificate.
    Dns,
    /// By a JWT.
    Jwt,
}

names!(IdentityKind {
    Token = "token",
    Spiffe = "spiffe",
    Dns = "dns",
    Jwt = "jwt",
});

/// The permanent name of a request: request ids are scoped to the identity of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// The identity under which the caller's requests are recorded.
    pub caller: Identity,
    /// The caller's id for the request.
    pub request_id: RequestId,
}

/// A UUIDv7. Its time is that of the request's arrival, by a server's clock; what is random in it
/// names the attempt.
pub type TransactionId = Uuid;

/// How far the time in a transaction's id may be from the transaction's own, by the database's
/// clock, in microseconds: an hour. Lists over all accounts find a time by it.
pub const ID_TIME_DISTANCE_MAX_US: i64 = 60 * 60 * 1_000_000;
/// The bits of a UUIDv7 behind its time.
const ID_TIME_SHIFT: u32 = 80;

/// The id of a transaction with this time: the id that the request was given, unless the time in that
/// id is more than [`ID_TIME_DISTANCE_MAX_US`] off, because a clock was wrong. Then the id gets the
/// time of the transaction.
#[must_use]
pub fn transaction_id_at(asked: TransactionId, time_us: i64) -> TransactionId {
    let id_time_us = i64::try_from(asked.as_u128() >> ID_TIME_SHIFT).unwrap_or(0) * 1000;
    let is_near = id_time_us.abs_diff(time_us) <= ID_TIME_DISTANCE_MAX_US.unsigned_abs();
    if is_near || asked.get_version_num() != 7 {
        return asked;
    }
    Uuid::from_u128(lowest_id_at(time_us).as_u128() | random_bits(asked))
}

/// The lowest id with the millisecond of this time; of times that no UUIDv7 can have, the nearest.
pub fn lowest_id_at(time_us: i64) -> Uuid {
    // 48 bits of milliseconds.
    let milliseconds = time_us.div_euclid(1000).clamp(0, (1 << 48) - 1).unsigned_abs();
    Uuid::from_u128(u128::from(milliseconds) << ID_TIME_SHIFT)
}

/// Whether both are ids of the same attempt, whatever their times.
pub fn is_same_attempt(left: TransactionId, right: TransactionId) -> bool {
    random_bits(left) == random_bits(right)
}

fn random_bits(id: TransactionId) -> u128 {
    id.as_u128() & ((1 << ID_TIME_SHIFT) - 1)
}

/// Why a text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Nothing there.
    #[error("is required")]
    Empty,
    /// Longer than [`ID_LENGTH_MAX`].
    #[error("has {0} bytes; at most {ID_LENGTH_MAX} are allowed")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("has a character outside {0}")]
    Alphabet(&'static str),
    /// What follows the first `@` is no identity.
    #[error(
        "has no identity of 1-{IDENTITY_LENGTH_MAX} printable ASCII characters without spaces after \
         the first {HOLD_OWNER}"
    )]
    HoldOwner,
}

impl Identity {
    /// Callers who are not authenticated.
    pub fn anonymous() -> Self {
        Self("".into())
    }

    /// The identity of a caller that is known in this way by this name.
    ///
    /// # Errors
    /// In one sentence, with the name.
    pub fn new(kind: IdentityKind, name: &str) -> Result<Self, String> {
        match kind {
            IdentityKind::Token if KIND_PREFIXES.iter().any(|it| name.starts_with(it)) => {
                Err(format!(
                    "the identity of a token cannot be {name:?}: names that begin with {} are those \
                     of other kinds",
                    KIND_PREFIXES.join(" or ")
                ))
            }
            IdentityKind::Token => Self::parse(name),
            IdentityKind::Spiffe if is_spiffe_id(name) => Self::parse(name),
            IdentityKind::Spiffe => {
                Err(format!("{name:?} is not a SPIFFE ID, such as spiffe://example.org/billing"))
            }
            IdentityKind::Dns if is_dns_name(name) => Self::parse(&format!("dns:{name}")),
            IdentityKind::Dns => {
                Err(format!("{name:?} is not a DNS name, such as billing.example.org"))
            }
            IdentityKind::Jwt if name.is_empty() => Err("the name of a JWT is empty".to_owned()),
            IdentityKind::Jwt => Self::parse(&format!("{JWT_PREFIX}{name}")),
        }
    }

    /// Whether the caller is known by a JWT.
    pub fn is_known_by_jwt(&self) -> bool {
        self.0.starts_with(JWT_PREFIX)
    }

    /// Reads an identity of any kind, as it is stored: 1-256 printable ASCII characters without
    /// spaces.
    ///
    /// # Errors
    /// In one sentence, with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || !Self::is_stored(text) {
            return Err(format!(
                "identity {text:?} must be 1-{IDENTITY_LENGTH_MAX} printable ASCII characters \
                 without spaces"
            ));
        }
        Ok(Self(text.into()))
    }

    /// Whether a text is an identity, or that of callers who are not authenticated.
    pub fn is_stored(text: &str) -> bool {
        text.len() <= IDENTITY_LENGTH_MAX && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
    }

    /// An identity that was checked before.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether nobody was authenticated.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AccountId {
    /// Reads an account id.
    ///
    /// # Errors
    /// Empty, too long, or outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, is_plain, "[A-Za-z0-9._:-]").map(Self)
    }

    /// A new id, for an account whose caller gave none.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }
}

impl HoldId {
    /// Reads the name that a caller gives a new hold.
    ///
    /// # Errors
    /// Empty, too long, or outside the alphabet.
    pub fn parse_new(text: &str) -> Result<Self, IdError> {
        check(text, is_plain, "[A-Za-z0-9._:-]").map(Self)
    }

    /// Reads the id of a hold, with or without the identity that placed the hold.
    ///
    /// # Errors
    /// Empty, too long, outside the alphabet, or with another text than an identity behind the name.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let Some((name, placed_by)) = text.split_once(HOLD_OWNER) else {
            return Self::parse_new(text);
        };
        Self::parse_new(name)?;
        Identity::parse(placed_by).map_err(|_| IdError::HoldOwner)?;
        Ok(Self(text.into()))
    }

    /// The id of a hold that this caller gives this name. No other caller's hold has the same id.
    pub fn placed_by(&self, caller: &Identity) -> Self {
        if caller.is_anonymous() || self.0.contains(HOLD_OWNER) {
            return self.clone();
        }
        Self(format!("{self}{HOLD_OWNER}{caller}").into())
    }

    /// The name in this id, without the identity that placed the hold.
    #[must_use]
    pub fn name(&self) -> Self {
        let name = self.0.split_once(HOLD_OWNER).map_or(&*self.0, |(name, _)| name);
        Self(name.into())
    }

    /// The ids that a caller may mean by this one, the likelier first: its own hold of this name, or
    /// the hold with this very id.
    pub fn candidates(&self, caller: &Identity) -> [Self; 2] {
        [self.placed_by(caller), self.clone()]
    }

    /// A new id, for a hold whose caller gave none.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }
}

impl RequestId {
    /// Reads a request id.
    ///
    /// # Errors
    /// Empty, too long, or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let printable = |byte: u8| (0x20..=0x7e).contains(&byte);
        check(text, printable, "printable ASCII").map(Self)
    }
}

/// How the identities of the kinds other than tokens begin.
const KIND_PREFIXES: [&str; 3] = ["spiffe:", "dns:", JWT_PREFIX];
const JWT_PREFIX: &str = "jwt:";

/// Whether a text is a SPIFFE ID: a trust domain and a path, without empty or relative segments.
fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|text| text.split_once('/'))
    else {
        return false;
    };
    let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
    };
    !domain.is_empty()
        && domain.bytes().all(|byte| is_lower(byte) || b"._-".contains(&byte))
        && path.split('/').all(is_segment)
}

/// Whether a text is the name of one host: no wildcard.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    text.split('.').all(is_label)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)
}

fn check(
    text: &str,
    allowed: impl Fn(u8) -> bool,
    alphabet: &'static str,
) -> Result<Arc<str>, IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        length if length > ID_LENGTH_MAX => Err(IdError::TooLong(length)),
        _ if !text.bytes().all(allowed) => Err(IdError::Alphabet(alphabet)),
        _ => Ok(text.into()),
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_two_kinds_are_never_the_same() {
        let new = |kind, name| Identity::new(kind, name).map(|it| it.to_string());
        let spiffe = "spiffe://example.org/billing";
        assert_eq!(new(IdentityKind::Token, "billing").unwrap(), "billing");
        assert_eq!(new(IdentityKind::Spiffe, spiffe).unwrap(), spiffe);
        assert_eq!(new(IdentityKind::Dns, "billing").unwrap(), "dns:billing");
        assert_eq!(new(IdentityKind::Jwt, "billing").unwrap(), "jwt:billing");
        for name in [spiffe, "spiffe:x", "dns:billing", "jwt:billing", "", "a b"] {
            new(IdentityKind::Token, name).unwrap_err();
        }
    }

    #[test]
    fn names_in_certificates_are_spiffe_ids_or_hosts() {
        for valid in ["spiffe://example.org/a", "spiffe://e/a/b.c-d_E"] {
            assert!(is_spiffe_id(valid), "{valid}");
        }
        for wrong in [
            "https://example.org/a",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///a",
            "spiffe://Example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/a?b",
            "spiffe://user@example.org/a",
            "spiffe://example.org:1/a",
            "SPIFFE://example.org/a",
        ] {
            assert!(!is_spiffe_id(wrong), "{wrong}");
        }
        for valid in ["a", "billing.example.org", "A-1_b"] {
            assert!(is_dns_name(valid), "{valid}");
        }
        for wrong in ["", "*.example.org", "a..b", "a.", "a b", "dns:a", "a/b", &"a".repeat(64)] {
            assert!(!is_dns_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_hold_id_has_the_identity_that_placed_it() {
        let (east, west) = (Identity::from_stored("east"), Identity::from_stored("west@east"));
        let name = HoldId::parse_new("order-1").unwrap();
        assert_eq!(name.placed_by(&Identity::anonymous()), name);
        let ids = [name.placed_by(&east), name.placed_by(&west)];
        assert_eq!(ids.each_ref().map(HoldId::as_str), ["order-1@east", "order-1@west@east"]);
        for id in &ids {
            assert_eq!(HoldId::parse(id.as_str()).as_ref(), Ok(id));
            assert_eq!(id.placed_by(&east), *id, "the id of another caller's hold");
            HoldId::parse_new(id.as_str()).unwrap_err();
        }
        for wrong in
            ["", "@", "a@", "@east", "a b@east", "a@e ast", &format!("a@{}", "e".repeat(257))]
        {
            HoldId::parse(wrong).unwrap_err();
        }
    }
}
