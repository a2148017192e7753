//! Ids of accounts, holds, requests, transactions and callers. Each type checks its grammar.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest account id and request id, in bytes.
pub const ID_LENGTH_MAX: usize = 64;

/// Defines an id as a text with a grammar.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $alphabet:literal, $is_allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads an id.
            ///
            /// # Errors
            /// Empty, too long, or outside the alphabet.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, $is_allowed, $alphabet).map(Self)
            }

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
    AccountId, "[A-Za-z0-9._:-]", is_plain
}

text_id! {
    /// `[A-Za-z0-9._:-]{1,64}`; compared byte by byte.
    HoldId, "[A-Za-z0-9._:-]", is_plain
}

text_id! {
    /// 1-64 printable ASCII characters.
    RequestId, "printable ASCII", |byte| (0x20..=0x7e).contains(&byte)
}

/// The longest identity, in bytes: it is stored with every change.
pub const IDENTITY_LENGTH_MAX: usize = 256;

/// The beginning of identities that a JWT proves. No other credential proves one of them.
const JWT_PREFIX: &str = "jwt:";

/// The name of a caller, as tokens, certificates and the policy have it. Empty where callers are not
/// authenticated.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

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
}

impl Identity {
    /// Callers who are not authenticated.
    pub fn anonymous() -> Self {
        Self("".into())
    }

    /// Reads an identity: 1-256 printable ASCII characters without spaces.
    ///
    /// # Errors
    /// In one sentence, with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_printable = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        if text.is_empty() || text.len() > IDENTITY_LENGTH_MAX || !is_printable {
            return Err(format!(
                "identity {text:?} must be 1-{IDENTITY_LENGTH_MAX} printable ASCII characters \
                 without spaces"
            ));
        }
        Ok(Self(text.into()))
    }

    /// The identity of a JWT: `jwt:` and what its claim says.
    ///
    /// # Errors
    /// As for [`Identity::parse`].
    pub fn of_jwt(claimed: &str) -> Result<Self, String> {
        Self::parse(&format!("{JWT_PREFIX}{claimed}"))
    }

    /// Whether only a JWT proves this identity.
    #[must_use]
    pub fn is_of_jwt(&self) -> bool {
        self.0.starts_with(JWT_PREFIX)
    }

    /// An identity that was checked before, or that a certificate authority vouches for.
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
    /// A new id, for an account whose caller gave none.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }
}

impl HoldId {
    /// A new id, for a hold whose caller gave none.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }
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
