//! WatchEntries: sends pages of new entries, and heartbeats without them.

use tokio::time::timeout;
use tonic::Status;

use crate::{
    grpc::{
        encode,
        watching::{HEARTBEAT_INTERVAL, Messages},
    },
    ledger::{Error, Watcher},
    proto::WatchEntriesResponse,
};

/// Forwards pages until an error, and returns the error's status.
pub async fn forward(mut watcher: Watcher, messages: Messages<WatchEntriesResponse>) -> Status {
    loop {
        if let Err(error) = forward_page(&mut watcher, &messages).await {
            return error.into();
        }
    }
}

/// Forwards the next page, and heartbeats until there is one.
async fn forward_page(
    watcher: &mut Watcher,
    messages: &Messages<WatchEntriesResponse>,
) -> Result<(), Error> {
    let sequence = watcher.sequence();
    let page = {
        // One future across heartbeats: a slow read must reach its result or its error.
        let mut next = std::pin::pin!(watcher.next());
        loop {
            match timeout(HEARTBEAT_INTERVAL, &mut next).await {
                Ok(page) => break page?,
                Err(_) => messages.send(WatchEntriesResponse::new(Vec::new(), sequence)).await?,
            }
        }
    };
    let entries = page.encoded(encode::watched_entry);
    messages.send(WatchEntriesResponse::of_encoded(entries, watcher.sequence())).await
}
