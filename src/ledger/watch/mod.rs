//! Streams new entries to watchers, whichever server wrote them.
//!
//! ```text
//! EntryFeed: every POLL_INTERVAL one statement for all watched accounts -> a page an account
//!                -> all watchers of the account
//! CatchUp:   one statement for a page of an account -> all watchers that are as far behind
//! Watcher:   takes pages from CatchUp until it has caught up; then takes the feed's pages, and
//!            catches up again where one does not follow on
//! ```
//!
//! The feed polls the database, so it finds entries of other servers as it finds those of this one,
//! and writers do nothing for watchers. (NOTIFY would make all commits wait for each other.) The
//! feed only saves reads: a watcher yields entry n + 1 after entry n and nothing else, from
//! whichever source.
//!
//! [`events`] does the same for all events of the ledger.
//!
//! Each entry is read and encoded once, however many watch: a page that begins in the middle of
//! another shares its bytes.
//!
//! In here: polling, sharing of pages, limits on watchers. Not in here: encoding, which the caller
//! passes to [`Page::take_encoded`]; SQL; anything that a writer would have to call.

mod catch_up;
#[cfg(test)]
mod catch_up_tests;
mod events;
mod feed;
mod outage;
mod page;
mod read;
mod room;
mod shared;
#[cfg(test)]
mod tests;
mod watcher;

pub use events::{EventFeed, EventStart, EventWatcher, FeedState};
pub use feed::EntryFeed;
pub use page::Page;
pub use watcher::Watcher;
