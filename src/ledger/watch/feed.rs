//! Polls the database for new entries of all watched accounts and publishes them; one a process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep_until},
};

use crate::{
    budget::Budgets,
    domain::{
        account::Account,
        ids::{AccountId, Identity},
        transaction::Entry,
    },
    ledger::{
        Error,
        watch::{catch_up::CatchUp, outage::Outage, page::Page, read::read, room::Room},
    },
    lock::lock,
    restart::spawn_restarting,
    storage::{StorageError, Store, WatchedAccount},
};

/// How often a feed polls. Entries of one interval travel together: a shorter interval costs more
/// statements and messages, a longer one delays entries.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A feed pauses for this many times as long as the reads of a poll took, at least: with very many
/// accounts, or a slow database, it polls less often rather than load the database.
const PAUSE_FACTOR: u32 = 3;
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Entries that one poll reads, of all accounts together.
const POLL_ENTRIES_MAX: usize = 20_000;
/// Entries in a page of the feed: what the contract allows in one message.
const FEED_PAGE_SIZE_MAX: usize = 1000;
/// Pages that the feed keeps for watchers of an account that are slower than the feed. A watcher
/// that falls further behind reads the database.
const PAGES_KEPT_MAX: usize = 16;
/// The pause after a failed read.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The pause after a poll whose reads took so long.
pub fn pause_after(taken: Duration) -> Duration {
    (taken * PAUSE_FACTOR).min(PAUSE_MAX)
}

/// New entries, or the error that ends the watch.
pub type Update = Result<Page, Error>;

struct Subscription {
    /// With the sequence of the last entry that was published.
    account: WatchedAccount,
    /// The failovers before that entry was read.
    failovers: u64,
    updates: broadcast::Sender<Update>,
}

/// See the module.
pub struct EntryFeed {
    store: Arc<Store>,
    subscriptions: Mutex<HashMap<AccountId, Subscription>>,
    subscribed: Notify,
    catch_up: CatchUp,
    room: Room,
}

impl EntryFeed {
    /// Starts to poll.
    pub fn start(store: Arc<Store>, budgets: &Budgets) -> Arc<Self> {
        let feed = Arc::new(Self {
            catch_up: CatchUp::new(store.clone(), budgets),
            store,
            subscriptions: Mutex::default(),
            subscribed: Notify::new(),
            room: Room::default(),
        });
        let running = feed.clone();
        spawn_restarting("entry feed", move || {
            let feed = running.clone();
            async move { feed.run().await }
        });
        feed
    }

    /// How often a standby has taken the place of the primary. Each time, entries may be lost that were
    /// published, and others may get their sequences.
    pub fn failovers(&self) -> u64 {
        self.store.failovers()
    }

    /// Subscribes to the entries of an account, as it was read just now, after so many failovers.
    /// Returns the sequence after which they follow.
    pub fn subscribe(
        &self,
        account: &Account,
        failovers: u64,
    ) -> (broadcast::Receiver<Update>, i64) {
        let subscribed = {
            let mut subscriptions = self.subscriptions();
            let subscription =
                subscriptions.entry(account.account_id.clone()).or_insert_with(|| Subscription {
                    account: WatchedAccount {
                        account_id: account.account_id.clone(),
                        account_key: account.account_key,
                        currency: account.currency.clone(),
                        after_sequence: account.sequence,
                    },
                    failovers,
                    updates: broadcast::Sender::new(PAGES_KEPT_MAX),
                });
            (subscription.updates.subscribe(), subscription.account.after_sequence)
        };
        self.subscribed.notify_one();
        subscribed
    }

    async fn run(&self) {
        let mut outage = Outage::of("entries");
        loop {
            let started_at = Instant::now();
            let failovers = self.failovers();
            let accounts = self.watched_accounts(failovers);
            if accounts.is_empty() {
                self.subscribed.notified().await;
                // A read that failed before the idle time says nothing about the next one.
                outage = Outage::of("entries");
                continue;
            }
            let pause = match self.poll(accounts, failovers, started_at).await {
                Ok(()) => {
                    outage.end();
                    pause_after(started_at.elapsed())
                }
                Err(error) => {
                    if let Some(error) = outage.note(error) {
                        self.fail_all(&error);
                    }
                    // A failed poll may have taken long enough.
                    RETRY_INTERVAL
                }
            };
            sleep_until((started_at + POLL_INTERVAL).max(Instant::now() + pause)).await;
        }
    }

    /// The accounts that have watchers. Subscriptions without a watcher are removed, and those from before
    /// a failover, which ends their watchers.
    fn watched_accounts(&self, failovers: u64) -> Vec<WatchedAccount> {
        let mut subscriptions = self.subscriptions();
        subscriptions.retain(|_, it| it.updates.receiver_count() > 0 && it.failovers == failovers);
        subscriptions.values().map(|it| it.account.clone()).collect()
    }

    /// Reads and publishes new entries until there are none, or until the next poll is due.
    async fn poll(
        &self,
        mut accounts: Vec<WatchedAccount>,
        failovers: u64,
        started_at: Instant,
    ) -> Result<(), StorageError> {
        while !accounts.is_empty() {
            let limit = (POLL_ENTRIES_MAX / accounts.len()).clamp(1, FEED_PAGE_SIZE_MAX);
            let new_entries = read(self.store.new_entries(&accounts, limit)).await?;
            if self.failovers() != failovers {
                // They may follow on other entries than those that were published.
                return Ok(());
            }
            let mut has_more = Vec::new();
            for (account, entries) in accounts.into_iter().zip(new_entries) {
                let is_full = entries.as_ref().is_ok_and(|entries| entries.len() == limit);
                if let Some(account) = self.publish(account, entries)
                    && is_full
                {
                    has_more.push(account);
                }
            }
            if started_at.elapsed() > POLL_INTERVAL {
                break;
            }
            accounts = has_more;
        }
        Ok(())
    }

    /// Publishes entries to all watchers of an account. Returns the account with its new sequence,
    /// or None if its watchers have gone or its entries cannot be read.
    fn publish(
        &self,
        account: WatchedAccount,
        entries: Result<Vec<Entry>, StorageError>,
    ) -> Option<WatchedAccount> {
        let update = match entries {
            Ok(entries) if entries.is_empty() => return Some(account),
            Ok(entries) => Ok(self.room.page(entries)),
            Err(error) => Err(Error::from_read(error)),
        };
        let mut subscriptions = self.subscriptions();
        let subscription = subscriptions.get_mut(&account.account_id)?;
        let last = update.as_ref().ok().and_then(|page| page.last_sequence());
        // Fails only if the last watcher has gone.
        let _ = subscription.updates.send(update);
        let Some(last) = last else {
            subscriptions.remove(&account.account_id);
            return None;
        };
        subscription.account.after_sequence = last;
        Some(subscription.account.clone())
    }

    /// Ends all watches with this error.
    fn fail_all(&self, error: &Error) {
        for (_, subscription) in self.subscriptions().drain() {
            // Fails only if the last watcher has gone.
            let _ = subscription.updates.send(Err(error.clone()));
        }
    }

    /// Reads the next entries of one account, for a watcher of this identity that is subscribed.
    pub async fn page_after(
        &self,
        account: &WatchedAccount,
        identity: &Identity,
    ) -> Result<Page, StorageError> {
        let failovers = self.failovers();
        let published = {
            let subscriptions = self.subscriptions();
            let subscription = subscriptions.get(&account.account_id);
            let subscription = subscription.filter(|it| it.failovers == failovers);
            subscription.map(|it| it.account.after_sequence).unwrap_or_default()
        };
        self.catch_up.page_after(account, published, failovers, identity).await
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<AccountId, Subscription>> {
        lock(&self.subscriptions)
    }
}
