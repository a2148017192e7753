//! WatchEntries streams during a run.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

use http::uri::PathAndQuery;
use passbook_command::client::Connection;
use tonic::{Request, Status, client::Grpc};

use crate::{
    proto,
    watch_codec::WatchCodec,
    watchers::{Progress, Watch, WatchStats},
};

const WATCH_ENTRIES: &str = "/passbook.v1.AccountService/WatchEntries";

/// The entries of one account.
pub struct EntryWatch {
    account_id: String,
    /// The sequence of the last entry that was received.
    sequence: i64,
}

/// So many watches, evenly over the accounts, after these sequences.
pub fn watches(
    account_ids: &[String],
    sequences: &HashMap<String, i64>,
    count: u32,
) -> Vec<EntryWatch> {
    let watch = |account_id: &String| EntryWatch {
        account_id: account_id.clone(),
        sequence: sequences.get(account_id).copied().unwrap_or_default(),
    };
    account_ids.iter().cycle().take(count as usize).map(watch).collect()
}

impl Watch for EntryWatch {
    async fn read(
        &mut self,
        connection: &Connection,
        progress: &Progress,
        stats: &mut WatchStats,
    ) -> Status {
        let mut client = Grpc::new(connection.clone()).max_decoding_message_size(usize::MAX);
        if client.ready().await.is_err() {
            return Status::unavailable("no connection");
        }
        let (account_id, after_sequence) = (self.account_id.clone(), self.sequence);
        let request = proto::WatchEntriesRequest { account_id, after_sequence };
        let path = PathAndQuery::from_static(WATCH_ENTRIES);
        let streaming = client.server_streaming(Request::new(request), path, WatchCodec);
        let mut messages = match streaming.await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        progress.is_open.store(true, Relaxed);
        loop {
            let sequences = match messages.message().await {
                Ok(Some(sequences)) => sequences,
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            };
            stats.messages += 1;
            for next in sequences {
                let (account_id, last) = (&self.account_id, self.sequence);
                if next != last + 1 {
                    stats.gap = Some(format!("account {account_id}: sequence {next} after {last}"));
                    return Status::data_loss("an entry is missing");
                }
                self.sequence = next;
                stats.entries += 1;
                progress.entries.fetch_add(1, Relaxed);
            }
        }
    }
}
