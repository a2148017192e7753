//! Messages of empty elements: two bytes each on the wire, and some hundred in memory.

use prost_types::FieldMask;

use crate::attacks::*;

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
