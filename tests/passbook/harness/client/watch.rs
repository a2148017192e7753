//! A stream of WatchEntries that fails as soon as an entry is missing or repeated.

use passbook::proto::{Entry, WatchEntriesRequest, WatchEntriesResponse};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::harness::{Client, PATIENCE};

pub fn watch(account_id: &str, after_sequence: i64) -> WatchEntriesRequest {
    WatchEntriesRequest { account_id: account_id.to_owned(), after_sequence }
}

/// One stream and its last sequence.
pub struct Watching {
    stream: Streaming<WatchEntriesResponse>,
    account_id: String,
    pub sequence: i64,
}

impl Watching {
    pub async fn begin(client: &Client, account_id: &str, after_sequence: i64) -> Self {
        let begun = Self::try_begin(client, account_id, after_sequence).await;
        begun.expect("the stream begins")
    }

    pub async fn try_begin(
        client: &Client,
        account_id: &str,
        after_sequence: i64,
    ) -> Result<Self, Status> {
        let stream = client.watch_entries(watch(account_id, after_sequence)).await?;
        Ok(Self { stream, account_id: account_id.to_owned(), sequence: after_sequence })
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<Vec<Entry>, Status> {
        let message = self.stream.message().await?.expect("a stream ends with an error only");
        for entry in &message.entries {
            assert_eq!(entry.account_id, self.account_id);
            assert_eq!(entry.sequence, self.sequence + 1, "the next entry");
            self.sequence = entry.sequence;
        }
        assert_eq!(message.sequence, self.sequence, "the last entry that was sent");
        assert!(message.entries.len() <= 1000, "{}", message.entries.len());
        Ok(message.entries)
    }

    /// All entries up to this sequence.
    pub async fn until(&mut self, sequence: i64) -> Vec<Entry> {
        let mut entries = Vec::new();
        while self.sequence < sequence {
            let next = timeout(PATIENCE, self.next()).await;
            let next = next
                .unwrap_or_else(|_| panic!("no entry {} within {PATIENCE:?}", self.sequence + 1));
            entries.extend(next.expect("the stream continues"));
        }
        assert_eq!(self.sequence, sequence);
        entries
    }

    /// The error that ends the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
