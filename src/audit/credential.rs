//! The credential of a call, as the audit log names it.

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};

use crate::auth;

/// The credential that a caller sent, valid or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token, by the SHA-256 of its text.
    Token([u8; 32]),
    /// An `authorization` that is no bearer token, or more than one.
    Malformed,
    /// A verified client certificate, by its SHA-256 fingerprint.
    Certificate([u8; 32]),
    /// The caller sent no credential.
    None,
}

/// Bytes of the hash of a token. Enough to find its entry in `tokens_file`.
const TOKEN_HASH_BYTES: usize = 8;

impl Credential {
    /// The credential in these headers, or else the client certificate with this fingerprint.
    #[must_use]
    pub fn of(headers: &HeaderMap, certificate: Option<[u8; 32]>) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => certificate.map_or(Self::None, Self::Certificate),
            (Some(value), None) => match auth::bearer(value) {
                Some(token) => Self::Token(Sha256::digest(token).into()),
                None => Self::Malformed,
            },
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Malformed => "malformed",
            Self::Certificate(_) => "certificate",
            Self::None => "none",
        }
    }

    /// What names the credential and does not reveal it.
    pub(super) fn sha256(&self) -> Option<&[u8]> {
        match self {
            Self::Token(sha256) => Some(&sha256[..TOKEN_HASH_BYTES]),
            Self::Certificate(sha256) => Some(sha256),
            Self::Malformed | Self::None => None,
        }
    }
}
