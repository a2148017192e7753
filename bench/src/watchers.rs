//! WatchEntries streams during a run. They are part of the load, and must not miss an entry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use passbook_command::{CliError, client::Connection, output};
use tokio::{
    runtime::Builder,
    sync::watch,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tonic::{Request, Status, client::Grpc};

use crate::{driver, proto, servers::Servers, watch_codec::WatchCodec};

const WATCH_ENTRIES: &str = "/passbook.v1.AccountService/WatchEntries";
/// The time after the load within which the watchers must have received the last entry.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(30);
/// The interval at which the progress of the watchers is checked.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// The pause before a watcher opens a broken stream again.
const RECONNECT_BACKOFF: Duration = Duration::from_millis(100);

/// The open streams, which a thread reads all the time.
pub struct Watchers {
    watchers: Vec<Watcher>,
    /// A separate thread, so that the load does not wait for the watchers.
    reading: std::thread::JoinHandle<WatchStats>,
    stop: watch::Sender<bool>,
}

/// The state of one stream, shared with the thread that reads it.
#[derive(Clone)]
struct Watcher {
    account_id: String,
    /// The sequence of the last entry that was received.
    sequence: Arc<AtomicI64>,
    /// Whether the stream is open.
    is_open: Arc<AtomicBool>,
}

/// The measurements of one watcher, or of all.
#[derive(Default)]
pub struct WatchStats {
    /// Entries that were received.
    pub entries: u64,
    /// Messages that were received, heartbeats included.
    pub messages: u64,
    /// Streams that broke, by reason. Each was opened again.
    pub cuts: BTreeMap<String, u64>,
    /// The time from the end of the load until all watchers had received all entries.
    pub caught_up_after: Duration,
    /// The first entry whose sequence did not follow the previous one.
    gap: Option<String>,
}

impl Watchers {
    /// Opens `count` streams, evenly over the accounts, and waits until all streams are open.
    pub async fn open(
        servers: &Servers,
        account_ids: &[String],
        sequences: &HashMap<String, i64>,
        count: u32,
    ) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let bar = output::bar(u64::from(count), "opening watchers {bar:40} {pos}/{len}");
        let watcher = |account_id: &String| Watcher {
            account_id: account_id.clone(),
            sequence: Arc::new(sequences.get(account_id).copied().unwrap_or_default().into()),
            is_open: Arc::default(),
        };
        let watchers: Vec<_> =
            account_ids.iter().cycle().take(count as usize).map(watcher).collect();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(CliError::run)?;
        let channels = {
            // A channel belongs to the runtime in which it is created.
            let _inside = runtime.enter();
            servers.connections(count, None)
        };
        let all: Vec<_> = watchers.iter().cloned().zip(channels).collect();
        let reading = std::thread::spawn(move || {
            let follow = |(watcher, (_, channel))| follow(channel, watcher, stopped.clone());
            runtime.block_on(async { sum(all.into_iter().map(follow).collect()).await })
        });
        let end = Instant::now() + CATCH_UP_TIME_MAX;
        while let Some(position) = watchers.iter().position(|it| !it.is_open.load(Relaxed)) {
            if Instant::now() > end {
                return Err(CliError::Run(
                    "not all WatchEntries streams could be opened".to_owned(),
                ));
            }
            bar.set_position(position as u64);
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        bar.finish_and_clear();
        Ok(Self { watchers, reading, stop })
    }

    /// Waits until the watchers have received all entries up to these sequences, then ends the
    /// streams.
    pub async fn finish(self, sequences: &HashMap<String, i64>) -> Result<WatchStats, String> {
        let began = Instant::now();
        let is_behind = |it: &&Watcher| {
            sequences.get(&it.account_id).is_some_and(|last| it.sequence.load(Relaxed) < *last)
        };
        while self.watchers.iter().any(|it| is_behind(&it)) && began.elapsed() < CATCH_UP_TIME_MAX {
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        let caught_up_after = began.elapsed();
        let behind = self.watchers.iter().filter(is_behind).count();
        self.stop.send_replace(true);
        let stats =
            self.reading.join().map_err(|_| "the thread of the watchers panicked".to_owned())?;
        let stats = WatchStats { caught_up_after, ..stats };
        match stats.gap {
            Some(gap) => Err(format!("a watcher missed an entry: {gap}")),
            None if behind > 0 => Err(format!(
                "{behind} watchers did not receive all entries within {CATCH_UP_TIME_MAX:?} of the \
                 load"
            )),
            None => Ok(stats),
        }
    }
}

async fn sum(mut tasks: JoinSet<WatchStats>) -> WatchStats {
    let mut stats = WatchStats::default();
    while let Some(one) = tasks.join_next().await {
        let failed =
            |error: JoinError| WatchStats { gap: Some(error.to_string()), ..WatchStats::default() };
        stats.add(one.unwrap_or_else(failed));
    }
    stats
}

/// Watches one account until `stopped`, and opens a broken stream again.
async fn follow(
    channel: Connection,
    watcher: Watcher,
    mut stopped: watch::Receiver<bool>,
) -> WatchStats {
    let mut stats = WatchStats::default();
    let following = async {
        loop {
            let cut = read(&channel, &watcher, &mut stats).await;
            if stats.gap.is_some() {
                return;
            }
            *stats.cuts.entry(driver::reason(&cut)).or_default() += 1;
            tokio::time::sleep(RECONNECT_BACKOFF).await;
        }
    };
    tokio::select! {
        () = following => {}
        // An error means that the run is over.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    stats
}

/// Reads one stream until it breaks or misses an entry.
async fn read(
    channel: &Connection,
    Watcher { account_id, sequence, is_open }: &Watcher,
    stats: &mut WatchStats,
) -> Status {
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    if client.ready().await.is_err() {
        return Status::unavailable("no connection");
    }
    let after_sequence = sequence.load(Relaxed);
    let request = proto::WatchEntriesRequest { account_id: account_id.to_owned(), after_sequence };
    let path = PathAndQuery::from_static(WATCH_ENTRIES);
    let streaming = client.server_streaming(Request::new(request), path, WatchCodec);
    let mut messages = match streaming.await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    is_open.store(true, Relaxed);
    loop {
        let sequences = match messages.message().await {
            Ok(Some(sequences)) => sequences,
            Ok(None) => return Status::unavailable("the stream ended"),
            Err(status) => return status,
        };
        let mut last = sequence.load(Relaxed);
        stats.entries += sequences.len() as u64;
        for next in sequences {
            if next != last + 1 {
                stats.gap = Some(format!("account {account_id}: sequence {next} after {last}"));
                return Status::data_loss("an entry is missing");
            }
            last = next;
        }
        sequence.store(last, Relaxed);
        stats.messages += 1;
    }
}

impl WatchStats {
    fn add(&mut self, one: Self) {
        self.entries += one.entries;
        self.messages += one.messages;
        for (reason, count) in one.cuts {
            *self.cuts.entry(reason).or_default() += count;
        }
        self.gap = self.gap.take().or(one.gap);
    }
}
