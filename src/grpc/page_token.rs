//! Opaque page tokens: the cursor of the next page, with a digest of the query.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Bytes of the query's digest in a token: enough to notice a token of another query, which is a
/// mistake and no attack.
const DIGEST_LENGTH: usize = 8;

/// Encodes the token of the page after `cursor`.
pub fn encode(query: &str, cursor: &str) -> String {
    let mut token = digest(query).to_vec();
    token.extend_from_slice(cursor.as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// Decodes the cursor of a token. None if the token was not made for this query.
pub fn decode(query: &str, token: &str) -> Option<String> {
    let token = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (head, cursor) = token.split_at_checked(DIGEST_LENGTH)?;
    if head != digest(query) {
        return None;
    }
    String::from_utf8(cursor.to_vec()).ok()
}

fn digest(query: &str) -> [u8; DIGEST_LENGTH] {
    let mut head = [0; DIGEST_LENGTH];
    head.copy_from_slice(&Sha256::digest(query.as_bytes())[..DIGEST_LENGTH]);
    head
}
