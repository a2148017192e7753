//! WatchEvents streams during a run, and one after it that reads all there is.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use hdrhistogram::Histogram;
use passbook_command::{CliError, client::Connection};
use prost::Message;
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::{
    proto::{WatchEventsRequest, watch_events_request::Start},
    servers::Servers,
    watchers::{Progress, Watch, WatchStats, Watchers, next, open},
};

const WATCH_EVENTS: &str = "/passbook.v1.AccountService/WatchEvents";

/// What a watcher of a run reads of WatchEventsResponse: decoding whole events would be most of the work
/// of a run that measures the servers.
#[derive(Clone, PartialEq, Message)]
struct Events {
    #[prost(message, repeated, tag = "1")]
    events: Vec<Event>,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(bool, tag = "4")]
    caught_up: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(message, optional, tag = "2")]
    transaction: Option<Transaction>,
}

#[derive(Clone, PartialEq, Message)]
struct Transaction {
    #[prost(string, tag = "2")]
    request_id: String,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    account_id: String,
    #[prost(int64, tag = "2")]
    sequence: i64,
}

/// How long after their results at the callers events come.
pub struct Lags(Mutex<ResultTimes>);

struct ResultTimes {
    by_request_id: HashMap<String, Instant>,
    /// In microseconds.
    lags: Histogram<u64>,
}

impl Lags {
    fn new() -> Result<Self, CliError> {
        // Up to 60 s, with three significant digits.
        let lags = Histogram::new_with_max(60_000_000, 3).map_err(CliError::run)?;
        Ok(Self(Mutex::new(ResultTimes { by_request_id: HashMap::new(), lags })))
    }

    /// Notes the time of a result.
    pub async fn add_result(&self, request_id: &str, time: Instant) {
        self.0.lock().await.by_request_id.insert(request_id.to_owned(), time);
    }

    /// Notes events that have just come. One that comes before its result has no lag.
    async fn add_events<'a>(&self, request_ids: impl Iterator<Item = &'a str> + Send) {
        let now = Instant::now();
        let mut times = self.0.lock().await;
        let ResultTimes { by_request_id, lags } = &mut *times;
        for request_id in request_ids {
            let lag = by_request_id.get(request_id).map(|time| now.duration_since(*time));
            // A lag above the bound of the histogram counts as that bound.
            lags.saturating_record(lag.unwrap_or_default().as_micros() as u64);
        }
    }

    async fn at(&self, percentile: f64) -> f64 {
        self.0.lock().await.lags.value_at_percentile(percentile) as f64 / 1000.0
    }
}

/// The events of the run's accounts.
#[derive(Clone)]
struct EventWatch {
    request: WatchEventsRequest,
    /// The sequence of the last entry of each account that was received.
    sequences: HashMap<String, i64>,
    lags: Arc<Lags>,
}

impl Watch for EventWatch {
    async fn read(
        &mut self,
        connection: &Connection,
        progress: &Progress,
        stats: &mut WatchStats,
    ) -> Result<Infallible, Status> {
        let mut messages = open_events(connection, self.request.clone()).await?;
        loop {
            let message = next(&mut messages).await?;
            stats.messages += 1;
            if let Err(gap) = self.take(&message, progress, stats).await {
                stats.gap = Some(gap);
                return Err(Status::data_loss("an entry is missing"));
            }
            // The first message comes at once, with the token of the beginning.
            self.request.start = Some(Start::AfterToken(message.token));
            progress.is_open.store(true, Relaxed);
        }
    }
}

impl EventWatch {
    /// Checks that each event of a message comes once: the entries of each account have no gap. The error
    /// is the gap.
    async fn take(
        &mut self,
        message: &Events,
        progress: &Progress,
        stats: &mut WatchStats,
    ) -> Result<(), String> {
        let transactions = || message.events.iter().filter_map(|event| event.transaction.as_ref());
        self.lags.add_events(transactions().map(|it| it.request_id.as_str())).await;
        for Entry { account_id, sequence } in transactions().flat_map(|it| &it.entries) {
            let Some(last) = self.sequences.get_mut(account_id) else { continue };
            let last = mem::replace(last, *sequence);
            if *sequence != last + 1 {
                return Err(format!("account {account_id}: sequence {sequence} after {last}"));
            }
            stats.entries += 1;
            progress.entries.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

async fn open_events(
    connection: &Connection,
    request: WatchEventsRequest,
) -> Result<Streaming<Events>, Status> {
    open(connection, WATCH_EVENTS, request, ProstCodec::default()).await
}

/// The open streams of a run.
pub struct EventWatchers {
    watchers: Watchers,
    count: u32,
    lags: Arc<Lags>,
}

/// The report of the WatchEvents streams. The fields have the names of the keys in the JSON.
#[derive(Clone, Default, Serialize)]
pub struct EventReport {
    pub watchers: u32,
    /// Entries that all watchers together received.
    pub entries: u64,
    /// Messages that all watchers together received, heartbeats included.
    pub messages: u64,
    /// Streams that broke and were opened again, by reason.
    pub cuts: BTreeMap<String, u64>,
    /// The time from the end of the load until all watchers had all entries.
    pub caught_up_ms: f64,
    /// The time from a result at its caller to its event at a watcher.
    pub lag_p50_ms: f64,
    pub lag_p99_ms: f64,
    /// All events of the ledger, read on one stream after the load.
    pub backlog_events: u64,
    pub backlog_events_per_s: f64,
    /// Null if each watcher received each event once.
    pub error: Option<String>,
}

impl EventWatchers {
    /// Opens so many streams of the accounts whose ids begin so, and that have these sequences.
    pub async fn open(
        servers: &Servers,
        prefix: String,
        sequences: &HashMap<String, i64>,
        count: u32,
    ) -> Result<Self, CliError> {
        let lags = Arc::new(Lags::new()?);
        let request = WatchEventsRequest {
            account_id_prefixes: vec![prefix],
            start: Some(Start::FromNow(())),
            ..WatchEventsRequest::default()
        };
        let (sequences, lags_of_watch) = (sequences.clone(), lags.clone());
        let watch = EventWatch { request, sequences, lags: lags_of_watch };
        let watches = vec![watch; count as usize];
        Ok(Self { watchers: Watchers::open(servers, watches).await?, count, lags })
    }

    /// Where callers note their results.
    pub fn lags(&self) -> &Arc<Lags> {
        &self.lags
    }

    /// Waits until each watcher has received so many entries, then reads all events of the ledger.
    pub async fn finish(self, servers: &Servers, entries: i64) -> EventReport {
        let watched = self.watchers.finish(&vec![entries; self.count as usize]).await;
        let mut report = EventReport { watchers: self.count, ..EventReport::default() };
        report.lag_p50_ms = self.lags.at(50.0).await;
        report.lag_p99_ms = self.lags.at(99.0).await;
        match watched {
            Ok(stats) => {
                (report.entries, report.messages) = (stats.entries, stats.messages);
                report.cuts = stats.cuts;
                report.caught_up_ms = stats.caught_up_after.as_secs_f64() * 1000.0;
            }
            Err(error) => report.error = Some(error),
        }
        let began = Instant::now();
        match backlog(servers).await {
            Ok(count) => {
                report.backlog_events = count;
                report.backlog_events_per_s = count as f64 / began.elapsed().as_secs_f64();
            }
            Err(status) => {
                let failed = || format!("the backlog cannot be read: {}", status.message());
                report.error.get_or_insert_with(failed);
            }
        }
        report
    }
}

/// Reads the events that there are, from the first one on. Returns their number.
async fn backlog(servers: &Servers) -> Result<u64, Status> {
    let (_, connection) = servers.connections(1, None).remove(0);
    let start = Some(Start::FromBeginning(()));
    let request = WatchEventsRequest { start, ..WatchEventsRequest::default() };
    let mut messages = open_events(&connection, request).await?;
    let mut count = 0;
    loop {
        let message = next(&mut messages).await?;
        count += message.events.len() as u64;
        if message.caught_up {
            return Ok(count);
        }
    }
}
