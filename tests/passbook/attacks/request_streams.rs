//! Streams of requests that the server cannot read on: what HTTP/2 buffers for them is bounded.

use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    attacks::*,
    harness::http2::{self, Raw},
};

/// Nine connections have nearly as many as one identity may have.
const CONNECTIONS: usize = 9;
const STREAMS: usize = 440;
/// Requests of one stream in flight.
const IN_FLIGHT_MAX: usize = 1024;

/// Takes all requests that the streams of `a` may have in flight, and reads none of the results.
async fn fill(target: &Target) -> Raw {
    let mut raw = connect(target).await;
    let requests = http2::framed(&StreamTransactionsRequest::default()).repeat(IN_FLIGHT_MAX);
    for _ in 0..16 {
        let stream = raw.open();
        let call = [raw.call(stream, STREAM), http2::data(stream, &requests)].concat();
        raw.write_data(&call, requests.len()).await.expect("written");
    }
    let results = async || target.admin.metrics().await.requests("rejected", "invalid_requests");
    eventually("they wait", async || {
        let before = results().await;
        tokio::time::sleep(ms(200)).await;
        before > 0.0 && results().await == before
    })
    .await;
    raw
}

async fn connect(target: &Target) -> Raw {
    let address = target.server.address;
    Raw::without_window(address, "Bearer a-token").await.expect("connected")
}

/// Streams of `a` whose first request waits, each with more behind it.
async fn streams_with(
    target: &Target,
    connection_count: usize,
    rest: impl Fn(u32) -> Vec<u8>,
    data: usize,
) -> Vec<Raw> {
    let request = http2::framed(&StreamTransactionsRequest::default());
    let mut connections = Vec::new();
    for _ in 0..connection_count {
        let mut raw = connect(target).await;
        for _ in 0..STREAMS {
            let stream = raw.open();
            let call = [raw.call(stream, STREAM), http2::data(stream, &request), rest(stream)];
            raw.write_data(&call.concat(), request.len() + data).await.expect("written");
        }
        connections.push(raw);
    }
    let all = (connection_count * STREAMS) as f64;
    eventually("all are there", async || {
        target.in_flight().await + target.shed("request_bytes", "identity").await >= all
    })
    .await;
    connections
}

/// As much as HTTP/2 lets a stream send.
#[tokio::test(flavor = "multi_thread")]
async fn data_behind_requests_that_wait_is_bounded() {
    const FRAME: usize = 16_000;
    let target = Target::start(&[]).await;
    let _filled = fill(&target).await;
    let rest = |stream| http2::data(stream, &[0; FRAME]).repeat(4);
    let _connections = streams_with(&target, CONNECTIONS, rest, 4 * FRAME).await;
    target.withstands("9 x 440 streams with unread data", IDENTITY_MIB_MAX / 2).await;
}

/// Trailers have no flow control.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_behind_requests_that_wait_are_bounded() {
    let target = Target::start(&[]).await;
    let _filled = fill(&target).await;
    let rest = |stream| http2::trailers(stream, 4000);
    let _connections = streams_with(&target, CONNECTIONS / 3, rest, 0).await;
    target.withstands("3 x 440 streams with unread trailers", IDENTITY_MIB_MAX / 2).await;
    target.assert_memory("3 x 440 streams with unread trailers", IDENTITY_MIB_MAX);
}

/// A list of empty elements has two bytes each on the wire.
#[tokio::test(flavor = "multi_thread")]
async fn every_list_of_a_message_that_waits_is_charged() {
    const STREAMS: usize = 40;
    let target = Target::start(&[]).await;
    let _filled = fill(&target).await;
    // In less than the window of a stream.
    let update_mask = Some(FieldMask { paths: vec![String::new(); 15_000] });
    let update = UpdateHoldRequest { update_mask, ..hold_update("h", "1") };
    let request = Some(streamed_request::Request::UpdateHold(update));
    let requests = vec![StreamedRequest { request, ..Default::default() }; 2];
    let message = http2::framed(&StreamTransactionsRequest { requests, ..Default::default() });
    let mut raw = connect(&target).await;
    for _ in 0..STREAMS {
        let stream = raw.open();
        let data: Vec<u8> =
            message.chunks(16_000).flat_map(|chunk| http2::data(stream, chunk)).collect();
        let call = [raw.call(stream, STREAM), data].concat();
        raw.write_data(&call, message.len()).await.expect("written");
    }
    let shed = async || target.shed("request_bytes", "identity").await;
    eventually("most of them are shed", async || shed().await >= 30.0).await;
}

/// A stream keeps a buffer as large as its largest message, also when nothing is left of that.
#[tokio::test(flavor = "multi_thread")]
async fn buffers_of_streams_are_bounded() {
    const STREAMS: usize = 200;
    const SIZE: usize = 1_000_000;
    let target = Target::start(&[]).await;
    let client = target.client("a");
    let mut streams = Vec::new();
    let status = loop {
        assert!(streams.len() < STREAMS, "{STREAMS} streams are not too many");
        let (sender, messages) = mpsc::channel(1);
        let description = "x".repeat(SIZE);
        let request = PostTransactionRequest { description, ..post(&[]) };
        sender.try_send(one_posting(request)).expect("there is room");
        let responses = client.stream_transactions(ReceiverStream::new(messages)).await;
        let mut responses = responses.expect("a stream");
        match responses.message().await {
            Ok(_) => streams.push((sender, responses)),
            Err(status) => break status,
        }
    };
    assert_metadata(&status, &[("limit", "request_bytes"), ("scope", "identity")]);
    let attack = format!("{} streams that have had a large message", streams.len());
    target.withstands(&attack, IDENTITY_MIB_MAX * 3 / 8).await;
}

/// Every stream that one identity may have, and a byte of each a second.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_byte_a_second_are_bounded() {
    const LENGTH: u32 = 4000;
    let target = Target::start(&[]).await;
    let rest = |stream| http2::data(stream, &http2::message_of(LENGTH));
    let mut connections = streams_with(&target, CONNECTIONS, rest, 5).await;
    let flood = tokio::spawn(async move {
        loop {
            for raw in &mut connections {
                let streams = (0..STREAMS as u32).map(|number| 2 * number + 1);
                let bytes: Vec<u8> = streams.flat_map(|it| http2::data(it, &[0])).collect();
                raw.write_data(&bytes, STREAMS).await.expect("the connection is there");
            }
            tokio::time::sleep(seconds(1)).await;
        }
    });
    tokio::time::sleep(seconds(1)).await;
    target.withstands("9 x 440 streams, a byte a second", IDENTITY_MIB_MAX * 7 / 16).await;
    assert!(!flood.is_finished(), "a connection was closed");
    assert_eq!(target.in_flight().await, (CONNECTIONS * STREAMS) as f64);
    flood.abort();
}
