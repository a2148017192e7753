//! Streams all events of the ledger to watchers, whichever server wrote them.
//!
//! ```text
//! EventFeed:    every POLL_INTERVAL one statement for the numbers of new commits -> up to which one all
//!               commits can be seen
//! EventWatcher: reads a page of events up to that commit -> all watchers at the same position share it
//! ```
//!
//! Numbers are drawn after all row locks, so they are the order in which an account changed; but they
//! become visible out of order. A number that is missing belongs to a database transaction that is
//! open or was rolled back. The feed waits until all transactions of Passbook servers that are open
//! have ended: then the commit can be seen, or there is none.
//!
//! In here: polling, the wait for missing numbers, sharing of pages. Not in here: filters, rights and
//! encoding, which are different for each watcher.

mod feed;
#[cfg(test)]
mod tests;
mod watcher;

pub use feed::{EventFeed, FeedState};
pub use watcher::{EventStart, EventWatcher};
