//! The closed loop: runs the load and measures it.

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
    event_watch::Lags,
    proto::{self, post_transaction_result::Result as Outcome},
    servers::{Client, Servers},
    shared_stream::{REQUESTS_PER_STREAM, SharedStream, SharedStreams, status_of},
    workload::{Operation, Plan, REQUEST_TIMEOUT, deposit, transfer, withdrawal},
};

/// The interval of the samples of the rate, for the progress bar and the plot. Also the pause between
/// repeats of unresolved requests, and that of a caller after a call that no server answered.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// The most repeats of a request with an unknown outcome.
const RESOLVE_ATTEMPTS_MAX: usize = 30;

/// The parameters of the load.
#[derive(Clone)]
pub struct Driver {
    pub plan: Arc<Plan>,
    pub mode: Mode,
    pub in_flight: u32,
    pub warmup: Duration,
    pub duration: Duration,
    pub seed: u64,
    /// The fraction of callers at the first server, in percent.
    pub first_share: Option<u32>,
    /// The prefix of every request id. It makes the ids new, even with a seed that was used before.
    pub run: String,
    /// Where the times of results are noted, if events are watched.
    pub lags: Option<Arc<Lags>>,
}

/// The measurements of a run. `latencies` has only the requests that began and ended within the
/// measured time. `net` and `entries` include all requests.
pub struct RunStats {
    /// The latencies of changes and reads, in microseconds.
    pub latencies: Histogram<u64>,
    /// The latencies by the number of the server.
    pub by_server: BTreeMap<usize, Histogram<u64>>,
    /// Requests that succeeded within the measured time.
    pub succeeded: u64,
    /// Requests that ended with an error, by reason, in the whole run.
    pub errors: BTreeMap<String, u64>,
    /// Samples: seconds since the begin of the measured time, and successful requests a second.
    pub rates: Vec<(f64, f64)>,
    /// The sum of deposits less the sum of withdrawals, in dollars.
    pub net: i64,
    /// New entries.
    pub entries: i64,
    /// Changes with an unknown outcome. They are sent again.
    unknown: Vec<(String, Operation)>,
}

/// The way of a caller's requests, one after another.
enum Path {
    Unary(Box<Client>),
    Shared(SharedStream),
}

/// One caller of a run.
struct Caller {
    driver: Driver,
    number: u64,
    random: fastrand::Rng,
    count: u64,
    begin: Instant,
    end: Instant,
    progress: Arc<AtomicU64>,
    stats: RunStats,
}

impl Driver {
    /// Runs the load and returns the measurements of all callers.
    pub async fn run(&self, servers: &Servers) -> Result<RunStats, CliError> {
        let begin = Instant::now() + self.warmup;
        let end = begin + self.duration;
        let progress = Arc::new(AtomicU64::new(0));
        let callers = match self.mode {
            Mode::Unary | Mode::Shared => self.in_flight,
            // At least one stream for each server.
            Mode::Stream => {
                self.in_flight.div_ceil(REQUESTS_PER_STREAM).max(servers.count() as u32)
            }
        };
        let (mut tasks, mut streams) = (JoinSet::new(), SharedStreams::default());
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
                stats: RunStats::new()?,
            };
            let window = (self.in_flight / callers).max(1) as usize;
            let stream = (self.mode == Mode::Shared).then(|| streams.join(server, &client));
            tasks.spawn(async move {
                let stats = match (caller.driver.mode, stream) {
                    (_, Some(stream)) => caller.call(Path::Shared(stream)).await,
                    (Mode::Stream, _) => caller.stream(client, window).await,
                    _ => caller.call(Path::Unary(Box::new(client))).await,
                };
                (server, stats)
            });
        }
        drop(streams);
        let mut stats = RunStats::new()?;
        stats.rates = sample(&progress, begin, end).await;
        while let Some(joined) = tasks.join_next().await {
            let (server, caller_stats) = joined.map_err(CliError::run)?;
            stats.add(server, caller_stats).map_err(CliError::Run)?;
        }
        Ok(stats)
    }
}

/// Shows the progress until `end`, and returns the samples of the rate within the measured time.
async fn sample(progress: &AtomicU64, begin: Instant, end: Instant) -> Vec<(f64, f64)> {
    let started = Instant::now();
    let total = end - started;
    let bar = output::bar(total.as_millis() as u64, "{msg:12} {bar:40} {percent}%");
    let mut rates = Vec::new();
    let (mut last_at, mut last) = (started, 0);
    while Instant::now() < end {
        tokio::time::sleep_until((last_at + SAMPLE_INTERVAL).min(end)).await;
        let (now, succeeded) = (Instant::now(), progress.load(Ordering::Relaxed));
        let rate = (succeeded - last) as f64 / (now - last_at).as_secs_f64();
        if last_at >= begin {
            rates.push(((now - begin).as_secs_f64(), rate));
        }
        bar.set_position((now - started).as_millis() as u64);
        bar.set_message(format!("{rate:.0}/s"));
        (last_at, last) = (now, succeeded);
    }
    bar.finish_and_clear();
    rates
}

impl Caller {
    /// Sends one request after another.
    async fn call(mut self, mut path: Path) -> RunStats {
        while Instant::now() < self.end {
            let (request_id, operation) = self.next();
            let began = Instant::now();
            let result = match &mut path {
                Path::Unary(client) => send(client, &request_id, &operation).await,
                Path::Shared(stream) => stream.send(&request_id, &operation).await,
            };
            let is_unanswered = result.as_ref().is_err_and(is_unanswered);
            self.record(request_id, operation, began, result).await;
            if is_unanswered {
                // Such a call takes no time: a caller without a pause would fail without an end.
                tokio::time::sleep(SAMPLE_INTERVAL).await;
            }
        }
        self.stats
    }

    /// Sends requests on one stream, with `window` requests in flight.
    async fn stream(mut self, mut client: Client, window: usize) -> RunStats {
        let (sender, receiver) = mpsc::channel(window);
        let mut in_flight = VecDeque::with_capacity(window);
        let mut results =
            match client.accounts.stream_transactions(ReceiverStream::new(receiver)).await {
                Ok(result) => result.into_inner(),
                Err(status) => {
                    self.stats.error(&status);
                    return self.stats;
                }
            };
        loop {
            while in_flight.len() < window && Instant::now() < self.end {
                let (request_id, operation) = self.next();
                let request = Some(operation.posting(request_id.clone()));
                in_flight.push_back((request_id, operation, Instant::now()));
                let message = proto::StreamTransactionsRequest { request, ..Default::default() };
                if sender.send(message).await.is_err() {
                    break;
                }
            }
            let Some((request_id, operation, began)) = in_flight.pop_front() else { break };
            let result = match results.message().await {
                Ok(Some(response)) => to_result(response.result),
                Ok(None) => Err(Status::unavailable("the stream ended")),
                Err(status) => Err(status),
            };
            let is_broken = result.as_ref().is_err_and(is_unknown);
            self.record(request_id, operation, began, result).await;
            if is_broken {
                self.stats.unknown.extend(in_flight.drain(..).map(|(id, it, _)| (id, it)));
                break;
            }
        }
        self.stats
    }

    /// The next request and its id.
    fn next(&mut self) -> (String, Operation) {
        self.count += 1;
        let request_id = format!("{}.{}.{}", self.driver.run, self.number, self.count);
        (request_id, self.driver.plan.next(&mut self.random))
    }

    async fn record(
        &mut self,
        request_id: String,
        operation: Operation,
        began: Instant,
        result: Result<(), Status>,
    ) {
        let now = Instant::now();
        if let (Ok(()), Some(lags)) = (&result, &self.driver.lags) {
            lags.add_result(&request_id, now).await;
        }
        let stats = &mut self.stats;
        match result {
            Ok(()) => {
                stats.net += operation.net();
                stats.entries += operation.entries();
                self.progress.fetch_add(1, Ordering::Relaxed);
                if began >= self.begin && now <= self.end {
                    stats.succeeded += 1;
                    let microseconds = (now - began).as_micros() as u64;
                    // A latency above the bound of the histogram counts as that bound.
                    stats.latencies.saturating_record(microseconds);
                }
            }
            Err(status) => {
                stats.error(&status);
                // A read has no outcome.
                if is_unknown(&status) && operation.entries() > 0 {
                    stats.unknown.push((request_id, operation));
                }
            }
        }
    }
}

impl RunStats {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            // Up to 60 s, with three significant digits.
            latencies: Histogram::new_with_max(60_000_000, 3).map_err(CliError::run)?,
            by_server: BTreeMap::new(),
            succeeded: 0,
            errors: BTreeMap::new(),
            rates: Vec::new(),
            net: 0,
            entries: 0,
            unknown: Vec::new(),
        })
    }

    /// Adds the measurements of one caller of this server.
    fn add(&mut self, server: usize, caller: Self) -> Result<(), String> {
        self.latencies.add(&caller.latencies).map_err(|error| error.to_string())?;
        match self.by_server.entry(server) {
            Entry::Vacant(entry) => drop(entry.insert(caller.latencies)),
            Entry::Occupied(mut entry) => {
                entry.get_mut().add(&caller.latencies).map_err(|error| error.to_string())?;
            }
        }
        self.succeeded += caller.succeeded;
        self.net += caller.net;
        self.entries += caller.entries;
        self.unknown.extend(caller.unknown);
        for (reason, count) in caller.errors {
            *self.errors.entry(reason).or_default() += count;
        }
        Ok(())
    }

    fn error(&mut self, status: &Status) {
        *self.errors.entry(reason(status)).or_default() += 1;
    }

    /// Sends the requests with an unknown outcome again, under the same ids. Returns the number of
    /// requests whose outcome is still unknown.
    pub async fn resolve(&mut self, servers: &Servers) -> usize {
        let mut client = servers.client();
        for _ in 0..RESOLVE_ATTEMPTS_MAX {
            self.resolve_once(&mut client).await;
            if self.unknown.is_empty() {
                break;
            }
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
        self.unknown.len()
    }

    /// Sends each of them once, up to the first one that no server answers.
    async fn resolve_once(&mut self, client: &mut Client) {
        let mut still_unknown = Vec::new();
        let mut requests = std::mem::take(&mut self.unknown).into_iter();
        for (request_id, operation) in requests.by_ref() {
            match send(client, &request_id, &operation).await {
                Ok(()) => {
                    self.net += operation.net();
                    self.entries += operation.entries();
                }
                Err(status) if is_unknown(&status) => {
                    still_unknown.push((request_id, operation));
                    if is_unanswered(&status) {
                        break;
                    }
                }
                Err(status) => self.error(&status),
            }
        }
        still_unknown.extend(requests);
        self.unknown = still_unknown;
    }
}

/// The reason of an error: that of its ErrorInfo, or the status code.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}

/// Whether the outcome is unknown: the change may have been applied.
fn is_unknown(status: &Status) -> bool {
    let not_applied = status
        .get_details_error_info()
        .is_some_and(|info| info.metadata.get("outcome").is_some_and(|it| it == "not_applied"));
    let may_be_applied = matches!(
        status.code(),
        Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unavailable
            | Code::Unknown
            | Code::Internal
    );
    may_be_applied && !not_applied
}

/// Whether no server answered: tonic reports a connection that failed, without a reason of Passbook.
fn is_unanswered(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
        && status.get_details_error_info().is_none()
}

/// The result of one request on a stream, as of a unary call.
fn to_result(result: Option<proto::PostTransactionResult>) -> Result<(), Status> {
    match result.and_then(|result| result.result) {
        Some(Outcome::Transaction(_)) => Ok(()),
        Some(Outcome::Error(error)) => Err(status_of(error)),
        None => Err(Status::unknown("the result is empty")),
    }
}

/// Sends one request as a unary call. The same arguments give the same request body, so that a repeat
/// is recognized as one.
async fn send(client: &mut Client, request_id: &str, operation: &Operation) -> Result<(), Status> {
    let request_id = request_id.to_owned();
    match operation.clone() {
        Operation::Deposit { account_id } => {
            let request = deposit(request_id, account_id);
            client.accounts.deposit(with_deadline(request)).await.map(drop)
        }
        Operation::Withdraw { account_id } => {
            let request = withdrawal(request_id, account_id);
            client.accounts.withdraw(with_deadline(request)).await.map(drop)
        }
        Operation::Transfer { source, destination } => {
            let request = transfer(request_id, source, destination);
            client.accounts.transfer(with_deadline(request)).await.map(drop)
        }
        Operation::Read { account_id } => client
            .accounts
            .get_account(with_deadline(proto::GetAccountRequest { account_id }))
            .await
            .map(drop),
        Operation::Stats => {
            let request = with_deadline(proto::GetWritePathStatsRequest {});
            client.admin.get_write_path_stats(request).await.map(drop)
        }
    }
}

/// The request with the deadline of the load.
fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use passbook_command::client::ClientConfig;
    use tokio::net::TcpListener;

    use super::*;
    use crate::servers;

    #[tokio::test]
    async fn repeats_pause_at_the_first_one_that_no_server_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                drop(connection);
            }
        });
        let servers = servers::running(&[target], &ClientConfig::default()).unwrap();
        let mut stats = RunStats::new().unwrap();
        let deposit = Operation::Deposit { account_id: "a".to_owned() };
        stats.unknown = (0..50).map(|number| (number.to_string(), deposit.clone())).collect();

        stats.resolve_once(&mut servers.client()).await;

        assert_eq!(stats.unknown.len(), 50);
        let connections = connections.load(Ordering::Relaxed);
        assert!(connections < 5, "{connections} connections");
    }
}
