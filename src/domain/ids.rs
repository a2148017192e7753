//! Names: of accounts, holds, requests, callers. Each type carries its grammar.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest account id and request id, in bytes.
pub const ID_LENGTH_MAX: usize = 64;

/// `[A-Za-z0-9._:-]{1,64}`; compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountId(Arc<str>);

/// `[A-Za-z0-9._:-]{1,64}`; compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldId(Arc<str>);

/// 1-64 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(Arc<str>);

/// Names a change for ever: a request id is scoped to the authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// The caller's identity; empty without authentication.
    pub caller: Arc<str>,
    /// The caller's id for the request.
    pub request_id: RequestId,
}

/// A UUIDv7.
pub type TransactionId = Uuid;

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

impl AccountId {
    /// Reads an account id.
    ///
    /// # Errors
    /// Empty, too long, or outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, is_plain, "[A-Za-z0-9._:-]").map(Self)
    }

    /// A new id, for an account whose caller gave none.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }

    /// An id that was checked when it was stored.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HoldId {
    /// Reads a hold id.
    ///
    /// # Errors
    /// Empty, too long, or outside the alphabet.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, is_plain, "[A-Za-z0-9._:-]").map(Self)
    }

    /// A new id, for a hold whose caller gave none.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.to_string().into())
    }

    /// An id that was checked when it was stored.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

    /// An id that was checked when it was stored.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

impl fmt::Display for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
