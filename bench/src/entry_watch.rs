//! WatchEntries streams during a run.

use std::{collections::HashMap, convert::Infallible, sync::atomic::Ordering::Relaxed};

use passbook_command::client::Connection;
use tonic::Status;

use crate::{
    proto,
    watch_codec::WatchCodec,
    watchers::{Progress, Watch, WatchStats, next, open},
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
    ) -> Result<Infallible, Status> {
        let (account_id, after_sequence) = (self.account_id.clone(), self.sequence);
        let request = proto::WatchEntriesRequest { account_id, after_sequence };
        let mut messages = open(connection, WATCH_ENTRIES, request, WatchCodec).await?;
        progress.is_open.store(true, Relaxed);
        loop {
            let sequences = next(&mut messages).await?;
            stats.messages += 1;
            for sequence in sequences {
                let (account_id, last) = (&self.account_id, self.sequence);
                if sequence != last + 1 {
                    let gap = format!("account {account_id}: sequence {sequence} after {last}");
                    stats.gap = Some(gap);
                    return Err(Status::data_loss("an entry is missing"));
                }
                self.sequence = sequence;
                stats.entries += 1;
                progress.entries.fetch_add(1, Relaxed);
            }
        }
    }
}
