//! One watcher: every event after a position, once, in order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    budget::Share,
    domain::{
        event::{CommitId, EventPosition},
        ids::Identity,
    },
    ledger::{
        Error,
        watch::{
            events::feed::{EventFeed, FeedState},
            feed::RETRY_INTERVAL,
            outage::OUTAGE_TIME_MAX,
            watcher::is_transient,
        },
    },
    storage::{EventPage, StorageError},
};

/// How often a watcher looks up a commit that the feed has not seen, that of its position or that with which
/// it will have caught up: the feed would not notice that the ledger loses it.
const POSITION_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The most bytes of a page that needs no room in the budget, unless its first event alone has more. Each
/// watcher may keep so much. Lower, and watchers without room read the database more often.
pub const SMALL_PAGE_SIZE: usize = 64 * 1024;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStart {
    /// After this position; the default is the beginning.
    After(EventPosition),
    /// At the moment of the call.
    Now,
}

/// Yields the events after some position: all of them, each once, in order.
pub struct EventWatcher {
    feed: Arc<EventFeed>,
    state: watch::Receiver<FeedState>,
    /// Behind the last event that was yielded.
    position: EventPosition,
    /// More events may be there already.
    has_more: bool,
    /// The losses that the feed had noticed when the position was read.
    losses: u64,
    began_at: Instant,
    /// Behind all events that were committed when the watch began, but for those that are lost.
    begin: EventPosition,
    identity: Identity,
    /// What the page that was yielded last is charged to, until the next one is asked for.
    page_share: Share,
}

impl EventWatcher {
    /// Starts to watch.
    ///
    /// # Errors
    /// The ledger does not have the position, or the database cannot be read.
    pub async fn new(
        feed: Arc<EventFeed>,
        start: EventStart,
        identity: Identity,
    ) -> Result<Self, Error> {
        let began_at = Instant::now();
        let state = feed.subscribe();
        let losses = state.borrow().losses;
        let (begin, position) = match start {
            EventStart::Now => {
                let now = feed.now(&identity).await.map_err(Error::from_read)?;
                (now, now)
            }
            EventStart::After(position) => {
                let begin = feed.last_position_for(&identity).await.map_err(Error::from_read)?;
                let rest = feed.rest_of_commit(position, &identity).await;
                rest.map_err(Error::from_read)?.ok_or(Error::EventTokenUnknown)?;
                (begin, position)
            }
        };
        let page_share = feed.page_share(&identity);
        let has_more = true;
        Ok(Self { feed, state, position, has_more, losses, began_at, begin, identity, page_share })
    }

    /// The position behind the last event that was yielded.
    pub fn position(&self) -> EventPosition {
        self.position
    }

    /// Whether all events that were committed when the watch began, and are not lost, lie before this
    /// position. Once they lie before the position of the watcher, they always do.
    pub fn has_caught_up_at(&self, position: EventPosition) -> bool {
        position >= self.begin
    }

    /// The state of the feed, with its changes.
    pub fn state(&self) -> watch::Receiver<FeedState> {
        self.state.clone()
    }

    /// Waits for the next events, or until the watch has caught up without one: then the page is empty.
    /// Dropping the future loses nothing. The page before must be dropped, since it is no longer charged.
    ///
    /// # Errors
    /// The database was unreachable for 10 s (`OUTAGE_TIME_MAX`), an event cannot be read, or the ledger
    /// has lost the position.
    pub async fn next(&mut self) -> Result<Arc<EventPage>, Error> {
        // A share can always shrink.
        self.page_share.try_resize(0);
        let mut failing_since: Option<Instant> = None;
        loop {
            let (until, losses) = self.until().await?;
            match self.read(until).await {
                Ok(None) => return Err(Error::EventTokenUnknown),
                Ok(Some((page, begin))) => {
                    failing_since = None;
                    let page = self.charge(page);
                    let had_caught_up = self.has_caught_up_at(self.position);
                    (self.has_more, self.losses) = (page.has_more, losses);
                    (self.position, self.begin) = (page.end, begin);
                    let catches_up = !had_caught_up && self.has_caught_up_at(self.position);
                    if !page.events.is_empty() || catches_up {
                        return Ok(page);
                    }
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if !is_transient(&error) || since.elapsed() > OUTAGE_TIME_MAX {
                        return Err(Error::from_read(error));
                    }
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// What the watcher keeps of a page until its caller has read it: a slow caller may take long. Without
    /// room for all of it that is its beginning, and the rest is read again when it is wanted.
    fn charge(&mut self, page: Arc<EventPage>) -> Arc<EventPage> {
        let size = page.size();
        if size <= SMALL_PAGE_SIZE || self.page_share.try_resize(size) {
            return page;
        }
        Arc::new(page.beginning(SMALL_PAGE_SIZE))
    }

    /// Reads the next page, and with it the begin of the watch, which may be lost. None: the ledger has
    /// lost the position.
    async fn read(
        &self,
        until: Option<CommitId>,
    ) -> Result<Option<(Arc<EventPage>, EventPosition)>, StorageError> {
        let page = match until {
            Some(until) => self.feed.page(self.position, until, &self.identity).await?,
            None => self.feed.rest_of_commit(self.position, &self.identity).await?,
        };
        let Some(page) = page else { return Ok(None) };
        let is_before_begin = !page.has_more && page.end < self.begin;
        if is_before_begin && self.feed.rest_of_commit(self.begin, &self.identity).await?.is_none()
        {
            // What was committed at the begin of the watch, and is left, lies before any later end.
            return Ok(Some((page, self.feed.last_position_for(&self.identity).await?)));
        }
        Ok(Some((page, self.begin)))
    }

    /// Waits until there may be events, or the ledger may have lost the position or the begin of the watch.
    /// Returns the commit up to which to read, and the losses that the feed has noticed. None: the feed is
    /// behind the position.
    async fn until(&mut self) -> Result<(Option<CommitId>, u64), Error> {
        let (own, has_more, losses) = (self.position.commit_id(), self.has_more, self.losses);
        let began_at = self.began_at;
        // Another server may have found the commit of the position before the feed.
        let is_behind =
            |complete: Option<CommitId>| complete.is_none_or(|it| it.number < own.number);
        let is_due = |state: &FeedState| match state.complete(began_at) {
            // An error ends the wait, too.
            Err(_) => true,
            Ok(_) if state.losses != losses => true,
            Ok(complete) => complete.is_some_and(|it| has_more || it.number > own.number),
        };
        let is_behind_now = self.state.borrow().complete(began_at).is_ok_and(is_behind);
        let is_checked = is_behind_now || !self.has_caught_up_at(self.position);
        let limit = if is_checked { POSITION_CHECK_INTERVAL } else { Duration::MAX };
        if let Ok(state) = timeout(limit, self.state.wait_for(is_due)).await {
            // The feed lives as long as its watchers.
            state.map_err(|_| Error::ShuttingDown)?;
        }
        let state = self.state.borrow();
        let complete = state.complete(began_at)?;
        Ok((complete.filter(|_| !is_behind(complete)), state.losses))
    }
}
