//! The message `WatchEntriesResponse`, written by hand, so that its bytes can be encoded once for all
//! watchers of an account. The code that prost generates encodes a message for each of them.
//! docs/performance.md has the case: a thousand watchers of one account.

use std::sync::Arc;

use prost::{
    DecodeError, Message, Name,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

use crate::proto::Entry;

/// A message from WatchEntries: the next entries, or a heartbeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchEntriesResponse {
    /// At most 1000 entries in order, without a gap: the first follows the last of the message
    /// before. Empty: a heartbeat, sent after 5 seconds without a new entry.
    pub entries: Vec<Entry>,
    /// The sequence of the last entry that was sent. To continue, send it as `after_sequence`.
    pub sequence: i64,
    /// The bytes to send in place of the fields.
    encoded: Option<Arc<[u8]>>,
}

impl WatchEntriesResponse {
    /// A message with these fields.
    pub fn new(entries: Vec<Entry>, sequence: i64) -> Self {
        Self { entries, sequence, encoded: None }
    }

    /// A message for sending only, with these bytes as its encoding.
    pub fn encoded(bytes: &Arc<[u8]>) -> Self {
        Self { encoded: Some(bytes.clone()), ..Self::default() }
    }
}

impl Name for WatchEntriesResponse {
    const NAME: &'static str = "WatchEntriesResponse";
    const PACKAGE: &'static str = "passbook.v1";
}

impl Message for WatchEntriesResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if let Some(encoded) = &self.encoded {
            return buffer.put_slice(encoded);
        }
        encoding::message::encode_repeated(1, &self.entries, buffer);
        if self.sequence != 0 {
            encoding::int64::encode(2, &self.sequence, buffer);
        }
    }

    fn encoded_len(&self) -> usize {
        if let Some(encoded) = &self.encoded {
            return encoded.len();
        }
        let sequence = match self.sequence {
            0 => 0,
            sequence => encoding::int64::encoded_len(2, &sequence),
        };
        encoding::message::encoded_len_repeated(1, &self.entries) + sequence
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::message::merge_repeated(wire_type, &mut self.entries, buffer, context),
            2 => encoding::int64::merge(wire_type, &mut self.sequence, buffer, context),
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message as prost derives it from the contract.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Plain {
        #[prost(message, repeated, tag = "1")]
        entries: Vec<Entry>,
        #[prost(int64, tag = "2")]
        sequence: i64,
    }

    #[test]
    fn its_bytes_are_those_that_prost_encodes() {
        let entry = Entry { account_id: "a".to_owned(), sequence: 7, ..Default::default() };
        for (entries, sequence) in [(vec![entry.clone(), entry], 7), (vec![], 3), (vec![], 0)] {
            let plain = Plain { entries: entries.clone(), sequence }.encode_to_vec();
            let message = WatchEntriesResponse { entries, sequence, encoded: None };
            assert_eq!(message.encode_to_vec(), plain);
            assert_eq!(WatchEntriesResponse::decode(plain.as_slice()).unwrap(), message);
            let shared = WatchEntriesResponse::encoded(&plain.clone().into());
            assert_eq!(shared.encode_to_vec(), plain);
            assert_eq!(shared.encoded_len(), plain.len());
        }
    }
}
