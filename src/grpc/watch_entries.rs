//! WatchEntries: sends new entries, and heartbeats without them.

use std::pin::pin;

use tokio::time::sleep_until;
use tonic::Status;

use crate::{
    grpc::{
        encode,
        messages::{MESSAGE_SIZE_MAX, MessageSender},
    },
    ledger::{Error, Watcher},
    proto::WatchEntriesResponse,
};

/// The most bytes of entries in one message, which has a prefix and a sequence, too.
const ENTRIES_SIZE_MAX: usize = MESSAGE_SIZE_MAX - 16;

/// Forwards entries until an error, and returns its status.
pub async fn forward(
    mut watcher: Watcher,
    mut sender: MessageSender<WatchEntriesResponse>,
) -> Status {
    loop {
        if let Err(error) = forward_page(&mut watcher, &mut sender).await {
            return error.into();
        }
    }
}

/// Forwards the next page, and heartbeats until there is one.
async fn forward_page(
    watcher: &mut Watcher,
    sender: &mut MessageSender<WatchEntriesResponse>,
) -> Result<(), Error> {
    let sequence = watcher.sequence();
    sender.wants_more().await?;
    let mut page = {
        // One future across heartbeats: a slow read must reach its result or its error, and is not
        // left alone with its permit.
        let mut next = pin!(watcher.next());
        loop {
            tokio::select! {
                page = &mut next => break page?,
                () = sleep_until(sender.heartbeat_time()) => {}
            }
            sender.send(WatchEntriesResponse::new(Vec::new(), sequence)).await;
            if let Some(page) = sender.wants_more_beside(&mut next).await? {
                break page?;
            }
        }
    };
    while let Some((entries, sequence)) = page.take_encoded(ENTRIES_SIZE_MAX, encode::watched_entry)
    {
        sender.wants_more().await?;
        sender.send(WatchEntriesResponse::of_encoded(entries, sequence)).await;
    }
    Ok(())
}
