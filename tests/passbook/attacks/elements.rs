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

/// No message is decompressed, so a small one cannot become a large one.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_are_an_error() {
    let target = Target::start(&[]).await;
    for encoding in ["gzip", "deflate", "zstd", "snappy"] {
        let mut request = tonic::Request::new(deposit("of-b", "1"));
        request.metadata_mut().insert("grpc-encoding", encoding.parse().expect("ASCII"));
        let status = must_fail(target.client("a").deposit(request).await, Reason::Unimplemented);
        assert!(status.message().contains(encoding), "{status:?}");
        assert_eq!(metadata_of(&status, "grpc-accept-encoding"), "identity");
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
