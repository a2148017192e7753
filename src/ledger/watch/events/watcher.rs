//! One watcher: every event after a position, once, in order.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    domain::{event::EventPosition, ids::Identity},
    ledger::{
        Error,
        watch::{
            events::feed::{EventFeed, FeedState},
            feed::RETRY_INTERVAL,
            outage::OUTAGE_TIME_MAX,
            watcher::is_transient,
        },
    },
    storage::EventPage,
};

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
    identity: Identity,
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
        let state = feed.subscribe();
        let position = match start {
            EventStart::Now => feed.now().await.map_err(Error::from_read)?,
            EventStart::After(position) => {
                let is_known = feed.has(position, &identity).await.map_err(Error::from_read)?;
                is_known.then_some(position).ok_or(Error::EventTokenUnknown)?
            }
        };
        Ok(Self { feed, state, position, has_more: true, identity })
    }

    /// The position behind the last event that was yielded.
    pub fn position(&self) -> EventPosition {
        self.position
    }

    /// The state of the feed, with its changes.
    pub fn state(&self) -> watch::Receiver<FeedState> {
        self.state.clone()
    }

    /// Waits for the next events. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The database was unreachable for 10 s (`OUTAGE_TIME_MAX`), or an event cannot be read.
    pub async fn next(&mut self) -> Result<Arc<EventPage>, Error> {
        let mut failing_since: Option<Instant> = None;
        loop {
            let complete = self.complete().await?;
            match self.feed.page(self.position, complete, &self.identity).await {
                Ok(None) => return Err(Error::EventTokenUnknown),
                Ok(Some(page)) => {
                    let is_missing = page.events.is_empty() && complete > self.position.commit;
                    self.has_more = page.has_more;
                    self.position = page.end;
                    if !page.events.is_empty() {
                        return Ok(page);
                    }
                    if is_missing {
                        // A failover has lost commits, which the feed will notice.
                        sleep(RETRY_INTERVAL).await;
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

    /// The commit up to which to read, when there may be events up to it. Never before the commit of
    /// the position, which another server may have found first.
    async fn complete(&mut self) -> Result<i64, Error> {
        let (position, has_more) = (self.position.commit, self.has_more);
        let is_ahead = |state: &FeedState| {
            // An error ends the wait, too.
            state.complete().map_or(true, |complete| {
                complete.is_some_and(|complete| has_more || complete > position)
            })
        };
        // The feed lives as long as its watchers.
        let state = self.state.wait_for(is_ahead).await.map_err(|_| Error::ShuttingDown)?;
        Ok(state.complete()?.unwrap_or_default().max(position))
    }
}
