//! Those who watch during a run: they cost the servers something, and they must miss nothing.

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
use tonic_prost::ProstCodec;

use crate::{driver, proto, servers::Servers};

const WATCH_ENTRIES: &str = "/passbook.v1.AccountService/WatchEntries";
/// How long after the load those who watch may take to be told of the last entry.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// How long after a cut somebody watches again.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// Of WatchEntriesResponse only what is looked at: to read all of it would be most of the work
/// of the run, and it is the servers that are measured.
#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<EntryTold>,
    #[prost(int64, tag = "2")]
    sequence: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntryTold {
    #[prost(int64, tag = "2")]
    sequence: i64,
}

/// Open streams, read all the time.
pub struct Watchers {
    watchers: Vec<Watcher>,
    /// A thread of its own: who drives the load is not to wait for those who watch.
    reading: std::thread::JoinHandle<Seen>,
    stop: watch::Sender<bool>,
}

/// One of them, as it is seen from outside.
#[derive(Clone)]
struct Watcher {
    account_id: String,
    /// The last sequence that it was told of.
    sequence: Arc<AtomicI64>,
    /// Its stream has begun.
    is_open: Arc<AtomicBool>,
}

/// What one or all of them have seen.
#[derive(Default)]
pub struct Seen {
    /// Entries that they were told of.
    pub entries: u64,
    /// Messages, heartbeats among them.
    pub messages: u64,
    /// Streams that were cut, by reason; each was taken up again.
    pub cuts: BTreeMap<String, u64>,
    /// How long after the load the last of them was told of the last entry.
    pub caught_up_after: Duration,
    /// The first entry that was not the next one.
    gap: Option<String>,
}

impl Watchers {
    /// Begins to watch the accounts, one after the other and again from the first; returns when
    /// all streams are open.
    pub async fn open(
        servers: &Servers,
        account_ids: &[String],
        sequences: &HashMap<String, i64>,
        count: u32,
    ) -> Result<Self, CliError> {
        let (stop, stopped) = watch::channel(false);
        let bar = output::bar(u64::from(count), "beginning to watch {bar:40} {pos}/{len}");
        let watcher = |account_id: &String| Watcher {
            account_id: account_id.clone(),
            sequence: Arc::new(sequences.get(account_id).copied().unwrap_or_default().into()),
            is_open: Arc::default(),
        };
        let watchers: Vec<_> =
            account_ids.iter().cycle().take(count as usize).map(watcher).collect();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(CliError::run)?;
        let channels = {
            // A channel belongs to the runtime in which it was made.
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
                return Err(CliError::Run("those who watch could not all begin to".to_owned()));
            }
            bar.set_position(position as u64);
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        bar.finish_and_clear();
        Ok(Self { watchers, reading, stop })
    }

    /// Waits until all were told of everything, given the accounts' sequences; then ends them.
    pub async fn finish(self, sequences: &HashMap<String, i64>) -> Result<Seen, String> {
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
        let seen = self.reading.join().map_err(|_| "the watching thread failed".to_owned())?;
        let seen = Seen { caught_up_after, ..seen };
        match seen.gap {
            Some(gap) => Err(format!("a gap was told of: {gap}")),
            None if behind > 0 => Err(format!(
                "{behind} of those who watch were not told of everything within \
                 {CATCH_UP_TIME_MAX:?}"
            )),
            None => Ok(seen),
        }
    }
}

async fn sum(mut tasks: JoinSet<Seen>) -> Seen {
    let mut seen = Seen::default();
    while let Some(one) = tasks.join_next().await {
        let failed = |error: JoinError| Seen { gap: Some(error.to_string()), ..Seen::default() };
        seen.add(one.unwrap_or_else(failed));
    }
    seen
}

/// Watches one account until it is told to stop, and takes up again what is cut.
async fn follow(channel: Connection, watcher: Watcher, mut stopped: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let following = async {
        loop {
            let cut = read(&channel, &watcher, &mut seen).await;
            if seen.gap.is_some() {
                return;
            }
            *seen.cuts.entry(driver::reason(&cut)).or_default() += 1;
            tokio::time::sleep(RECONNECT_INTERVAL).await;
        }
    };
    tokio::select! {
        () = following => {}
        // Fails only if the run is over.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    seen
}

/// Reads one stream until it is cut, or has a gap.
async fn read(
    channel: &Connection,
    Watcher { account_id, sequence, is_open }: &Watcher,
    seen: &mut Seen,
) -> Status {
    let mut client = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    if client.ready().await.is_err() {
        return Status::unavailable("no connection");
    }
    let after_sequence = sequence.load(Relaxed);
    let request = proto::WatchEntriesRequest { account_id: account_id.to_owned(), after_sequence };
    let path = PathAndQuery::from_static(WATCH_ENTRIES);
    let codec = ProstCodec::<_, Told>::default();
    let mut messages = match client.server_streaming(Request::new(request), path, codec).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    is_open.store(true, Relaxed);
    loop {
        let told = match messages.message().await {
            Ok(Some(told)) => told,
            Ok(None) => return Status::unavailable("the stream ended"),
            Err(status) => return status,
        };
        let mut last = sequence.load(Relaxed);
        for entry in &told.entries {
            if entry.sequence != last + 1 {
                seen.gap = Some(format!("{account_id}: {} after {last}", entry.sequence));
                return Status::data_loss("a gap");
            }
            last = entry.sequence;
        }
        sequence.store(last, Relaxed);
        seen.messages += 1;
        seen.entries += told.entries.len() as u64;
    }
}

impl Seen {
    fn add(&mut self, one: Self) {
        self.entries += one.entries;
        self.messages += one.messages;
        for (reason, count) in one.cuts {
            *self.cuts.entry(reason).or_default() += count;
        }
        self.gap = self.gap.take().or(one.gap);
    }
}
