//! How long reads for watchers have failed.

use std::time::Duration;

use tokio::time::Instant;

use crate::{ledger::Error, storage::StorageError};

/// How long the database may be unreachable before watchers get an error.
pub const OUTAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// The failed reads of a feed since the last one that succeeded.
pub struct Outage {
    /// The name of the feed, for the log.
    feed: &'static str,
    since: Option<Instant>,
}

impl Outage {
    /// No read of this feed has failed yet.
    pub fn of(feed: &'static str) -> Self {
        Self { feed, since: None }
    }

    /// Notes a read that succeeded.
    pub fn end(&mut self) {
        if self.since.take().is_some() {
            tracing::info!(feed = self.feed, "a feed of watchers reads the database again");
        }
    }

    /// Notes a read that failed, and returns the error for watchers if reads have failed for too long.
    pub fn note(&mut self, error: StorageError) -> Option<Error> {
        match self.since {
            None => {
                let error = error.summary();
                tracing::warn!(
                    feed = self.feed,
                    error,
                    "a feed of watchers cannot read the database"
                );
                self.since = Some(Instant::now());
                None
            }
            Some(since) if since.elapsed() > OUTAGE_TIME_MAX => {
                self.since = None;
                Some(Error::from_read(error))
            }
            Some(_) => None,
        }
    }
}
