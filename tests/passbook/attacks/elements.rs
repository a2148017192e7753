//! Messages that are small on the wire and large in memory: of empty elements, which have two bytes
//! each, or compressed.

use prost_types::FieldMask;

use crate::{
    attacks::*,
    harness::http2::{self, Raw},
};

/// As many as fit into a message of 1 MiB.
const ELEMENTS: usize = 520_000;
const CALLERS: usize = 4;

/// Sends this many calls at once. All of them are invalid.
async fn all_invalid<Answer: std::fmt::Debug>(call: impl AsyncFn() -> Result<Answer, Status>) {
    for answer in join_all((0..CALLERS).map(|_| call())).await {
        must_fail(answer, Reason::InvalidMessage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_elements_are_not_made() {
    let target = Target::start(&[]).await;
    let client = target.client("a");
    let legs = vec![Leg::default(); ELEMENTS];
    let post = PostTransactionRequest { legs, ..post(&[]) };
    all_invalid(async || client.post_transaction(post.clone()).await).await;
    target.assert_memory("legs", 64);
    let requests = vec![PostTransactionRequest::default(); ELEMENTS];
    let batch = BatchPostTransactionsRequest { requests };
    all_invalid(async || client.batch_post_transactions(batch.clone()).await).await;
    target.assert_memory("requests", 64);
    let paths = vec![String::new(); ELEMENTS];
    let update_mask = Some(FieldMask { paths });
    let update = UpdateAccountRequest { update_mask, ..update_of("alice") };
    all_invalid(async || client.update_account(update.clone()).await).await;
    target.assert_memory("paths of a mask", 64);
    let account_ids = vec![String::new(); ELEMENTS];
    let get = BatchGetAccountsRequest { account_ids };
    all_invalid(async || client.batch_get_accounts(get.clone()).await).await;
    target.assert_memory("ids", 64);
}

/// Zeros without end in zstd: 4 bytes for each 128 KiB.
fn zstd_bomb() -> Vec<u8> {
    zstd(&[], 15_000)
}

/// The begin of a field that the message does not have. Seven blocks of zeros are in it.
const UNKNOWN_FIELD: [u8; 4] = [15 << 3 | 2, 0x80, 0x80, 0x38];

/// A frame of zstd (RFC 8878) with a window of 128 MiB: these bytes, then so many blocks of zeros.
fn zstd(bytes: &[u8], blocks: usize) -> Vec<u8> {
    const BLOCK: u32 = 128 * 1024;
    let header = |kind: u32, size: u32, is_last: bool| {
        (size << 3 | kind << 1 | u32::from(is_last)).to_le_bytes()[..3].to_vec()
    };
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
    frame.extend(header(0, bytes.len() as u32, false));
    frame.extend(bytes);
    for number in 1..=blocks {
        frame.extend(header(1, BLOCK, number == blocks));
        frame.push(0);
    }
    frame
}

/// Zeros in gzip (RFC 1952), one byte for 158, without an end.
fn gzip_bomb() -> Vec<u8> {
    // A zero, then 258 times the byte before, again and again (RFC 1951, 3.2.6). Eight repetitions
    // have 13 bytes.
    let mut bits: Vec<u8> = vec![1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    while bits.len() < 8 * (2 + 13) {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.extend(&bytes[..2]);
    file.extend(bytes[2..15].repeat(60_000 / 13));
    file
}

/// DATA frames with a compressed message.
fn compressed(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short message").to_be_bytes();
    let message = [&[1], &length[..], bytes].concat();
    message.chunks(16_000).flat_map(|chunk| http2::data(stream, chunk)).collect()
}

async fn connect_with(target: &Target, encoding: &str) -> Raw {
    let mut raw = Raw::connect(target.server.address, "Bearer a-token").await.expect("connected");
    raw.add_header("grpc-encoding", encoding.to_owned());
    raw
}

/// A message that is too large when it is decompressed is decompressed no further than the limit.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_become_no_larger_than_other_messages() {
    const BOMBS: usize = 64;
    let target = Target::start(&[]).await;
    for (encoding, bomb) in [("zstd", zstd_bomb()), ("gzip", gzip_bomb())] {
        let mut raw = connect_with(&target, encoding).await;
        for _ in 0..BOMBS {
            let stream = raw.open();
            let message = compressed(stream, &bomb);
            let call = [raw.call(stream, DEPOSIT), message, http2::end(stream)].concat();
            raw.write_data(&call, bomb.len() + 5).await.expect("written");
        }
        let all = format!("all {encoding} bombs have an answer");
        let expected = BOMBS as f64 * if encoding == "zstd" { 1.0 } else { 2.0 };
        let too_large =
            async || target.admin.metrics().await.handled("Deposit", "ResourceExhausted");
        eventually(&all, async || too_large().await == expected).await;
        target.assert_memory(&format!("{BOMBS} {encoding} bombs"), 64);
    }
}

/// A message may take a hundred times its bytes when it is decoded. That of a call whose request does not
/// end is not.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_calls_that_do_not_end_are_not_decoded() {
    const CALLS: usize = 60;
    const BATCH: &str = "/passbook.v1.AccountService/BatchPostTransactions";
    let target = Target::start(&[]).await;
    // In less than the window of a stream.
    let legs = vec![Leg::default(); 15_000];
    let requests = vec![PostTransactionRequest { legs, ..PostTransactionRequest::default() }; 2];
    let message = http2::framed(&BatchPostTransactionsRequest { requests });
    let address = target.server.address;
    let mut raw = Raw::connect(address, "Bearer a-token").await.expect("connected");
    let mut compressing = connect_with(&target, "zstd").await;
    let field = zstd(&UNKNOWN_FIELD, 7);
    for _ in 0..CALLS {
        let stream = raw.open();
        let data: Vec<u8> =
            message.chunks(16_000).flat_map(|chunk| http2::data(stream, chunk)).collect();
        let call = [raw.call(stream, BATCH), data].concat();
        raw.write_data(&call, message.len()).await.expect("written");
        let stream = compressing.open();
        let call = [compressing.call(stream, DEPOSIT), compressed(stream, &field)].concat();
        compressing.write_data(&call, field.len() + 5).await.expect("written");
    }
    eventually("all have begun", async || target.in_flight().await >= 2.0 * CALLS as f64).await;
    target.withstands("120 requests that do not end", 64).await;
}

/// What is left of a decompressed message in the decoder of a stream counts as long as the stream
/// lives.
#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_of_compressed_messages_are_bounded() {
    const STREAMS: usize = 256;
    let target = Target::start(&[]).await;
    let mut raw = connect_with(&target, "zstd").await;
    let message = zstd(&UNKNOWN_FIELD, 7);
    for _ in 0..STREAMS {
        let stream = raw.open();
        let call = [raw.call(stream, STREAM), compressed(stream, &message)].concat();
        raw.write_data(&call, message.len() + 5).await.expect("written");
    }
    let results = async || target.admin.metrics().await.requests("rejected", "invalid_requests");
    let shed = async || target.shed("request_bytes", "identity").await;
    let all = STREAMS as f64;
    eventually("each is answered or shed", async || results().await + shed().await >= all).await;
    assert!((16.0..=32.0).contains(&results().await), "{} are not shed", results().await);
    target.assert_memory("256 streams", 128);
}

/// Other encodings are an error, and so is a compressed message without an encoding.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_unknown_encodings_are_an_error() {
    let target = Target::start(&[]).await;
    for encoding in ["deflate", "snappy"] {
        let mut request = tonic::Request::new(deposit("of-b", "1"));
        request.metadata_mut().insert("grpc-encoding", encoding.parse().expect("ASCII"));
        let status = must_fail(target.client("a").deposit(request).await, Reason::Unimplemented);
        assert!(status.message().contains(encoding), "{status:?}");
        assert_eq!(metadata_of(&status, "grpc-accept-encoding"), "gzip,zstd,identity");
    }
    // A message with the flag alone.
    let mut raw = Raw::connect(target.server.address, "Bearer a-token").await.expect("connected");
    let stream = raw.open();
    let message = http2::data(stream, &[1, 0, 0, 0, 1, 0]);
    let call = [raw.call(stream, DEPOSIT), message, http2::end(stream)].concat();
    raw.write(&call).await.expect("written");
    raw.answer(stream).await.expect("an answer");
    assert_eq!(target.admin.metrics().await.handled("Deposit", "InvalidArgument"), 1.0);
}

fn metadata_of<'a>(status: &'a Status, key: &str) -> &'a str {
    status.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
