//! Stock clients that write to a stream as fast as they can are slowed by flow control and never
//! cut, and other calls of their channel continue, also while a foreign lock is on the account.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sea_orm::ConnectionTrait;
use tokio::{process::Command, sync::OnceCell, task::yield_now, time::timeout};
use tokio_stream::{Stream, StreamExt};

use crate::harness::{checker, *};

on_both_databases! {
    a_greedy_client_is_slowed_and_never_cut,
    a_greedy_client_of_another_stack_is_slowed_and_never_cut,
    greedy_streams_beside_each_other_are_slowed_and_never_cut,
}

/// More than the queue, the windows and the sockets can hold.
const REQUESTS: usize = 40_000;
const OTHER: &str = "other";
/// Lock waits never fail: their timeout is long.
const PATIENT: [&str; 2] = ["--default-deadline", "2m"];
/// The virtual environment. Without it the tests report that they are skipped.
const GRPCIO: &str = "grpcio==1.85.3";

/// How long Python may take to make it, or the test is skipped: the packages come from a network.
const INSTALL_TIME_MAX: Duration = seconds(120);
/// How long the greedy client may take. It has timeouts of its own, which are shorter.
const PYTHON_TIME_MAX: Duration = seconds(300);

/// The account of the greedy streams, and one of other calls.
async fn with_two_accounts(kind: Kind) -> (TestDatabase, Server) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start_with(&database, &PATIENT).await;
    for account_id in ["hot", OTHER] {
        open(&server.client(), account_id).await;
    }
    (database, server)
}

async fn a_greedy_client_is_slowed_and_never_cut(kind: Kind) {
    let (database, server) = with_two_accounts(kind).await;
    let client = server.client();
    let others = OtherCalls::on(&client);
    let lock = tokio::spawn(hold_the_row(database.connect().await, kind));

    let count = results_of(&client, REQUESTS).await;

    assert_eq!(count, REQUESTS, "one result a request");
    lock.await.expect("the row was locked");
    let others = others.end().await;
    println!("{kind:?}: {others} other calls, {} KiB", server.memory_kib());
    assert!(others > 100, "{others} other calls");
    assert_eq!(balance(&client, "hot").await, format!("{REQUESTS}.00"));
    checker::assert_consistent(&database).await;
}

/// Many streams of one channel that wait for the same row.
async fn greedy_streams_beside_each_other_are_slowed_and_never_cut(kind: Kind) {
    const STREAMS: usize = 40;
    const EACH: usize = 2000;
    let (database, server) = with_two_accounts(kind).await;
    let client = server.client();
    let others = OtherCalls::on(&client);
    let lock = tokio::spawn(hold_the_row(database.connect().await, kind));

    let streams = (0..STREAMS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { results_of(&client, EACH).await })
    });
    for stream in streams.collect::<Vec<_>>() {
        assert_eq!(stream.await.expect("no stream is cut"), EACH);
    }

    lock.await.expect("the row was locked");
    assert!(others.end().await > 10);
    checker::assert_consistent(&database).await;
}

async fn a_greedy_client_of_another_stack_is_slowed_and_never_cut(kind: Kind) {
    let python = match python_with_grpcio().await {
        Ok(python) => python,
        Err(why) => return skipped(&format!("no Python 3 with {GRPCIO} here: {why}")),
    };
    let (database, server) = with_two_accounts(kind).await;
    let client = server.client();
    let lock = tokio::spawn(hold_the_row(database.connect().await, kind));

    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/passbook/rpc/stream_flow_control.py");
    let (address, count) = (server.address.to_string(), REQUESTS.to_string());
    let mut command = Command::new(python);
    command.arg(script).args([&address, &count, "hot", OTHER]).kill_on_drop(true);
    let output = timeout(PYTHON_TIME_MAX, command.output()).await.expect("Python ends");
    let output = output.expect("Python runs");

    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{kind:?}: {stdout}{} KiB", server.memory_kib());
    assert!(output.status.success(), "{stdout}{stderr}");
    let all = format!("{REQUESTS} results, {REQUESTS} applied, ");
    assert!(stdout.starts_with(&all), "{stdout}{stderr}");
    lock.await.expect("the row was locked");
    assert_eq!(balance(&client, "hot").await, format!("{REQUESTS}.00"));
    checker::assert_consistent(&database).await;
}

/// Writes to one stream as fast as it can. Returns the number of results, all of them applied.
async fn results_of(client: &Client, requests: usize) -> usize {
    let mut results = client.stream_transactions(one_a_frame(requests)).await.expect("a stream");
    let mut count = 0;
    while let Some(response) = results.next().await {
        made(&response.expect("a result").result.expect("always there"));
        count += 1;
    }
    count
}

/// Requests with a short pause between them. Without it tonic's client would put many into one
/// frame, which other clients do not.
fn one_a_frame(requests: usize) -> impl Stream<Item = StreamTransactionsRequest> {
    tokio_stream::iter(0..requests).then(async |_| {
        yield_now().await;
        one_posting(post(&[leg("hot", "1")]))
    })
}

/// Locks the row of `hot` for some seconds; on SQLite, the whole file.
async fn hold_the_row(connection: sea_orm::DatabaseConnection, kind: Kind) {
    let lock = match kind {
        Kind::Sqlite => "PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE",
        Kind::Postgres => "BEGIN; SELECT 1 FROM accounts WHERE account_id = 'hot' FOR UPDATE",
    };
    tokio::time::sleep(ms(500)).await;
    connection.execute_unprepared(lock).await.expect("locked");
    tokio::time::sleep(seconds(3)).await;
    connection.execute_unprepared("COMMIT").await.expect("let go");
}

/// Sequential calls on a client's channel.
struct OtherCalls {
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    calls: tokio::task::JoinHandle<()>,
}

impl OtherCalls {
    fn on(client: &Client) -> Self {
        let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (client, is_over, counter) = (client.clone(), over.clone(), count.clone());
        let calls = tokio::spawn(async move {
            while !is_over.load(Relaxed) {
                let request = account_named(OTHER);
                client.get_account(within(PATIENCE, request)).await.expect("others go on");
                counter.fetch_add(1, Relaxed);
                tokio::time::sleep(ms(1)).await;
            }
        });
        Self { over, count, calls }
    }

    /// Stops, and returns the number of calls. None of them failed.
    async fn end(self) -> usize {
        self.over.store(true, Relaxed);
        self.calls.await.expect("no other call failed");
        self.count.load(Relaxed)
    }
}

/// A Python with grpcio in its own virtual environment, made on first use.
async fn python_with_grpcio() -> &'static Result<PathBuf, String> {
    static PYTHON: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    PYTHON.get_or_init(make_python_with_grpcio).await
}

async fn make_python_with_grpcio() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(GRPCIO);
    let python = folder.join("bin/python");
    let run = async |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).kill_on_drop(true).output();
        let output =
            timeout(INSTALL_TIME_MAX, output).await.unwrap_or_else(|late| Err(late.into()));
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or_else(|| stderr.trim().to_owned())
    };
    if run(&python, &["-c", "import grpc"]).await.is_ok() {
        return Ok(python);
    }
    let folder = folder.to_str().ok_or("the folder has no name in UTF-8")?;
    run(Path::new("python3"), &["-m", "venv", "--clear", folder]).await?;
    let install = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", GRPCIO];
    run(&python, &install).await?;
    Ok(python)
}
