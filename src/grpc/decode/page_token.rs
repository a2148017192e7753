//! Opaque page tokens: where the next page begins, bound to the query that it belongs to.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Bytes of the query's digest in a token: enough to notice another query, which is a mistake
/// and no attack.
const DIGEST_LENGTH: usize = 8;

/// The token for the page after `cursor` of this query.
pub fn encode(query: &str, cursor: &str) -> String {
    let mut token = digest(query).to_vec();
    token.extend_from_slice(cursor.as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// The cursor in a token; None if it was not made for this query.
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
