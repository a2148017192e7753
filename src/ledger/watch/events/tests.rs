//! Pages of events, on a real SQLite file.

use tempfile::TempDir;

use crate::{
    domain::{
        event::{CommitId, EventPosition},
        ids::Identity,
    },
    ledger::watch::tests::{deposit, ledger},
    storage::StorageError,
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_up_to_a_commit_that_is_gone() {
    let directory = TempDir::new().unwrap();
    let ledger = ledger(&directory).await;
    deposit(&ledger, 1..=10).await;
    let (feed, identity) = (&ledger.event_feed, Identity::anonymous());
    let last = ledger.own_reads.last_position().await.unwrap().commit_id();
    let others = [
        CommitId { time_us: last.time_us + 1, ..last },
        CommitId { number: last.number + 1, ..last },
    ];
    let page = async |until| feed.page(EventPosition::default(), until, &identity).await;
    for other in others {
        let error = page(other).await.unwrap_err();
        assert!(matches!(error, StorageError::Aborted(_)), "{error}");
        assert_eq!(ledger.own_reads.new_commits(other).await.unwrap(), None);
    }
    // The error is not kept.
    assert_eq!(page(last).await.unwrap().unwrap().events.len(), 1 + 10);
}
