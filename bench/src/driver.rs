//! The closed loop, and what it has measured.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use passbook_command::{CliError, output};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    Mode,
    proto::{self, post_transaction_result::Result as Outcome},
    servers::{Client, Servers},
    workload::{Operation, Plan, dollars},
};

/// How long one request may take: far more than a healthy one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way on one stream; more are spread over several.
const REQUESTS_PER_STREAM: u32 = 512;
/// How often the rate is looked at, for the progress bar and the plot.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// How often what got no answer is asked for again.
const RESOLVE_TRIES_MAX: usize = 30;

/// How to drive.
#[derive(Clone)]
pub struct Driver {
    pub plan: Arc<Plan>,
    pub mode: Mode,
    pub in_flight: u32,
    pub warmup: Duration,
    pub duration: Duration,
    pub seed: u64,
    /// The first server's share of the callers, in percent.
    pub first_share: Option<u32>,
    /// Begins every request id: they must be new even for a seed that was used before.
    pub run: String,
}

/// What came of a run. Only what began and ended within the measured time is in `latencies`;
/// all of it is in `net` and `entries`.
pub struct RunStats {
    /// Of changes and reads, in microseconds.
    pub latencies: Histogram<u64>,
    /// The same by server.
    pub by_server: BTreeMap<usize, Histogram<u64>>,
    /// Requests that were made, within the measured time.
    pub made: u64,
    /// Requests that failed, by reason, at any time.
    pub errors: BTreeMap<String, u64>,
    /// Seconds since the measured time began, and requests made a second.
    pub rates: Vec<(f64, f64)>,
    /// Dollars that came in less those that went out.
    pub net: i64,
    /// Entries that were made.
    pub entries: i64,
    /// What may have been made: to be asked for again.
    unknown: Vec<(String, Operation)>,
}

/// One caller's share of a run.
struct Caller {
    driver: Driver,
    number: u64,
    random: fastrand::Rng,
    count: u64,
    begin: Instant,
    end: Instant,
    progress: Arc<AtomicU64>,
    measured: RunStats,
}

impl Driver {
    /// Runs the load to its end.
    pub async fn run(&self, servers: &Servers) -> Result<RunStats, CliError> {
        let begin = Instant::now() + self.warmup;
        let end = begin + self.duration;
        let progress = Arc::new(AtomicU64::new(0));
        let callers = match self.mode {
            Mode::Unary => self.in_flight,
            // At least one stream a server.
            Mode::Stream => {
                self.in_flight.div_ceil(REQUESTS_PER_STREAM).max(servers.count() as u32)
            }
        };
        let mut tasks = JoinSet::new();
        let clients = servers.clients(callers, self.first_share);
        for (number, (server, client)) in clients.into_iter().enumerate() {
            let number = number as u64;
            let caller = Caller {
                driver: self.clone(),
                number,
                random: fastrand::Rng::with_seed(self.seed.wrapping_mul(1_000_003) + number),
                count: 0,
                begin,
                end,
                progress: progress.clone(),
                measured: RunStats::new()?,
            };
            let window = (self.in_flight / callers).max(1) as usize;
            tasks.spawn(async move {
                let share = match caller.driver.mode {
                    Mode::Unary => caller.call(client).await,
                    Mode::Stream => caller.stream(client, window).await,
                };
                (server, share)
            });
        }
        let mut measured = RunStats::new()?;
        measured.rates = sample(&progress, begin, end).await;
        while let Some(share) = tasks.join_next().await {
            let (server, share) = share.map_err(CliError::run)?;
            measured.add(server, share).map_err(CliError::Run)?;
        }
        Ok(measured)
    }
}

/// Shows progress, and returns the rate over the measured time.
async fn sample(progress: &AtomicU64, begin: Instant, end: Instant) -> Vec<(f64, f64)> {
    let started = Instant::now();
    let total = end - started;
    let bar = output::bar(total.as_millis() as u64, "{msg:12} {bar:40} {percent}%");
    let mut rates = Vec::new();
    let (mut last_at, mut last) = (started, 0);
    while Instant::now() < end {
        tokio::time::sleep_until((last_at + SAMPLE_INTERVAL).min(end)).await;
        let (now, made) = (Instant::now(), progress.load(Ordering::Relaxed));
        let rate = (made - last) as f64 / (now - last_at).as_secs_f64();
        if last_at >= begin {
            rates.push(((now - begin).as_secs_f64(), rate));
        }
        bar.set_position((now - started).as_millis() as u64);
        bar.set_message(format!("{rate:.0}/s"));
        (last_at, last) = (now, made);
    }
    bar.finish_and_clear();
    rates
}

impl Caller {
    /// One call after another.
    async fn call(mut self, mut client: Client) -> RunStats {
        while Instant::now() < self.end {
            let (request_id, operation) = self.next();
            let began = Instant::now();
            let answer = send(&mut client, &request_id, &operation).await;
            self.record(request_id, operation, began, answer);
        }
        self.measured
    }

    /// One stream, with this many requests under way.
    async fn stream(mut self, mut client: Client, window: usize) -> RunStats {
        let (sender, receiver) = mpsc::channel(window);
        let mut under_way = VecDeque::with_capacity(window);
        let mut results =
            match client.accounts.stream_transactions(ReceiverStream::new(receiver)).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    self.measured.error(&status);
                    return self.measured;
                }
            };
        loop {
            while under_way.len() < window && Instant::now() < self.end {
                let (request_id, operation) = self.next();
                let request = Some(operation.posting(request_id.clone()));
                under_way.push_back((request_id, operation, Instant::now()));
                if sender.send(proto::StreamTransactionsRequest { request }).await.is_err() {
                    break;
                }
            }
            let Some((request_id, operation, began)) = under_way.pop_front() else { break };
            let answer = match results.message().await {
                Ok(Some(response)) => to_answer(response.result),
                Ok(None) => Err(Status::unavailable("the stream ended")),
                Err(status) => Err(status),
            };
            let is_broken = answer.as_ref().is_err_and(is_unknown);
            self.record(request_id, operation, began, answer);
            if is_broken {
                self.measured.unknown.extend(under_way.drain(..).map(|(id, it, _)| (id, it)));
                break;
            }
        }
        self.measured
    }

    fn next(&mut self) -> (String, Operation) {
        self.count += 1;
        let request_id = format!("{}.{}.{}", self.driver.run, self.number, self.count);
        (request_id, self.driver.plan.next(&mut self.random))
    }

    fn record(
        &mut self,
        request_id: String,
        operation: Operation,
        began: Instant,
        answer: Result<(), Status>,
    ) {
        let now = Instant::now();
        let measured = &mut self.measured;
        match answer {
            Ok(()) => {
                measured.net += operation.net();
                measured.entries += operation.entries();
                self.progress.fetch_add(1, Ordering::Relaxed);
                if began >= self.begin && now <= self.end {
                    measured.made += 1;
                    let microseconds = (now - began).as_micros() as u64;
                    // The histogram has no upper bound that a time could exceed.
                    measured.latencies.saturating_record(microseconds);
                }
            }
            Err(status) => {
                measured.error(&status);
                if is_unknown(&status) {
                    measured.unknown.push((request_id, operation));
                }
            }
        }
    }
}

impl RunStats {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            // Up to a minute, three digits.
            latencies: Histogram::new_with_max(60_000_000, 3).map_err(CliError::run)?,
            by_server: BTreeMap::new(),
            made: 0,
            errors: BTreeMap::new(),
            rates: Vec::new(),
            net: 0,
            entries: 0,
            unknown: Vec::new(),
        })
    }

    /// Adds what one caller of this server has measured.
    fn add(&mut self, server: usize, share: Self) -> Result<(), String> {
        self.latencies.add(&share.latencies).map_err(|error| error.to_string())?;
        match self.by_server.entry(server) {
            Entry::Vacant(entry) => drop(entry.insert(share.latencies)),
            Entry::Occupied(mut entry) => {
                entry.get_mut().add(&share.latencies).map_err(|error| error.to_string())?;
            }
        }
        self.made += share.made;
        self.net += share.net;
        self.entries += share.entries;
        self.unknown.extend(share.unknown);
        for (reason, count) in share.errors {
            *self.errors.entry(reason).or_default() += count;
        }
        Ok(())
    }

    fn error(&mut self, status: &Status) {
        *self.errors.entry(reason(status)).or_default() += 1;
    }

    /// Sends again what may have been made, with the same ids; returns how many are still not
    /// known.
    pub async fn resolve(&mut self, servers: &Servers) -> usize {
        let mut client = servers.client();
        for _ in 0..RESOLVE_TRIES_MAX {
            let mut still_unknown = Vec::new();
            for (request_id, operation) in std::mem::take(&mut self.unknown) {
                match send(&mut client, &request_id, &operation).await {
                    Ok(()) => {
                        self.net += operation.net();
                        self.entries += operation.entries();
                    }
                    Err(status) if is_unknown(&status) => {
                        still_unknown.push((request_id, operation));
                    }
                    Err(status) => self.error(&status),
                }
            }
            self.unknown = still_unknown;
            if self.unknown.is_empty() {
                break;
            }
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
        self.unknown.len()
    }
}

/// What an error is counted as.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}

/// Whether the change may have been made.
fn is_unknown(status: &Status) -> bool {
    let not_applied = status
        .get_details_error_info()
        .is_some_and(|info| info.metadata.get("outcome").is_some_and(|it| it == "not_applied"));
    let is_open = matches!(
        status.code(),
        Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unavailable
            | Code::Unknown
            | Code::Internal
    );
    is_open && !not_applied
}

fn to_answer(result: Option<proto::PostTransactionResult>) -> Result<(), Status> {
    match result.and_then(|result| result.result) {
        Some(Outcome::Transaction(_)) => Ok(()),
        Some(Outcome::Error(error)) => {
            let details = prost::Message::encode_to_vec(&error).into();
            Err(Status::with_details(Code::from_i32(error.code), error.message, details))
        }
        None => Err(Status::unknown("a result without a result")),
    }
}

/// Sends one request by its own RPC; the body is the same for the same arguments.
async fn send(client: &mut Client, request_id: &str, operation: &Operation) -> Result<(), Status> {
    let request_id = request_id.to_owned();
    let amount = Some(dollars("1.00"));
    match operation.clone() {
        Operation::Deposit { account_id } => {
            let request =
                proto::DepositRequest { request_id, account_id, amount, ..Default::default() };
            client.accounts.deposit(bounded(request)).await.map(drop)
        }
        Operation::Withdraw { account_id } => {
            let request =
                proto::WithdrawRequest { request_id, account_id, amount, ..Default::default() };
            client.accounts.withdraw(bounded(request)).await.map(drop)
        }
        Operation::Transfer { source, destination } => {
            let request = proto::TransferRequest {
                request_id,
                source_account_id: source,
                destination_account_id: destination,
                amount,
                ..Default::default()
            };
            client.accounts.transfer(bounded(request)).await.map(drop)
        }
        Operation::Read { account_id } => client
            .accounts
            .get_account(bounded(proto::GetAccountRequest { account_id }))
            .await
            .map(drop),
        Operation::Stats => {
            let request = bounded(proto::GetWritePathStatsRequest {});
            client.admin.get_write_path_stats(request).await.map(drop)
        }
    }
}

fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}
