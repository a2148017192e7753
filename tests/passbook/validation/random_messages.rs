//! Messages of random fields and values, sent to every unary method.

use std::collections::{BTreeMap, HashMap};

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use passbook::proto::FILE_DESCRIPTOR_SET;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::harness::{checker::assert_consistent, raw_codec, *};

on_both_databases! {
    random_messages_get_a_result_or_a_reason_and_leave_a_consistent_ledger,
}

/// Messages for each method.
const MESSAGES: usize = 150;
/// Calls at a time.
const CALLERS: usize = 16;
/// How deep messages are in each other.
const DEPTH_MAX: usize = 4;

async fn random_messages_get_a_result_or_a_reason_and_leave_a_consistent_ledger(kind: Kind) {
    let (database, server, client) = start_server(kind).await;
    open_funded(&client, "a", "1000").await;
    open_funded(&client, "b", "1000").await;
    place(&client, hold_named("h", "a", "10")).await;
    let transaction_id = deposited(&client, "a", "1").await.transaction_id;
    let mut messages = Messages::new(seed(), transaction_id);
    let calls: Vec<_> = messages
        .methods
        .clone()
        .into_iter()
        .flat_map(|(method, input)| {
            let bytes: Vec<_> = (0..MESSAGES).map(|_| messages.random(&input, 0)).collect();
            bytes.into_iter().map(move |bytes| (method.clone(), bytes))
        })
        .collect();
    let calls = stream::iter(calls).map(|(method, bytes)| {
        let channel = server.channel();
        async move {
            let answer = raw_codec::call(channel, &method, bytes.clone()).await;
            (method, bytes, answer)
        }
    });

    let mut reasons: BTreeMap<Option<Reason>, usize> = BTreeMap::new();
    let mut answers = calls.buffer_unordered(CALLERS);
    while let Some((method, bytes, answer)) = answers.next().await {
        let reason = answer.err().map(|status| reason_of(&status, &method, &bytes));
        *reasons.entry(reason).or_default() += 1;
    }

    println!("{reasons:#?}");
    assert!(reasons[&None] > MESSAGES, "some are valid: {reasons:?}");
    assert!(reasons.len() > 20, "they have all kinds of faults: {reasons:?}");
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    assert_consistent(&database).await;
    database.passbook(&["verify"]).await.must_succeed();
}

/// The reason of an error, which must be the caller's fault and say what to do.
fn reason_of(status: &Status, method: &str, bytes: &[u8]) -> Reason {
    let what = || format!("{method} {bytes:02x?}: {status:?}");
    let (Some(reason), code) = reason_and_code(status) else { panic!("no reason: {}", what()) };
    assert_eq!(code, code_of(reason), "{}", what());
    assert!(!status.message().is_empty(), "{}", what());
    if code == Code::InvalidArgument && reason != Reason::InvalidMessage {
        assert!(!fields(status).is_empty(), "no field: {}", what());
    }
    let is_a_failure = matches!(
        code,
        Code::Internal
            | Code::Unknown
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
    );
    assert!(!is_a_failure, "{}", what());
    reason
}

/// Random messages of the contract.
struct Messages {
    rng: Rng,
    /// By full name.
    by_name: HashMap<String, DescriptorProto>,
    /// The unary methods of AccountService, and the full names of their requests.
    methods: Vec<(String, String)>,
    transaction_id: String,
}

impl Messages {
    fn new(seed: u64, transaction_id: String) -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
        let (mut by_name, mut methods) = (HashMap::new(), Vec::new());
        for file in &set.file {
            for message in &file.message_type {
                add(&mut by_name, file.package(), message);
            }
            let services = file.service.iter().filter(|it| it.name() == "AccountService");
            for method in services.flat_map(|service| &service.method) {
                if !method.server_streaming() && !method.client_streaming() {
                    methods.push((method.name().to_owned(), full_name(method.input_type())));
                }
            }
        }
        Self { rng: Rng::with_seed(seed), by_name, methods, transaction_id }
    }

    /// The bytes of a message with this name.
    fn random(&mut self, name: &str, depth: usize) -> Vec<u8> {
        let descriptor = self.by_name.get(name).unwrap_or_else(|| panic!("no message {name}"));
        let descriptor = descriptor.clone();
        let mut bytes = Vec::new();
        // At most one field of each oneof is kept, as by a client.
        let mut chosen = HashMap::new();
        for field in &descriptor.field {
            if let Some(index) = field.oneof_index {
                let entry = chosen.entry(index).or_insert((0, field.number()));
                entry.0 += 1;
                if self.rng.usize(..entry.0) == 0 {
                    entry.1 = field.number();
                }
            }
        }
        for field in &descriptor.field {
            let is_chosen =
                field.oneof_index.is_none_or(|index| chosen[&index].1 == field.number());
            if !is_chosen || self.rng.usize(..10) == 0 {
                continue;
            }
            let is_list = field.label() == Label::Repeated;
            let count = if is_list { self.rng.choice([0, 1, 1, 2, 2, 3]).unwrap_or(1) } else { 1 };
            for _ in 0..count {
                self.field(field, depth, &mut bytes);
            }
        }
        // Sometimes a byte is wrong, or the end is missing.
        if depth == 0 && !bytes.is_empty() && self.rng.usize(..12) == 0 {
            let index = self.rng.usize(..bytes.len());
            if self.rng.bool() {
                bytes[index] = self.rng.u8(..);
            } else {
                bytes.truncate(index);
            }
        }
        bytes
    }

    fn field(&mut self, field: &FieldDescriptorProto, depth: usize, bytes: &mut Vec<u8>) {
        let number = u32::try_from(field.number()).expect("a number");
        let delimited = |value: &[u8], bytes: &mut Vec<u8>| {
            encode_key(number, WireType::LengthDelimited, bytes);
            encode_varint(value.len() as u64, bytes);
            bytes.extend_from_slice(value);
        };
        match field.r#type() {
            Type::Message => {
                let name = full_name(field.type_name());
                if depth < DEPTH_MAX {
                    let value = self.random(&name, depth + 1);
                    delimited(&value, bytes);
                }
            }
            Type::String => {
                let value = self.text(field.name());
                delimited(value.as_bytes(), bytes);
            }
            Type::Bytes => {
                let value = self.text("");
                delimited(value.as_bytes(), bytes);
            }
            _ => {
                encode_key(number, WireType::Varint, bytes);
                encode_varint(self.number(field), bytes);
            }
        }
    }

    fn number(&mut self, field: &FieldDescriptorProto) -> u64 {
        let (rng, kind) = (&mut self.rng, field.r#type());
        let value = match kind {
            Type::Bool => i64::from(rng.usize(..3) == 0),
            Type::Enum => rng.i64(0..8),
            _ if field.name() == "nanos" => {
                rng.choice([0, 0, 1, 999_999_999, -1, i64::MAX]).unwrap_or(0)
            }
            _ if field.name() == "seconds" => {
                let now = 1_790_000_000;
                let extremes = [now, now, now + 1000, 0, -1, i64::MAX, i64::MIN, 253_402_300_800];
                rng.choice(extremes).unwrap_or(now)
            }
            _ => rng.choice([0, 1, 1, 2, 50, 1000, 1001, -1, i64::MAX, i64::MIN]).unwrap_or(1),
        };
        value.cast_unsigned()
    }

    /// A text for a field of this name, most often a valid one.
    fn text(&mut self, field: &str) -> String {
        let strange = [
            "",
            " ",
            "\0",
            "x\ny",
            "\u{202e}x",
            "ä",
            "a b",
            "'; --",
            "{}",
            "1e5",
            "+1",
            "-0",
            ".5",
            "٣",
            "NaN",
            "1_000",
            "00000000-0000-0000-0000-000000000000",
            "18446744073709551616",
            "99999999999999999999999999999999",
            "0.0000000000000000000000000001",
        ];
        if self.rng.usize(..15) == 0 {
            let length = self.rng.choice([64, 65, 256, 257, 1024, 1025]).unwrap_or(64);
            return "x".repeat(length);
        } else if self.rng.usize(..12) == 0 {
            return self.rng.choice(strange).unwrap_or_default().to_owned();
        }
        let usual: &[&str] = match field {
            "request_id" if self.rng.usize(..4) > 0 => return new_request_id(),
            "request_id" => &["r-1", "r-2", "r-3"],
            "transaction_id" => return self.transaction_id.clone(),
            "currency_code" => &["USD", "USD", "USD", "EUR", "JPY", "usd"],
            "value" => &["1", "2.50", "0.01", "10", "-1", "-2.50", "0", "1.005"],
            "hold_id" => &["h", "h-1", "h-2", "h@someone"],
            "paths" => &["labels", "amount", "expire_time", "overdraft_limit"],
            "page_token" | "after_token" => &["", "", "AAAA"],
            name if name.contains("account_id") => &["a", "a", "b", "b", "c", "d", "missing"],
            _ => &["", "text", "x:y"],
        };
        self.rng.choice(usual.iter().copied()).unwrap_or_default().to_owned()
    }
}

fn add(by_name: &mut HashMap<String, DescriptorProto>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        add(by_name, &name, nested);
    }
    by_name.insert(name, message.clone());
}

fn full_name(type_name: &str) -> String {
    type_name.trim_start_matches('.').to_owned()
}
