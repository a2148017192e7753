//! What a hostile peer can do with all defaults: the server's memory stays small, and others are
//! served.
//!
//! [`Target::withstands`] measures how another identity is served before and during an attack.
//! Tests assert counts, states and memory. `scripts/attacks` prints all figures as a table, and also
//! asserts the rate and the latency of the other identity.

mod connections;
mod control_calls;
mod elements;
mod floods;
mod frames;
mod http2_abuse;
mod names;
mod pages;
mod records;
mod request_streams;
mod shares;
mod unread;
mod watchers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::harness::{
    admin::{ADMIN, Admin},
    credentials::{Callers, identity},
    server::cpu_time,
    *,
};

const LIST_TRANSACTIONS: &str = "/passbook.v1.AccountService/ListTransactions";
const DEPOSIT: &str = "/passbook.v1.AccountService/Deposit";
const STREAM: &str = "/passbook.v1.AccountService/StreamTransactions";
const GET_ACCOUNT: &str = "/passbook.v1.AccountService/GetAccount";
const WATCH_ENTRIES: &str = "/passbook.v1.AccountService/WatchEntries";
const WATCH_EVENTS: &str = "/passbook.v1.AccountService/WatchEvents";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The most memory that callers without a credential may cost, in MiB.
const NOBODY_MIB_MAX: u64 = 128;
/// The most that one identity may cost.
const IDENTITY_MIB_MAX: u64 = 256;

/// How long `b` is measured before an attack and during it, times PASSBOOK_TEST_SCALE.
const MEASURED: Duration = ms(500);
/// The callers of `b` that are measured.
const CALLERS: usize = 4;

/// As many labels as an account or a transaction may have, all as long as they may be: 10 KiB.
fn largest_labels() -> BTreeMap<String, String> {
    (0..32).map(|number| (format!("{number:0>63}"), "v".repeat(256))).collect()
}

/// A server with two identities, `a` and `b`, that may do everything, and a database of its own.
struct Target {
    server: Server,
    admin: Admin,
    idle_kib: u64,
    /// The client of `b` that is measured.
    other: Client,
    /// How `b` is served without an attack.
    before: Service,
    _callers: Callers,
    database: TestDatabase,
}

/// How an identity is served.
struct Service {
    calls_per_second: f64,
    p99: Duration,
    refused: usize,
    /// The cores that the server was using.
    server_cores: f64,
    /// The cores that this process was using: the clients of all identities.
    client_cores: f64,
}

impl Target {
    async fn start(arguments: &[&str]) -> Self {
        let database = TestDatabase::create_for(Kind::Sqlite, Load::Heavy).await;
        let policy = [identity("a", &["*"], &[""]), identity("b", &["*"], &[""])].concat();
        let callers = Callers::new(&[("a", "a-token"), ("b", "b-token")], &policy);
        let server = callers.serve(&database, &[&ADMIN, arguments].concat()).await;
        let (admin, idle_kib) = (server.admin(), server.memory_kib());
        let other = server.client_of("b-token");
        open(&other, "of-b").await;
        let before = Service::of(&other, &server).await;
        Self { server, admin, idle_kib, other, before, _callers: callers, database }
    }

    fn client(&self, name: &str) -> Client {
        self.server.client_of(&format!("{name}-token"))
    }

    /// Measures how `b` is served during an attack, and prints it as a row of a table. Asserts that
    /// no call of `b` fails, and the memory above that of the idle server.
    async fn withstands(&self, attack: &str, mib_max: u64) {
        let (before, during) = (&self.before, Service::of(&self.other, &self.server).await);
        let mib = self.above_idle(self.server.memory_kib());
        let rate = during.calls_per_second / before.calls_per_second;
        let p99 = during.p99.as_secs_f64() / before.p99.as_secs_f64();
        let row = format!(
            "| {attack} | {:.0} | {:.0} | {rate:.2} | {:.1} | {:.1} | {p99:.1} | {mib} | {} | {:.2} | {:.2} |",
            before.calls_per_second,
            during.calls_per_second,
            before.p99.as_secs_f64() * 1000.0,
            during.p99.as_secs_f64() * 1000.0,
            during.refused,
            during.server_cores,
            during.client_cores,
        );
        times::figure(&row, rate >= 0.5 && p99 <= 3.0);
        assert_eq!(during.refused, 0, "{attack}: calls of another identity failed");
        assert!(mib < mib_max, "{attack}: {mib} MiB above idle, {mib_max} MiB are allowed");
    }

    /// Asserts the most memory that the server has had, above that of the idle server.
    #[track_caller]
    fn assert_memory(&self, attack: &str, mib_max: u64) {
        let mib = self.above_idle(self.server.peak_memory_kib());
        println!("{attack}: {mib} MiB above idle");
        assert!(mib < mib_max, "{attack}: {mib} MiB above idle, {mib_max} MiB are allowed");
    }

    fn above_idle(&self, kib: u64) -> u64 {
        kib.saturating_sub(self.idle_kib) / 1024
    }

    /// How often this limit was reached in this scope.
    async fn shed(&self, limit: &str, scope: &str) -> f64 {
        let series = format!("passbook_calls_shed_total{{limit=\"{limit}\",scope=\"{scope}\"}}");
        self.admin.metrics().await.value(&series)
    }

    async fn in_flight(&self) -> f64 {
        self.admin.metrics().await.value("passbook_calls_in_flight")
    }

    /// Waits until only so many calls are left: a call is counted as shed before it ends. Returns how
    /// many there were.
    async fn in_flight_falls_to(&self, max: f64) -> f64 {
        let mut seen = f64::INFINITY;
        eventually(&format!("at most {max} calls are in flight"), async || {
            seen = self.in_flight().await;
            seen <= max
        })
        .await;
        seen
    }
}

impl Service {
    /// Measures deposits and reads in turn.
    async fn of(client: &Client, server: &Server) -> Self {
        let (server_before, client_before) = (server.cpu_time(), cpu_time("self"));
        let started = Instant::now();
        let end = started + measured();
        let callers = (0..CALLERS).map(|_| async {
            let (mut took, mut refused) = (Vec::new(), 0);
            while Instant::now() < end {
                let start = Instant::now();
                let is_served = if took.len() % 2 == 0 {
                    client.deposit(within(PATIENCE, deposit("of-b", "1"))).await.is_ok()
                } else {
                    client.get_account(within(PATIENCE, account_named("of-b"))).await.is_ok()
                };
                took.push(start.elapsed());
                refused += usize::from(!is_served);
            }
            (took, refused)
        });
        let (mut took, mut refused) = (Vec::new(), 0);
        for (of_caller, refused_of_caller) in join_all(callers).await {
            took.extend(of_caller);
            refused += refused_of_caller;
        }
        let elapsed = started.elapsed().as_secs_f64();
        took.sort();
        Self {
            calls_per_second: took.len() as f64 / elapsed,
            p99: took[took.len() * 99 / 100],
            refused,
            server_cores: (server.cpu_time() - server_before).as_secs_f64() / elapsed,
            client_cores: (cpu_time("self") - client_before).as_secs_f64() / elapsed,
        }
    }
}

/// Posts so many entries of 1.00 to an account, 5,000 in a batch.
async fn post_entries(client: &Client, account_id: &str, count: i64) {
    for _ in 0..count / 5000 {
        let requests = (0..50).map(|_| post(&vec![leg(account_id, "1"); 100])).collect();
        let batch = within(PATIENCE, BatchPostTransactionsRequest { requests });
        let results = client.batch_post_transactions(batch).await.expect("an answer").results;
        assert!(results.iter().all(|it| !made(it).entries.is_empty()));
    }
}

fn measured() -> Duration {
    MEASURED * u32::try_from(scale()).expect("a small factor")
}

/// Tasks that repeat until they are dropped or `ended` is true.
struct Attack {
    tasks: JoinSet<usize>,
    ended: Arc<AtomicBool>,
}

impl Attack {
    fn by<Call, Done>(callers: usize, call: Call) -> Self
    where
        Call: Fn() -> Done + Clone + Send + 'static,
        Done: Future<Output = usize> + Send + 'static,
    {
        let (mut tasks, ended) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for _ in 0..callers {
            let (call, ended) = (call.clone(), ended.clone());
            tasks.spawn(async move {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) {
                    count += call().await;
                }
                count
            });
        }
        Self { tasks, ended }
    }

    /// Ends, and returns the sum of what the calls returned.
    async fn end(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}
