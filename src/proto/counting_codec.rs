//! Bounds the memory of messages. The elements of a message are counted before prost makes values of
//! them: an empty element is two bytes on the wire, and some hundred in memory. The buffers of a call
//! are no larger than its messages: it keeps them as long as it is in flight. [`memory`] is what is
//! charged for a message that waits.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    mem,
    sync::LazyLock,
};

use bytes::Buf;
use prost::{
    Message, Name,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

use crate::proto::{FILE_DESCRIPTOR_SET, Leg};

/// A message of at most this many bytes is not counted: its elements take little memory, whatever
/// they are.
const UNCOUNTED_BYTES_MAX: usize = 4 * 1024;
/// The most elements of one list. Most lists have a lower limit of their own, which is checked when the
/// message is decoded, with a better error.
const LIST_LENGTH_MAX: usize = 16_384;
/// The most elements of all lists of a message: more than a batch of 1000 requests with 5 legs and
/// 32 labels each has. A message of a stream may have as many requests with more legs, and can exceed
/// this if `message_size_max` is larger than the default.
const ELEMENTS_MAX: usize = 65_536;

/// About the memory of an element of a list beside its texts: that of a leg, which is the largest element
/// that there can be so many of. An id or a path takes less.
const ELEMENT_BYTES: usize = mem::size_of::<Leg>();

/// The first size of a call's buffers, for its requests and for its responses. Most messages fit, and
/// thousands of streams without a message take little.
const BUFFER_SIZE: usize = 1024;
/// Messages of a stream that are ready are sent together, until they have as many bytes. tonic's
/// default.
const GATHERED_BYTES: usize = 32 * 1024;

/// prost's codec, with a bound on the elements of what it decodes.
pub struct CountingCodec<T, U>(PhantomData<(T, U)>);

/// The encoder of a [`CountingCodec`].
pub struct ExactEncoder<T>(PhantomData<T>);

/// The decoder of a [`CountingCodec`].
pub struct CountingDecoder<U>(ProstDecoder<U>);

impl<T, U> Default for CountingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for CountingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = CountingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountingDecoder(ProstCodec::<T, U>::raw_decoder(buffer_settings()))
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER_SIZE, GATHERED_BYTES)
}

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // A buffer that grows while it is written takes up to twice as much.
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

impl<U: Message + Default + Name> Decoder for CountingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic's buffer is one piece.
        let bytes = buffer.chunk();
        if bytes.len() > UNCOUNTED_BYTES_MAX
            && let Some(fields) = MESSAGES.request(&U::full_name())
        {
            count(fields, bytes, &mut 0).map_err(Status::internal)?;
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// About the memory of a message, in bytes: of its texts, and of the elements of all its lists.
pub fn memory<T: Message + Name>(message: &T) -> usize {
    let bytes = message.encode_to_vec();
    let mut elements = 0;
    if let Some(fields) = MESSAGES.by_name.get(&T::full_name()) {
        // What was received has no more elements than are allowed.
        let _ = count(fields, &bytes, &mut elements);
    }
    bytes.len() + elements * ELEMENT_BYTES
}

/// The messages of the contract.
static MESSAGES: LazyLock<Messages> = LazyLock::new(Messages::read);

/// What a count must know of messages.
#[derive(Default)]
struct Messages {
    /// The full names of the messages that callers send.
    requests: HashSet<String>,
    by_name: HashMap<String, Fields>,
}

/// The fields of a message that are lists or messages, by number.
type Fields = HashMap<u32, Field>;

struct Field {
    name: String,
    is_list: bool,
    /// The full name of the message, if it is one.
    message: Option<String>,
}

impl Messages {
    fn read() -> Self {
        let mut messages = Self::default();
        // Decoding cannot fail: the build of this crate wrote the descriptors.
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        for file in set.file {
            for message in &file.message_type {
                messages.add(file.package(), message);
            }
            let methods = file.service.iter().flat_map(|service| &service.method);
            let inputs = methods.map(|method| method.input_type().trim_start_matches('.'));
            messages.requests.extend(inputs.map(str::to_owned));
        }
        messages
    }

    fn add(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        let fields = message.field.iter().filter_map(|field| {
            let is_list = field.label() == Label::Repeated;
            let type_name = field.type_name().trim_start_matches('.').to_owned();
            let message = (field.r#type() == Type::Message).then_some(type_name);
            let number = u32::try_from(field.number()).ok()?;
            let name = field.name().to_owned();
            (is_list || message.is_some()).then_some((number, Field { name, is_list, message }))
        });
        self.by_name.insert(name, fields.collect());
    }

    /// The fields of a message that callers send.
    fn request(&self, name: &str) -> Option<&Fields> {
        self.by_name.get(name).filter(|_| self.requests.contains(name))
    }
}

/// Counts the elements of the lists of a message, and of the messages in it. Stops where the bytes
/// are malformed, as prost does.
fn count(fields: &Fields, mut bytes: &[u8], elements: &mut usize) -> Result<(), String> {
    let mut lengths: HashMap<u32, usize> = HashMap::new();
    while let Ok((number, wire_type)) = decode_key(&mut bytes) {
        let field = fields.get(&number).filter(|_| wire_type == WireType::LengthDelimited);
        let Some(field) = field else {
            match skip_field(wire_type, number, &mut bytes, DecodeContext::default()) {
                Ok(()) => continue,
                Err(_) => break,
            }
        };
        if field.is_list {
            let length = lengths.entry(number).or_default();
            *length += 1;
            *elements += 1;
            if *length > LIST_LENGTH_MAX {
                return Err(format!("{} has more than {LIST_LENGTH_MAX} elements", field.name));
            } else if *elements > ELEMENTS_MAX {
                return Err(format!("all its lists have more than {ELEMENTS_MAX} elements"));
            }
        }
        let length = decode_varint(&mut bytes).ok().and_then(|length| usize::try_from(length).ok());
        let Some((value, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else {
            break;
        };
        if let Some(fields) = field.message.as_ref().and_then(|name| MESSAGES.by_name.get(name)) {
            count(fields, value, elements)?;
        }
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        BatchPostTransactionsRequest, Leg, PostTransactionRequest, UpdateAccountRequest,
    };

    fn check<T: Message + Name>(message: &T) -> Result<(), String> {
        count(MESSAGES.request(&T::full_name()).unwrap(), &message.encode_to_vec(), &mut 0)
    }

    fn transaction(legs: usize, labels: usize) -> PostTransactionRequest {
        PostTransactionRequest {
            legs: vec![Leg::default(); legs],
            labels: (0..labels).map(|it| (it.to_string(), String::new())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_largest_batch_that_is_allowed_is_within_the_bounds() {
        let requests = vec![transaction(5, 32); 1000];
        assert_eq!(check(&BatchPostTransactionsRequest { requests }), Ok(()));
    }

    #[test]
    fn a_list_that_is_too_long_is_named_wherever_it_is() {
        let legs = Err(format!("legs has more than {LIST_LENGTH_MAX} elements"));
        assert_eq!(check(&transaction(LIST_LENGTH_MAX, 0)), Ok(()));
        assert_eq!(check(&transaction(LIST_LENGTH_MAX + 1, 0)), legs);
        let requests = vec![transaction(LIST_LENGTH_MAX + 1, 0)];
        assert_eq!(check(&BatchPostTransactionsRequest { requests }), legs);
        let paths = vec![String::new(); LIST_LENGTH_MAX + 1];
        let update_mask = Some(prost_types::FieldMask { paths });
        let update = UpdateAccountRequest { update_mask, ..Default::default() };
        assert!(check(&update).unwrap_err().starts_with("paths has more"));
    }

    #[test]
    fn lists_in_lists_count_in_sum() {
        let requests = vec![transaction(ELEMENTS_MAX / 100, 0); 101];
        let error = check(&BatchPostTransactionsRequest { requests }).unwrap_err();
        assert_eq!(error, format!("all its lists have more than {ELEMENTS_MAX} elements"));
    }

    #[test]
    fn malformed_bytes_are_left_to_prost() {
        let fields = MESSAGES.request("passbook.v1.PostTransactionRequest").unwrap();
        for bytes in [&[0x12][..], &[0x12, 0xff], &[0xff; 20], &[0x13, 0x12, 0x05]] {
            assert_eq!(count(fields, bytes, &mut 0), Ok(()), "{bytes:?}");
        }
    }
}
