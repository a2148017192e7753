//! WatchEvents: sends the events that the caller may read and has asked for, and heartbeats without
//! them. Events that the caller may no longer read are hidden. The stream ends when it may read none.
//!
//! A message says whether the stream has caught up: with what was committed when it began, which does
//! not move. So a stream catches up at some time, however fast the ledger grows, and a caller that wants
//! what there is knows where that ends.

use std::{pin::pin, time::SystemTime};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use crate::{
    auth::CallAuthorization,
    domain::event::{Event, EventFilter, EventPosition},
    grpc::{
        encode::{self, response_size},
        messages::{MESSAGE_SIZE_MAX, MessageSender},
    },
    ledger::{EventWatcher, FeedState},
    proto::{self, WatchEventsResponse},
};

/// The most bytes of events in one message, which has a prefix and a token, too.
const EVENTS_SIZE_MAX: usize = MESSAGE_SIZE_MAX - 64;

/// One stream.
pub struct EventStream {
    watcher: EventWatcher,
    filter: EventFilter,
    authorization: CallAuthorization,
    /// A message has said that the stream has caught up.
    caught_up_is_sent: bool,
}

impl EventStream {
    /// A stream of what is selected of these events.
    pub fn new(
        watcher: EventWatcher,
        filter: EventFilter,
        authorization: CallAuthorization,
    ) -> Self {
        Self { watcher, filter, authorization, caught_up_is_sent: false }
    }

    /// Forwards events until an error, and returns its status.
    pub async fn forward(mut self, mut sender: MessageSender<WatchEventsResponse>) -> Status {
        loop {
            if let Err(status) = self.forward_page(&mut sender).await {
                return status;
            }
        }
    }

    /// Forwards the next page, and heartbeats until there is one.
    async fn forward_page(
        &mut self,
        sender: &mut MessageSender<WatchEventsResponse>,
    ) -> Result<(), Status> {
        let (before, mut state) = (self.watcher.position(), self.watcher.state());
        let caught_up = self.watcher.has_caught_up_at(before);
        let heartbeat = |delayed_since: Option<SystemTime>| {
            let delayed_since = delayed_since.map(prost_types::Timestamp::from);
            WatchEventsResponse { delayed_since, ..message(Vec::new(), before, caught_up) }
        };
        let mut delayed_since = None;
        sender.wants_more().await?;
        if caught_up && !self.caught_up_is_sent {
            delayed_since = state.borrow().delayed_since;
            sender.send(heartbeat(delayed_since)).await;
            self.caught_up_is_sent = true;
            sender.wants_more().await?;
        }
        let page = {
            // One future across heartbeats: a slow read must reach its result or its error, and is not
            // left alone with its permit.
            let mut next = pin!(self.watcher.next());
            loop {
                tokio::select! {
                    page = &mut next => break page?,
                    () = is_delayed(&mut state, delayed_since) => {}
                    () = sleep_until(sender.heartbeat_time()) => {}
                }
                delayed_since = state.borrow().delayed_since;
                sender.send(heartbeat(delayed_since)).await;
                if let Some(page) = sender.wants_more_beside(&mut next).await? {
                    break page?;
                }
            }
        };
        // Empty if the stream has caught up without an event: then a heartbeat says so.
        // It stays in memory until the caller has read it, and is dropped before the watcher reads the next.
        let (mut rest, mut end) = (page.events.as_slice(), before);
        while !rest.is_empty() {
            sender.wants_more().await?;
            let events = self.take_visible(&mut rest, &mut end)?;
            if !events.is_empty() || sender.heartbeat_time() < Instant::now() {
                let caught_up = self.watcher.has_caught_up_at(end);
                sender.send(message(events, end, caught_up)).await;
                self.caught_up_is_sent |= caught_up;
            }
        }
        Ok(())
    }

    /// Takes the next events until those for the caller fill a message, and returns these. `end` becomes
    /// the position behind what was taken.
    fn take_visible(
        &mut self,
        rest: &mut &[(EventPosition, Event)],
        end: &mut EventPosition,
    ) -> Result<Vec<proto::Event>, Status> {
        // With the rights of this moment.
        let grant = self.authorization.caller()?.grant.clone();
        let (mut events, mut size) = (Vec::new(), 0);
        while let Some(((position, event), others)) = rest.split_first() {
            let event = grant.visible_event(event.clone()).filter(|it| self.filter.selects(it));
            if let Some(event) = event.map(encode::event) {
                size += response_size::size_in_list(&event);
                if size > EVENTS_SIZE_MAX && !events.is_empty() {
                    break;
                }
                events.push(event);
            }
            (*rest, *end) = (others, *position);
        }
        Ok(events)
    }
}

fn message(
    events: Vec<proto::Event>,
    position: EventPosition,
    caught_up: bool,
) -> WatchEventsResponse {
    let token = encode::event_token(position);
    WatchEventsResponse { events, token, caught_up, delayed_since: None }
}

/// Waits until the feed is delayed, and not only since then.
async fn is_delayed(state: &mut watch::Receiver<FeedState>, known: Option<SystemTime>) {
    let is_new = |state: &FeedState| state.delayed_since.is_some() && state.delayed_since != known;
    if state.wait_for(is_new).await.is_err() {
        // The server ends, which ends the stream, too.
        std::future::pending::<()>().await;
    }
}
