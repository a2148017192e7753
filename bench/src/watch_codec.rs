//! What a watcher of a run reads of WatchEntriesResponse: the sequences of the entries. Decoding whole
//! entries would be most of the work of a run that measures the servers.

use prost::{
    bytes::Buf,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::proto::WatchEntriesRequest;

/// The number of `WatchEntriesResponse.entries`.
const ENTRIES: u32 = 1;
/// The number of `Entry.sequence`. The only field before it is the account's id, so little of an entry
/// is read.
const SEQUENCE: u32 = 2;

/// A codec whose responses are the sequences of their entries.
#[derive(Default)]
pub struct WatchCodec;

/// The decoder of a [`WatchCodec`].
pub struct SequencesDecoder;

impl Codec for WatchCodec {
    type Encode = WatchEntriesRequest;
    type Decode = Vec<i64>;
    type Encoder = ProstEncoder<WatchEntriesRequest>;
    type Decoder = SequencesDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<WatchEntriesRequest, ()>::default().encoder()
    }

    fn decoder(&mut self) -> SequencesDecoder {
        SequencesDecoder
    }
}

impl Decoder for SequencesDecoder {
    type Item = Vec<i64>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<i64>>, Status> {
        // tonic's buffer is one piece.
        let sequences = sequences(buffer.chunk());
        buffer.advance(buffer.remaining());
        sequences.map(Some).ok_or_else(|| Status::internal("a malformed message"))
    }
}

/// None: the message is malformed.
fn sequences(mut message: &[u8]) -> Option<Vec<i64>> {
    let mut sequences = Vec::new();
    while message.has_remaining() {
        let (number, wire_type) = decode_key(&mut message).ok()?;
        if number == ENTRIES {
            let length = decode_varint(&mut message).ok()?;
            let entry = message.split_off(..usize::try_from(length).ok()?)?;
            sequences.push(sequence(entry)?);
        } else {
            skip_field(wire_type, number, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(sequences)
}

fn sequence(mut entry: &[u8]) -> Option<i64> {
    loop {
        let (number, wire_type) = decode_key(&mut entry).ok()?;
        if (number, wire_type) == (SEQUENCE, WireType::Varint) {
            return Some(decode_varint(&mut entry).ok()? as i64);
        }
        skip_field(wire_type, number, &mut entry, DecodeContext::default()).ok()?;
    }
}
