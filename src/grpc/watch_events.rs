//! WatchEvents: sends the events that the caller may read and has asked for, and heartbeats without
//! them. Events that the caller may no longer read are hidden, which ends no stream.

use std::time::SystemTime;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use crate::{
    auth::CallAuthorization,
    domain::event::{EventFilter, EventPosition},
    grpc::{
        encode::{self, response_size},
        watching::{HEARTBEAT_INTERVAL, Messages},
    },
    ledger::{EventWatcher, FeedState},
    proto::{self, WatchEventsResponse},
};

/// The most bytes of events in a message, unless its first event alone has more: small enough that many
/// streams have a message that waits to be read.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// One stream.
pub struct EventStream {
    pub watcher: EventWatcher,
    pub filter: EventFilter,
    pub authorization: CallAuthorization,
}

impl EventStream {
    /// Forwards events until an error, and returns its status.
    pub async fn forward(mut self, messages: Messages<WatchEventsResponse>) -> Status {
        let mut sent_at = Instant::now();
        loop {
            if let Err(status) = self.forward_page(&messages, &mut sent_at).await {
                return status;
            }
        }
    }

    /// Forwards the next page, and heartbeats until there is one. `sent_at` is the time of the last
    /// message.
    async fn forward_page(
        &mut self,
        messages: &Messages<WatchEventsResponse>,
        sent_at: &mut Instant,
    ) -> Result<(), Status> {
        let (before, mut state) = (self.watcher.position(), self.watcher.state());
        let mut delayed_since = None;
        let page = {
            // One future across heartbeats: a slow read must reach its result or its error.
            let mut next = std::pin::pin!(self.watcher.next());
            loop {
                tokio::select! {
                    page = &mut next => break page?,
                    () = is_delayed(&mut state, delayed_since) => {}
                    () = sleep_until(*sent_at + HEARTBEAT_INTERVAL) => {}
                }
                delayed_since = state.borrow().delayed_since;
                let heartbeat = message(Vec::new(), before);
                let delayed_since = delayed_since.map(prost_types::Timestamp::from);
                messages.send(WatchEventsResponse { delayed_since, ..heartbeat }).await?;
                *sent_at = Instant::now();
            }
        };
        // With the rights of this moment.
        let grant = self.authorization.caller()?.grant.clone();
        let (mut events, mut room, mut last) = (Vec::new(), MESSAGE_BYTES_MAX, before);
        for (position, event) in &page.events {
            let event = grant.visible_event(event.clone()).filter(|it| self.filter.selects(it));
            if let Some(event) = event.map(encode::event) {
                let size = response_size::size_in_list(&event);
                if size > room && !events.is_empty() {
                    messages.send(message(std::mem::take(&mut events), last)).await?;
                    room = MESSAGE_BYTES_MAX;
                }
                room = room.saturating_sub(size);
                events.push(event);
            }
            last = *position;
        }
        if !events.is_empty() || sent_at.elapsed() > HEARTBEAT_INTERVAL {
            messages.send(message(events, page.end)).await?;
            *sent_at = Instant::now();
        }
        Ok(())
    }
}

fn message(events: Vec<proto::Event>, position: EventPosition) -> WatchEventsResponse {
    WatchEventsResponse { events, token: encode::event_token(position), delayed_since: None }
}

/// Waits until the feed is delayed, and not only since then.
async fn is_delayed(state: &mut watch::Receiver<FeedState>, known: Option<SystemTime>) {
    let is_new = |state: &FeedState| state.delayed_since.is_some() && state.delayed_since != known;
    if state.wait_for(is_new).await.is_err() {
        // The server ends, which ends the stream, too.
        std::future::pending::<()>().await;
    }
}
