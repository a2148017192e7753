//! Finds up to which commit the ledger is complete, and reads pages of events; one a process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    budget::{Budget, Budgets, Gate, Share},
    domain::{
        event::{CommitId, EventPosition},
        ids::Identity,
    },
    ledger::{
        Error,
        watch::{
            feed::{POLL_INTERVAL, RETRY_INTERVAL, pause_after},
            outage::Outage,
            read::read,
            shared::SharedPages,
        },
    },
    restart::spawn_restarting,
    storage::{EventPage, StorageError, Store},
};

/// The pause before the feed looks whether a database transaction has ended. It doubles each time, up
/// to `POLL_INTERVAL`: most take milliseconds, and one that hangs may do so for long.
const PENDING_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// How long the feed waits for a missing commit before it says so.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// Pages that watchers at the same position share, of up to a megabyte each.
const SHARED_PAGES_MAX: usize = 16;
/// Watchers that read the database at the same time: a quarter of the connections that are reserved
/// for the service. Other watchers wait.
const RESERVED_DIVISOR: u32 = 4;

/// How far the ledger is complete.
#[derive(Clone, Debug, Default)]
pub struct FeedState {
    /// All commits up to this one can be seen, and it exists. None: that is not known yet. The default:
    /// there is no commit.
    complete: Option<CommitId>,
    /// How often the ledger has lost commits since this process began.
    pub losses: u64,
    /// Since when the feed has waited for a database transaction of a server, if that is long.
    pub delayed_since: Option<SystemTime>,
    /// Why the database cannot be read, if that has lasted for long, and when this was noted.
    error: Option<(Instant, Error)>,
}

impl FeedState {
    /// The commit up to which the ledger is complete, if it is known, for a watch that began at this time.
    ///
    /// # Errors
    /// The database was unreachable for 10 s (`OUTAGE_TIME_MAX`). An outage from before the watch is none:
    /// the watch began with a read that succeeded.
    pub fn complete(&self, began_at: Instant) -> Result<Option<CommitId>, Error> {
        match &self.error {
            Some((noted_at, error)) if *noted_at > began_at => Err(error.clone()),
            Some(_) | None => Ok(self.complete),
        }
    }
}

/// See the module.
pub struct EventFeed {
    store: Arc<Store>,
    state: watch::Sender<FeedState>,
    subscribed: Notify,
    reads: Semaphore,
    /// One of them for the watchers of one identity.
    gate: Gate,
    /// What the pages that watchers keep are charged to.
    page_bytes: Arc<Budget>,
    /// None: the ledger does not have the position.
    shared: SharedPages<PageKey, Option<Arc<EventPage>>>,
}

#[derive(PartialEq)]
struct PageKey {
    after: EventPosition,
    /// The page has the next commit. Wherever it ends, a watcher that is further behind the feed goes on
    /// from there: so watchers that begin at different times share pages, too.
    has_next_commit: bool,
}

impl EventFeed {
    /// Starts to poll.
    pub fn start(store: Arc<Store>, budgets: &Budgets) -> Arc<Self> {
        let reads_max = (store.connection_counts().reserved / RESERVED_DIVISOR).max(1) as usize;
        let feed = Arc::new(Self {
            store,
            state: watch::Sender::default(),
            subscribed: Notify::new(),
            reads: Semaphore::new(reads_max),
            gate: budgets.gate(1),
            page_bytes: budgets.event_page_bytes.clone(),
            shared: SharedPages::new(SHARED_PAGES_MAX),
        });
        let running = feed.clone();
        spawn_restarting("event feed", move || {
            let feed = running.clone();
            async move { feed.run().await }
        });
        feed
    }

    /// Subscribes to the state of the feed, which polls while somebody is subscribed.
    pub fn subscribe(&self) -> watch::Receiver<FeedState> {
        let state = self.state.subscribe();
        self.subscribed.notify_one();
        state
    }

    /// An empty share of the bytes of pages, for a watcher of this identity.
    pub fn page_share(&self, identity: &Identity) -> Share {
        self.page_bytes.share(identity.clone(), None)
    }

    /// The position behind all commits that were confirmed to somebody. Commits before it may still be
    /// on their way.
    pub async fn last_position(&self) -> Result<EventPosition, StorageError> {
        read(self.store.last_position()).await
    }

    /// The same, for a watcher of this identity.
    pub async fn last_position_for(
        &self,
        identity: &Identity,
    ) -> Result<EventPosition, StorageError> {
        let _own = self.gate.enter(identity).await;
        self.last_position().await
    }

    /// The position of this moment, for a watcher of this identity: no commit before it is on its way.
    pub async fn now(&self, identity: &Identity) -> Result<EventPosition, StorageError> {
        let last = self.last_position_for(identity).await?;
        // A delay of this watch alone: the others wait only if a number is missing.
        self.wait_for_missing(Some(identity), |_| ()).await?;
        Ok(last)
    }

    async fn run(&self) {
        let mut outage = Outage::of("events");
        loop {
            if self.state.receiver_count() == 0 {
                outage = Outage::of("events");
                self.forget();
                self.subscribed.notified().await;
                continue;
            }
            let started_at = Instant::now();
            let pause = match self.poll(started_at).await {
                Ok(reading) => {
                    outage.end();
                    pause_after(reading)
                }
                Err(error) => {
                    if let Some(error) = outage.note(error) {
                        let noted = Some((Instant::now(), error));
                        self.state.send_modify(|state| state.error = noted);
                    }
                    RETRY_INTERVAL
                }
            };
            sleep_until((started_at + POLL_INTERVAL).max(Instant::now() + pause)).await;
        }
    }

    /// Looks for new commits until it has seen all, or until the next poll is due. Returns how long
    /// the reads took, without the wait for missing commits: a pause for that would delay events.
    async fn poll(&self, started_at: Instant) -> Result<Duration, StorageError> {
        let mut reading = Duration::ZERO;
        loop {
            let known = self.state.borrow().complete;
            let Some(known) = known else {
                let last = self.last_position().await?;
                self.wait_for_missing(None, |since| self.note_delay(since)).await?;
                self.publish(last.commit_id());
                continue;
            };
            let read_at = Instant::now();
            let new = read(self.store.new_commits(known)).await?;
            reading += read_at.elapsed();
            let Some(new) = new else {
                self.note_loss();
                continue;
            };
            self.publish(new.consecutive);
            if new.consecutive != new.last {
                self.wait_for_missing(None, |since| self.note_delay(since)).await?;
                self.publish(new.last);
            }
            if !new.has_more || started_at.elapsed() > POLL_INTERVAL {
                return Ok(reading);
            }
        }
    }

    /// Waits until no database transaction is open that may have one of the missing numbers, for a watcher
    /// of this identity or for all. While the wait is long, calls `note_delay` with the time of its begin.
    async fn wait_for_missing(
        &self,
        identity: Option<&Identity>,
        note_delay: impl Fn(SystemTime),
    ) -> Result<(), StorageError> {
        let open_transactions = async || {
            let _own = match identity {
                Some(identity) => Some(self.gate.enter(identity).await),
                None => None,
            };
            read(self.store.open_transactions()).await
        };
        let since = SystemTime::now();
        let mut pending = open_transactions().await?;
        let mut interval = PENDING_INTERVAL_MIN;
        while !pending.is_empty() {
            sleep(interval).await;
            interval = (interval * 2).min(POLL_INTERVAL);
            let open = open_transactions().await?;
            pending.retain(|it| open.contains(it));
            if since.elapsed().unwrap_or_default() > DELAY_MIN {
                note_delay(since);
            }
        }
        Ok(())
    }

    fn note_delay(&self, since: SystemTime) {
        show_delay(since.elapsed().unwrap_or_default());
        self.state.send_if_modified(|state| {
            let is_new = state.delayed_since.is_none();
            state.delayed_since.get_or_insert(since);
            is_new
        });
    }

    fn publish(&self, complete: CommitId) {
        show_delay(Duration::ZERO);
        self.state.send_if_modified(|state| {
            let is_new = state.complete != Some(complete);
            let losses = state.losses;
            *state = FeedState { complete: Some(complete), losses, ..FeedState::default() };
            is_new
        });
    }

    /// Forgets what will be out of date when somebody subscribes. The feed does not poll meanwhile, so it
    /// would not notice a loss of the commits of its pages.
    fn forget(&self) {
        show_delay(Duration::ZERO);
        self.shared.clear();
        self.state.send_modify(|state| {
            *state = FeedState { losses: state.losses, ..FeedState::default() };
        });
    }

    /// Notes that the last complete commit is gone, so that all watchers look their positions up again.
    fn note_loss(&self) {
        tracing::warn!(
            "the ledger has lost commits, by a failover or a restore: streams behind them end"
        );
        self.shared.clear();
        self.state.send_modify(|state| {
            state.complete = None;
            state.losses += 1;
        });
    }

    /// Reads the rest of the position's commit, which is complete, for a watcher of this identity. None
    /// if the ledger does not have the position at this moment.
    pub async fn rest_of_commit(
        &self,
        position: EventPosition,
        identity: &Identity,
    ) -> Result<Option<Arc<EventPage>>, StorageError> {
        let _own = self.gate.enter(identity).await;
        self.read_page(position, position.commit_id()).await
    }

    /// Reads the events after a position, for a watcher of this identity. None if the ledger does not
    /// have the position.
    pub async fn page(
        &self,
        after: EventPosition,
        until: CommitId,
        identity: &Identity,
    ) -> Result<Option<Arc<EventPage>>, StorageError> {
        // Taken before the page: others that share the page must not wait for this identity.
        let _own = self.gate.enter(identity).await;
        let key = PageKey { after, has_next_commit: until.number > after.commit };
        self.shared.get_or_read(key, self.read_page(after, until)).await
    }

    async fn read_page(
        &self,
        after: EventPosition,
        until: CommitId,
    ) -> Result<Option<Arc<EventPage>>, StorageError> {
        // Fails only if the semaphore were closed, which nothing does.
        let _permit = self.reads.acquire().await;
        Ok(read(self.store.events(after, until)).await?.map(Arc::new))
    }
}

fn show_delay(delay: Duration) {
    ::metrics::gauge!("passbook_event_feed_delay_seconds").set(delay.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: CommitId = CommitId { number: 7, time_us: 8 };

    #[test]
    fn an_outage_ends_the_watches_that_it_met_and_no_later_ones() {
        let now = Instant::now();
        let error = Some((now, Error::DatabaseUnavailable(None)));
        let state = FeedState { complete: Some(COMMIT), error, ..FeedState::default() };
        let before = now.checked_sub(Duration::from_nanos(1)).unwrap();
        assert!(matches!(state.complete(before), Err(Error::DatabaseUnavailable(None))));
        assert!(matches!(state.complete(now), Ok(Some(COMMIT))));
    }
}
