//! `passbook bench`: closed-loop load, and the proof that the money adds up afterwards.

mod accounts;
mod driver;
mod report;
mod servers;
mod watchers;
mod workload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use passbook_command::{CliError, client::ClientConfig, output, parse_duration};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::{
    accounts::Accounts, driver::Driver, report::Report, watchers::Watchers, workload::Plan,
};

/// The contract's messages and clients.
mod proto {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated"
    )]

    tonic::include_proto!("passbook.v1");
}

/// Drives servers with a closed loop: each caller sends its next request when it has the answer
/// to the one before. Accounts are made for the run; at the end their balances must be what the
/// answers add up to, or the run has failed.
#[derive(Args)]
pub struct Bench {
    /// A server to load, e.g. http://127.0.0.1:50051; several times for several. Without one,
    /// servers are started for the run.
    #[arg(long, value_name = "ADDRESS")]
    target: Vec<String>,

    /// The database of servers that are started for the run. Default: a new SQLite file that is
    /// deleted afterwards.
    #[arg(long, env = "PASSBOOK_BENCH_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    bench_database_url: Option<String>,

    /// How many servers to start.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=16)
    )]
    servers: u32,

    /// What is asked of them.
    #[arg(long, value_enum, default_value_t = Workload::Hot)]
    workload: Workload,

    /// One call a request, or StreamTransactions.
    #[arg(long, value_enum, default_value_t = Mode::Unary)]
    mode: Mode,

    /// Accounts, except for `hot`, which has one.
    #[arg(
        long,
        default_value_t = 10_000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(2..=10_000_000)
    )]
    accounts: u32,

    /// Use accounts that exist, PREFIX.0, PREFIX.1 and so on up to the number of accounts, instead
    /// of opening new ones: to measure on a database that is full. They must have unlimited
    /// overdraft, and nobody else may use them meanwhile.
    #[arg(long, value_name = "PREFIX")]
    existing: Option<String>,

    /// Requests under way at any time.
    #[arg(
        long,
        default_value_t = 64,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    in_flight: u32,

    /// The first server's share of the callers, in percent; the others share the rest evenly.
    /// Default: all servers alike.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(1..=99)
    )]
    first_share: Option<u32>,

    /// Streams of WatchEntries that are kept open and read meanwhile, on the run's accounts in
    /// turn. The run fails if one of them misses an entry.
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=10_000)
    )]
    watchers: u32,

    /// Threads that drive the load. One is enough for a server on the same two cores, and costs
    /// a single caller no hand-over between threads.
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=256)
    )]
    threads: u32,

    /// How long to measure.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    duration: Duration,

    /// How long to run before measuring.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = parse_duration)]
    warmup: Duration,

    /// The same seed asks for the same accounts in the same order.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// Write the result to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the result into this file as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    client: ClientConfig,
}

/// What is asked of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Deposits and withdrawals on one account.
    Hot,
    /// Deposits and withdrawals, each on an account picked evenly.
    Uniform,
    /// Deposits and withdrawals, the n-th account with a weight of 1/n.
    Zipf,
    /// Transfers: half along a ring of the accounts, half between random pairs.
    Transfer,
    /// A quarter each: deposits, withdrawals, transfers, and reads (reads only in unary mode).
    Mixed,
    /// GetWritePathStats: what a call costs that passes all layers and touches neither the ledger
    /// nor the database (only in unary mode).
    Stats,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One call a request.
    Unary,
    /// StreamTransactions.
    Stream,
}

impl Bench {
    /// Where the load runs.
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

    /// Runs the load, writes the report, and checks the money.
    ///
    /// # Errors
    /// The settings contradict each other, the servers cannot be reached, or the balances are not
    /// what the answers add up to.
    pub async fn run(self) -> Result<(), CliError> {
        if self.workload == Workload::Stats && self.mode == Mode::Stream {
            return Err(CliError::Usage("--workload stats needs --mode unary".to_owned()));
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
        };
        let sequences = accounts.sequences(&servers).await.map_err(CliError::Run)?;
        let watchers = Watchers::open(&servers, accounts.ids(), &sequences, self.watchers).await?;
        let before = servers.batches().await;
        let mut measured = driver.run(&servers).await?;
        let mean_batch = before.zip(servers.batches().await).and_then(|(before, after)| {
            let transactions = after.1 - before.1;
            (transactions > 0).then(|| (after.0 - before.0) / transactions as f64)
        });
        let unresolved = measured.resolve(&servers).await;
        let verified = accounts.verify(&servers, &measured).await;
        let sequences = accounts.sequences(&servers).await.map_err(CliError::Run)?;
        let watched = watchers.finish(&sequences).await;
        let mut report = Report::new(&self, &servers, &measured, mean_batch, unresolved, &verified);
        report.add_watchers(&watched);
        output::lines(&report.to_string())?;
        if let Some(path) = &self.json {
            report.write_json(path).map_err(CliError::run)?;
        }
        if let Some(path) = &self.plot {
            report.draw(path).map_err(CliError::Run)?;
        }
        verified.and(watched.map(drop)).map_err(CliError::Run)
    }
}
