//! `passbook bench`: runs a closed-loop load, then compares the balances with the results.

mod accounts;
mod driver;
mod entry_watch;
mod event_watch;
mod report;
mod servers;
mod shared_stream;
mod watch_codec;
mod watchers;
mod workload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use passbook_command::{
    CliError, client::ClientConfig, output, parse_duration, parse_output_file, proto,
};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::{
    accounts::Accounts,
    driver::Driver,
    event_watch::EventWatchers,
    report::{Report, Watched},
    watchers::Watchers,
    workload::Plan,
};

/// Loads servers with a closed loop: each caller sends its next request when it has the result of
/// the previous one. The run opens accounts of its own. At its end the balances must equal the sum
/// of the results, otherwise the exit code is 1.
#[derive(Args)]
pub struct Bench {
    /// A server to load, such as http://127.0.0.1:50051. Can be repeated. Default: the run starts
    /// servers of its own.
    #[arg(long, value_name = "ADDRESS")]
    target: Vec<String>,

    /// The database of the servers that the run starts. Default: a new SQLite file, which the run
    /// deletes at its end.
    #[arg(long, env, hide_env_values = true, value_name = "URL")]
    bench_database_url: Option<String>,

    /// The number of servers that the run starts.
    #[arg(long, default_value_t = 1)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    servers: u32,

    /// The kind of requests.
    #[arg(long, value_enum, default_value_t = Workload::Hot)]
    workload: Workload,

    /// The way in which requests are sent.
    #[arg(long, value_enum, default_value_t = Mode::Unary)]
    mode: Mode,

    /// The number of accounts. The workload `hot` has one account.
    #[arg(long, default_value_t = 10_000)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    accounts: u32,

    /// Use the existing accounts PREFIX.0, PREFIX.1 and so on, up to the number of accounts, to
    /// measure on a full database. Default: the run opens accounts. Existing accounts need unlimited
    /// overdraft, and no other program may use them during the run.
    #[arg(long, value_name = "PREFIX")]
    existing: Option<String>,

    /// The number of requests in flight.
    #[arg(long, default_value_t = 64)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,

    /// The fraction of callers at the first server, in percent. The other servers get equal parts
    /// of the rest. Default: equal parts for all servers.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=99))]
    first_share: Option<u32>,

    /// The number of WatchEntries streams that are open during the run, evenly over its accounts.
    /// If a stream misses an entry, the exit code is 1.
    #[arg(long, default_value_t = 0)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    watchers: u32,

    /// The number of WatchEvents streams that are open during the run, over its accounts. If a stream
    /// misses or repeats an event, the exit code is 1. After the load, one stream reads all events of
    /// the ledger.
    #[arg(long, default_value_t = 0)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    event_watchers: u32,

    /// The number of threads that send requests. One thread is enough for a server on the same two
    /// cores, and saves a single caller the switches between threads.
    #[arg(long, default_value_t = 1)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// The measured time.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    duration: Duration,

    /// The time of load before the measured time.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = parse_duration)]
    warmup: Duration,

    /// The seed of the random choices. The same seed gives the same requests in the same order.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// The file to which the report is written as JSON.
    #[arg(long, value_name = "FILE", value_parser = parse_output_file)]
    json: Option<PathBuf>,

    /// The file into which the report is drawn as SVG.
    #[arg(long, value_name = "FILE", value_parser = parse_output_file)]
    plot: Option<PathBuf>,

    #[command(flatten)]
    client: ClientConfig,
}

/// The kind of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Deposits and withdrawals on one account.
    Hot,
    /// Deposits and withdrawals, with the same weight for each account.
    Uniform,
    /// Deposits and withdrawals, with a weight of 1/n for the n-th account.
    Zipf,
    /// Transfers: half of them to the next account, half between random pairs.
    Transfer,
    /// Deposits, withdrawals, transfers and reads, a quarter each. In the modes `stream` and `shared`
    /// transfers replace the reads.
    Mixed,
    /// GetWritePathStats, only in unary mode: the cost of a call through all layers that uses
    /// neither accounts nor the database.
    Stats,
}

/// The way in which requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One unary call for each request.
    Unary,
    /// StreamTransactions, with many requests on one call. Results come in their order.
    Stream,
    /// StreamTransactions, shared by callers that each send their next request when they have the
    /// result of the previous one. While one message is on its way, the next gathers their requests.
    /// Results come in any order.
    Shared,
}

impl Bench {
    /// The runtime of the load, with the number of threads that is set.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn runtime(&self) -> std::io::Result<Runtime> {
        let mut builder = match self.threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        builder.worker_threads(self.threads as usize).enable_all().build()
    }

    /// Runs the load, compares the balances with the results, and writes the report: also if the
    /// servers ended during the load.
    ///
    /// # Errors
    /// The settings contradict each other, a server cannot be reached, the balances differ from the
    /// results or cannot be read, or a watcher missed an entry or an event.
    pub async fn run(self) -> Result<(), CliError> {
        if self.workload == Workload::Stats && self.mode != Mode::Unary {
            return Err(CliError::Usage("--workload stats requires --mode unary".to_owned()));
        }
        let servers = if self.target.is_empty() {
            servers::start(self.bench_database_url.as_deref(), self.servers, &self.client).await?
        } else {
            servers::running(&self.target, &self.client)?
        };
        let count = if self.workload == Workload::Hot { 1 } else { self.accounts };
        let run = Uuid::now_v7().to_string();
        let accounts = match &self.existing {
            Some(prefix) => Accounts::existing(&servers, prefix, count).await?,
            None => Accounts::open(&servers, &run, count, self.in_flight).await?,
        };
        let before = accounts.sequences(&servers).await.map_err(CliError::Run)?;
        let watches = entry_watch::watches(accounts.ids(), &before, self.watchers);
        let watchers = Watchers::open(&servers, watches).await?;
        let prefix = format!("{}.", self.existing.as_ref().unwrap_or(&run));
        let event_watchers = match self.event_watchers {
            0 => None,
            count => Some(EventWatchers::open(&servers, prefix, &before, count).await?),
        };
        let plan = Arc::new(Plan::new(self.workload, self.mode, accounts.ids().clone()));
        let driver = Driver {
            plan,
            mode: self.mode,
            in_flight: self.in_flight,
            warmup: self.warmup,
            duration: self.duration,
            seed: self.seed,
            first_share: self.first_share,
            run,
            lags: event_watchers.as_ref().map(|it| it.lags().clone()),
        };
        let batches = servers.batches().await;
        let mut stats = driver.run(&servers).await?;
        let mean_batch = batches.zip(servers.batches().await).and_then(|(before, after)| {
            let transactions = after.1 - before.1;
            (transactions > 0).then(|| (after.0 - before.0) / transactions as f64)
        });
        let unresolved = stats.resolve(&servers).await;
        let verified = accounts.verify(&servers, &stats).await;
        let after = accounts.sequences(&servers).await;
        // Watchers wait for nothing if no server has the entries.
        let new = |account_id: &String| match &after {
            Ok(after) => after[account_id] - before[account_id],
            Err(_) => 0,
        };
        let expected = accounts.ids().iter().cycle().take(self.watchers as usize).map(new);
        let entries = watchers.finish(&expected.collect::<Vec<_>>()).await;
        let entries = entries.and_then(|stats| after.as_ref().map(|_| stats).map_err(Clone::clone));
        let events = match event_watchers {
            Some(watchers) => {
                Some(watchers.finish(&servers, accounts.ids().iter().map(new).sum()).await)
            }
            None => None,
        };
        let watched = Watched { entries, events };
        let report =
            Report::new(&self, &servers, &stats, mean_batch, unresolved, &verified, &watched);
        output::lines(&report.to_string())?;
        if let Some(path) = &self.json {
            report.write_json(path).map_err(CliError::run)?;
        }
        if let Some(path) = &self.plot {
            report.draw(path).map_err(CliError::Run)?;
        }
        verified.and(watched.into_result()).map_err(CliError::Run)
    }
}
