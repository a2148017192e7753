//! Pages of lists: their size, their token, and the cut before the largest page.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;

use crate::grpc::encode::response_size;

/// Rows in a page if the request does not say.
const PAGE_SIZE_DEFAULT: u64 = 100;
/// The most rows in a page.
const PAGE_SIZE_MAX: u64 = 1000;
/// Bytes of the query's digest in a token: enough to notice a token of another query, which is a
/// mistake and no attack.
const DIGEST_LENGTH: usize = 8;

/// The most bytes in a page, unless its first row alone has more: well below the 4 MiB that clients
/// accept by default, so that many pages fit into the budget of unread responses.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a page that are encoded before other calls run: less than a tenth of a millisecond. A whole
/// page at once would be a pause for every call of the same thread.
const BYTES_AT_A_TIME: usize = 16 * 1024;

/// One page of a query.
pub struct Page<Cursor> {
    /// The query without the page. A token is valid for one query only.
    query: String,
    /// The last row of the page before.
    pub cursor: Option<Cursor>,
    /// The most rows. A read of one row more shows whether another page follows.
    pub limit: u64,
}

impl<Cursor> Page<Cursor> {
    /// The first page of `query`. A size of 0, or a negative one, means the default.
    pub fn new(query: String, size: i32) -> Self {
        let limit = match u64::try_from(size) {
            Ok(0) | Err(_) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
        };
        Self { query, cursor: None, limit }
    }

    /// The cursor in a token, or None if the token was not made for this query.
    pub fn cursor_in(&self, token: &str) -> Option<String> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let cursor = token.strip_prefix(&self.digest())?;
        String::from_utf8(cursor.to_vec()).ok()
    }

    /// Encodes at most `limit` rows, and the token of the next page. The next page begins after the
    /// last of them, if there were more; otherwise after `next`.
    pub async fn encode<T, C: fmt::Display, M: Message>(
        &self,
        mut rows: Vec<T>,
        next: Option<C>,
        cursor: impl Fn(&T) -> C,
        encode: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let is_cut = rows.len() > limit;
        rows.truncate(limit);
        let next = if is_cut { rows.last().map(&cursor) } else { next };
        self.encode_until(rows, next, cursor, encode).await
    }

    /// Encodes all rows that fit into one page, and the token of the next page. The next page
    /// begins after the last of them, if some did not fit; otherwise after `next`.
    pub async fn encode_until<T, C: fmt::Display, M: Message>(
        &self,
        rows: Vec<T>,
        mut next: Option<C>,
        cursor: impl Fn(&T) -> C,
        encode: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let (mut room, mut encoded) = (PAGE_BYTES_MAX, 0);
        let (mut messages, mut last) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            if encoded >= BYTES_AT_A_TIME {
                encoded = 0;
                yield_now().await;
            }
            let at = cursor(&row);
            let message = encode(row);
            let size = response_size::size_in_list(&message);
            if size > room && last.is_some() {
                next = last;
                break;
            }
            room = room.saturating_sub(size);
            encoded += size;
            messages.push(message);
            last = Some(at);
        }
        (messages, self.token(next))
    }

    /// The token of the page after `cursor`: the digest of the query, and the cursor. Empty if no
    /// page follows.
    fn token(&self, cursor: Option<impl fmt::Display>) -> String {
        let Some(cursor) = cursor else { return String::new() };
        URL_SAFE_NO_PAD.encode([&self.digest()[..], cursor.to_string().as_bytes()].concat())
    }

    fn digest(&self) -> [u8; DIGEST_LENGTH] {
        let mut head = [0; DIGEST_LENGTH];
        head.copy_from_slice(&Sha256::digest(&self.query)[..DIGEST_LENGTH]);
        head
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::proto::Entry;

    #[test]
    fn other_calls_run_while_a_page_is_encoded() {
        let page = Page::<i64>::new(String::new(), 1000);
        let entry = |_| Entry { account_id: "a".repeat(200), ..Entry::default() };
        let mut encoding = pin!(page.encode(vec![(); 1000], None::<i64>, |()| 0, entry));
        let mut pauses = 0;
        let (messages, _) = loop {
            match (&mut encoding).now_or_never() {
                Some(encoded) => break encoded,
                None => pauses += 1,
            }
        };
        assert_eq!(messages.len(), 1000);
        assert_eq!(pauses, 1000 * 200 / BYTES_AT_A_TIME);
    }
}
