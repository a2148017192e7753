//! Streams that are watched during a run. They are part of the load, and must not miss an entry.

use std::{
    collections::BTreeMap,
    convert::Infallible,
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
use tonic::{Request, Status, Streaming, client::Grpc, codec::Codec};

use crate::{driver, servers::Servers};

/// The time after the load within which the watchers must have received the last entry.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(30);
/// The interval at which the progress of the watchers is checked.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// The pause before a watcher opens a broken stream again.
const RECONNECT_BACKOFF: Duration = Duration::from_millis(100);

/// What one watcher receives, over all of its streams.
pub trait Watch: Send + 'static {
    /// Opens a stream behind what was received, and reads it until it breaks or misses an entry: the
    /// error says which.
    fn read(
        &mut self,
        connection: &Connection,
        progress: &Progress,
        stats: &mut WatchStats,
    ) -> impl Future<Output = Result<Infallible, Status>> + Send;
}

/// Opens a stream that has messages of any size.
pub async fn open<Q, M>(
    connection: &Connection,
    method: &'static str,
    request: Q,
    codec: impl Codec<Encode = Q, Decode = M>,
) -> Result<Streaming<M>, Status>
where
    Q: Send + Sync + 'static,
    M: Send + Sync + 'static,
{
    let mut client = Grpc::new(connection.clone()).max_decoding_message_size(usize::MAX);
    client.ready().await.map_err(|_| Status::unavailable("no connection"))?;
    let path = PathAndQuery::from_static(method);
    Ok(client.server_streaming(Request::new(request), path, codec).await?.into_inner())
}

/// The next message of a stream, which never ends by itself.
pub async fn next<M>(messages: &mut Streaming<M>) -> Result<M, Status> {
    messages.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
}

/// How far one watcher is, shared with the thread that reads its stream.
#[derive(Clone, Default)]
pub struct Progress {
    /// The number of entries that were received.
    pub entries: Arc<AtomicI64>,
    /// Whether the stream was open once.
    pub is_open: Arc<AtomicBool>,
}

/// The open streams, which a thread reads all the time.
pub struct Watchers {
    progress: Vec<Progress>,
    /// A separate thread, so that the load does not wait for the watchers.
    reading: std::thread::JoinHandle<WatchStats>,
    stop: watch::Sender<bool>,
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
    pub gap: Option<String>,
}

impl Watchers {
    /// Opens the streams, and waits until all are open.
    pub async fn open(servers: &Servers, watches: Vec<impl Watch>) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let count = watches.len();
        let bar = output::bar(count as u64, "opening watchers {bar:40} {pos}/{len}");
        let progress: Vec<_> = watches.iter().map(|_| Progress::default()).collect();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(CliError::run)?;
        let channels = {
            // A channel belongs to the runtime in which it is created.
            let _inside = runtime.enter();
            servers.connections(count as u32, None)
        };
        let all: Vec<_> = watches.into_iter().zip(progress.clone()).zip(channels).collect();
        let reading = std::thread::spawn(move || {
            let follow = |((watch, progress), (_, channel))| {
                follow(channel, watch, progress, stopped.clone())
            };
            runtime.block_on(async { sum(all.into_iter().map(follow).collect()).await })
        });
        let end = Instant::now() + CATCH_UP_TIME_MAX;
        while let Some(position) = progress.iter().position(|it| !it.is_open.load(Relaxed)) {
            if Instant::now() > end {
                return Err(CliError::Run("not all watchers could be opened".to_owned()));
            }
            bar.set_position(position as u64);
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        bar.finish_and_clear();
        Ok(Self { progress, reading, stop })
    }

    /// Waits until each watcher has received so many entries, then ends the streams.
    pub async fn finish(self, expected: &[i64]) -> Result<WatchStats, String> {
        let began = Instant::now();
        let behind = || {
            let all = self.progress.iter().zip(expected);
            all.filter(|(it, expected)| it.entries.load(Relaxed) < **expected).count()
        };
        while behind() > 0 && began.elapsed() < CATCH_UP_TIME_MAX {
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        let caught_up_after = began.elapsed();
        let behind = behind();
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

/// Watches until `stopped`, and opens a broken stream again.
async fn follow(
    channel: Connection,
    mut watch: impl Watch,
    progress: Progress,
    mut stopped: watch::Receiver<bool>,
) -> WatchStats {
    let mut stats = WatchStats::default();
    let following = async {
        loop {
            let Err(cut) = watch.read(&channel, &progress, &mut stats).await;
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
