//! The message `WatchEntriesResponse`, written by hand, so that entries can be encoded once for all
//! watchers of an account. The code that prost generates encodes them for each watcher.
//! docs/performance.md has the case: a thousand watchers of one account.

use prost::{
    DecodeError, Message, Name,
    bytes::{Buf, BufMut, Bytes},
    encoding::{self, DecodeContext, WireType},
};

use crate::proto::Entry;

/// The number of `entries`.
const ENTRIES: u32 = 1;
/// The number of `sequence`.
const SEQUENCE: u32 = 2;

/// A message from WatchEntries: the next entries, or a heartbeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchEntriesResponse {
    /// At most 1000 entries in order, without a gap: the first follows the last of the message
    /// before. Empty: a heartbeat, sent after 5 seconds without a new entry.
    pub entries: Vec<Entry>,
    /// The sequence of the last entry that was sent. To continue, send it as `after_sequence`.
    pub sequence: i64,
    /// Entries to send that are encoded already, by `encode_entry`. They come first.
    encoded_entries: Bytes,
}

impl WatchEntriesResponse {
    /// A message with these fields.
    pub fn new(entries: Vec<Entry>, sequence: i64) -> Self {
        Self { entries, sequence, encoded_entries: Bytes::new() }
    }

    /// A message for sending only, with entries that are encoded already.
    pub fn of_encoded(encoded_entries: Bytes, sequence: i64) -> Self {
        Self { entries: Vec::new(), sequence, encoded_entries }
    }

    /// Appends the encoding of one entry of `entries`.
    pub fn encode_entry(entry: &Entry, buffer: &mut Vec<u8>) {
        encoding::message::encode(ENTRIES, entry, buffer);
    }
}

impl Name for WatchEntriesResponse {
    const NAME: &'static str = "WatchEntriesResponse";
    const PACKAGE: &'static str = "passbook.v1";
}

impl Message for WatchEntriesResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.encoded_entries);
        encoding::message::encode_repeated(ENTRIES, &self.entries, buffer);
        if self.sequence != 0 {
            encoding::int64::encode(SEQUENCE, &self.sequence, buffer);
        }
    }

    fn encoded_len(&self) -> usize {
        let entries = encoding::message::encoded_len_repeated(ENTRIES, &self.entries);
        let sequence = match self.sequence {
            0 => 0,
            sequence => encoding::int64::encoded_len(SEQUENCE, &sequence),
        };
        self.encoded_entries.len() + entries + sequence
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            ENTRIES => {
                encoding::message::merge_repeated(wire_type, &mut self.entries, buffer, context)
            }
            SEQUENCE => encoding::int64::merge(wire_type, &mut self.sequence, buffer, context),
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
            let message = WatchEntriesResponse::new(entries.clone(), sequence);
            assert_eq!(message.encode_to_vec(), plain);
            assert_eq!(message.encoded_len(), plain.len());
            assert_eq!(WatchEntriesResponse::decode(plain.as_slice()).unwrap(), message);
            let mut encoded = Vec::new();
            entries.iter().for_each(|it| WatchEntriesResponse::encode_entry(it, &mut encoded));
            let shared = WatchEntriesResponse::of_encoded(encoded.into(), sequence);
            assert_eq!(shared.encode_to_vec(), plain);
            assert_eq!(shared.encoded_len(), plain.len());
        }
    }
}
