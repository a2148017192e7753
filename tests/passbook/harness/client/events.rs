//! A stream of WatchEvents, with what it has received.

use passbook::proto::{
    Event, EventKind, WatchEventsRequest, WatchEventsResponse, watch_events_request::Start,
};
use prost::Message;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::harness::{Client, PATIENCE, TestDatabase};

/// Draws the number of a commit.
pub const DRAW: &str = "SELECT nextval(pg_get_serial_sequence('commits', 'number'))";
/// Locks an account as a change of it does.
pub const LOCK_BOB: &str = "SELECT 1 FROM accounts WHERE account_id = 'bob' FOR UPDATE";

/// A session that executes this in a database transaction and leaves it open. It has the name of a
/// server: one that hangs before its COMMIT.
pub async fn hang_as_server(database: &TestDatabase, sql: &str) -> DatabaseConnection {
    let session = database.connect().await;
    let sql = format!("SET application_name = 'passbook'; BEGIN; {sql}");
    session.execute_unprepared(&sql).await.expect("it hangs");
    session
}

/// All events from the beginning.
pub fn all_events() -> WatchEventsRequest {
    events_from(Start::FromBeginning(()))
}

/// All events of a request that there are now, and the token after them.
pub async fn read_events(client: &Client, request: WatchEventsRequest) -> (Vec<Event>, String) {
    let mut watching = EventWatching::begin(client, request).await;
    let mut events = Vec::new();
    while !watching.has_caught_up {
        events.extend(watching.next().await.expect("the stream continues"));
    }
    (events, watching.token)
}

/// All events from now on.
pub fn events_from_now() -> WatchEventsRequest {
    events_from(Start::FromNow(()))
}

/// All events after a token.
pub fn events_after(token: &str) -> WatchEventsRequest {
    events_from(Start::AfterToken(token.to_owned()))
}

fn events_from(start: Start) -> WatchEventsRequest {
    WatchEventsRequest { start: Some(start), ..WatchEventsRequest::default() }
}

/// One stream and its last token.
pub struct EventWatching {
    stream: Streaming<WatchEventsResponse>,
    /// Of the last message; of the request before the first one, and empty if that had none.
    pub token: String,
    /// Whether the last message said that the stream is delayed.
    pub is_delayed: bool,
    /// Whether the last message said that the stream has caught up.
    pub has_caught_up: bool,
}

impl EventWatching {
    pub async fn begin(client: &Client, request: WatchEventsRequest) -> Self {
        Self::try_begin(client, request).await.expect("the stream begins")
    }

    pub async fn try_begin(client: &Client, request: WatchEventsRequest) -> Result<Self, Status> {
        let token = match &request.start {
            Some(Start::AfterToken(token)) => token.clone(),
            _ => String::new(),
        };
        let stream = client.watch_events(request).await?;
        Ok(Self { stream, token, is_delayed: false, has_caught_up: false })
    }

    /// The events of the next message.
    pub async fn next(&mut self) -> Result<Vec<Event>, Status> {
        let message = self.stream.message().await?.expect("a stream ends with an error only");
        assert!(!message.token.is_empty() && message.token.len() <= 64, "{}", message.token);
        assert!(message.events.len() <= 1000, "{}", message.events.len());
        let size = message.encoded_len();
        assert!(size < 16 * 1024 || message.events.len() == 1, "{size} bytes");
        self.token = message.token;
        self.is_delayed = message.delayed_since.is_some();
        assert!(
            message.caught_up || !self.has_caught_up,
            "a stream does not fall behind its begin"
        );
        self.has_caught_up = message.caught_up;
        Ok(message.events)
    }

    /// The next events, exactly so many.
    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let next = timeout(PATIENCE, self.next()).await;
            let next = next.unwrap_or_else(|_| {
                panic!("{} of {count} events within {PATIENCE:?}: {events:#?}", events.len())
            });
            events.extend(next.expect("the stream continues"));
        }
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    /// The error that ends the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// The kinds of these events.
pub fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(Event::kind).collect()
}
