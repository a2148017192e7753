//! One watcher: every entry of one account after a sequence, once, in order.

use std::sync::Arc;

use tokio::{
    sync::broadcast,
    time::{Instant, sleep},
};

use crate::{
    domain::{account::Account, ids::Identity},
    ledger::{
        Error,
        watch::{
            catch_up::WATCHER_PAGE_SIZE,
            feed::{EntryFeed, RETRY_INTERVAL, Update},
            outage::OUTAGE_TIME_MAX,
            page::Page,
        },
    },
    storage::{StorageError, WatchedAccount},
};

/// Yields the entries of one account after some sequence: all of them, each once, in order.
pub struct Watcher {
    feed: Arc<EntryFeed>,
    /// With the sequence of the last entry that was yielded.
    account: WatchedAccount,
    updates: broadcast::Receiver<Update>,
    /// Entries may exist that the feed published before, or will not publish.
    is_behind: bool,
    failing_since: Option<Instant>,
    /// The failovers before the watch began.
    failovers: u64,
    identity: Identity,
}

impl Watcher {
    /// Starts to watch `account`, as it was read just now, from the entry after `after_sequence`. There
    /// were so many failovers before it was read.
    pub fn new(
        feed: Arc<EntryFeed>,
        account: Account,
        failovers: u64,
        after_sequence: i64,
        identity: Identity,
    ) -> Self {
        let (updates, published) = feed.subscribe(&account, failovers);
        let is_behind = after_sequence < published;
        let Account { account_id, account_key, currency, .. } = account;
        let account = WatchedAccount { account_id, account_key, currency, after_sequence };
        Self { feed, account, updates, is_behind, failing_since: None, failovers, identity }
    }

    /// The sequence of the last entry that was yielded.
    pub fn sequence(&self) -> i64 {
        self.account.after_sequence
    }

    /// Waits for the next entries. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The database was unreachable for 10 s (`OUTAGE_TIME_MAX`), a standby has taken the place of the
    /// primary, or an entry cannot be read.
    pub async fn next(&mut self) -> Result<Page, Error> {
        loop {
            self.check_primary()?;
            let page = if self.is_behind {
                self.read().await?
            } else {
                match self.updates.recv().await {
                    Ok(update) => update?.after(self.sequence()),
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    // There was a failover. Or the feed has published its error before it closed, and
                    // this watcher was too slow.
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Error::DatabaseUnavailable(None));
                    }
                }
            };
            let Some(page) = page else {
                self.is_behind = true;
                continue;
            };
            if let Some(last) = page.last_sequence() {
                // It may follow on other entries than those that were yielded.
                self.check_primary()?;
                self.account.after_sequence = last;
                return Ok(page);
            }
        }
    }

    /// Checks that the primary is the one from which all entries so far were read.
    fn check_primary(&self) -> Result<(), Error> {
        match self.feed.failovers() == self.failovers {
            true => Ok(()),
            false => Err(Error::DatabaseUnavailable(None)),
        }
    }

    /// Reads the next page from the database; None: try again.
    async fn read(&mut self) -> Result<Option<Page>, Error> {
        match self.feed.page_after(&self.account, &self.identity).await {
            Ok(page) => {
                self.failing_since = None;
                // The feed publishes all later entries: the subscription is older than this read.
                self.is_behind = page.has_length(WATCHER_PAGE_SIZE);
                Ok(page.after(self.sequence()))
            }
            Err(error) => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if !is_transient(&error) || since.elapsed() > OUTAGE_TIME_MAX {
                    return Err(Error::from_read(error));
                }
                sleep(RETRY_INTERVAL).await;
                Ok(None)
            }
        }
    }
}

/// Whether the same read may succeed a little later.
pub fn is_transient(error: &StorageError) -> bool {
    match error {
        StorageError::LockTimeout(_)
        | StorageError::Aborted(_)
        | StorageError::RepeatedRequest(_)
        | StorageError::Unavailable(_)
        | StorageError::Forbidden(_)
        | StorageError::SchemaNotMigrated(_) => true,
        StorageError::Data(_) | StorageError::Corrupt(_) => false,
    }
}
