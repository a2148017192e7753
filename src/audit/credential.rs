//! The credential of a call, as the audit log names it.

use http::HeaderValue;
use sha2::{Digest, Sha256};

/// The credential that a caller sent, valid or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token, with the first bytes of the SHA-256 of its text, as `tokens_file` has it.
    Token([u8; 4]),
    /// A value of `authorization` that is no bearer token.
    Malformed,
    /// A client certificate.
    Certificate,
    /// None.
    None,
}

impl Credential {
    /// The credential of a call: `authorization` counts before a certificate.
    #[must_use]
    pub fn of(authorization: Option<&HeaderValue>, has_certificate: bool) -> Self {
        let Some(value) = authorization else {
            return if has_certificate { Self::Certificate } else { Self::None };
        };
        let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
        match parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            Some((_, token)) => {
                let sha256: [u8; 32] = Sha256::digest(token.trim()).into();
                let [first, second, third, fourth, ..] = sha256;
                Self::Token([first, second, third, fourth])
            }
            None => Self::Malformed,
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Malformed => "malformed",
            Self::Certificate => "certificate",
            Self::None => "none",
        }
    }
}
