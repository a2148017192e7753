//! Server processes of the real binary, and its other commands.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use hyper_util::{client::legacy::Client as Http, rt::TokioExecutor};
use passbook::proto::account_service_client::AccountServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::{Client, Kind, Load, PATIENCE, Patient, TestDatabase, eventually};

/// The time limit of a command. Some commands move a large ledger.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(300);

/// A running `passbook serve`, killed when dropped. Prints the end of its log if the test fails.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub ready_line: String,
    stdout: Arc<Mutex<Vec<String>>>,
    directory: TempDir,
    program: PathBuf,
    restart_arguments: Vec<String>,
}

impl Server {
    pub async fn start(database: &TestDatabase) -> Self {
        Self::start_with(database, &[]).await
    }

    pub async fn start_with(database: &TestDatabase, arguments: &[&str]) -> Self {
        Self::start_at(database.url(), arguments).await
    }

    /// Starts a server on a database URL, such as a proxy's.
    pub async fn start_at(url: &str, arguments: &[&str]) -> Self {
        Self::start_by(&[&["--database-url", url], arguments].concat()).await
    }

    /// Starts a server with exactly these arguments.
    pub async fn start_by(arguments: &[&str]) -> Self {
        let all = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::spawn(program(), "127.0.0.1:0".to_owned(), all).await
    }

    /// Starts a server with this `--listen`, spelled as a user would.
    pub async fn start_listening(
        listen: &str,
        database: &TestDatabase,
        arguments: &[&str],
    ) -> Self {
        let all = [&["--database-url", database.url()], arguments].concat();
        let all = all.into_iter().map(str::to_owned).collect();
        Self::spawn(program(), listen.to_owned(), all).await
    }

    /// Starts a server and waits only until it listens: it is not ready before its database is.
    pub async fn launch(address: SocketAddr, arguments: &[&str]) -> Self {
        let all = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (mut server, _) = launch(program(), &address.to_string(), all);
        server.address = address;
        let listens = async || tokio::net::TcpStream::connect(address).await.is_ok();
        eventually("it listens", listens).await;
        server
    }

    /// Starts another version of the program.
    pub async fn start_of(program: &Path, database: &TestDatabase) -> Self {
        let all = vec!["--database-url".to_owned(), database.url().to_owned()];
        Self::spawn(program.to_owned(), "127.0.0.1:0".to_owned(), all).await
    }

    /// Starts `count` servers on one database.
    pub async fn start_fleet(database: &TestDatabase, count: usize) -> Vec<Self> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(Self::start(database).await);
        }
        servers
    }

    async fn spawn(program: PathBuf, listen: String, restart_arguments: Vec<String>) -> Self {
        let start = || spawn_and_wait(program, listen, restart_arguments);
        let starting = tokio::task::spawn_blocking(start);
        match starting.await.expect("the thread that starts the server") {
            Ok(server) => server,
            Err(words) => panic!("{words}"),
        }
    }

    /// Restarts the server at the same address, so that clients reconnect by themselves.
    pub async fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let (program, address) = (self.program.clone(), self.address.to_string());
        *self = Self::spawn(program, address, self.restart_arguments.clone()).await;
    }

    /// A client with one connection, opened on first use and reopened when lost.
    pub fn client(&self) -> Client {
        Client::anonymous(self.channel())
    }

    /// A client that sends its deadline to the server and waits for the answer without one of its
    /// own.
    pub fn patient(&self) -> Patient {
        let http = Http::builder(TokioExecutor::new()).http2_only(true).build_http();
        let origin = format!("http://{}", self.address).parse().expect("an address");
        Patient { raw: AccountServiceClient::with_origin(http, origin) }
    }

    pub fn channel(&self) -> Channel {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy()
    }

    /// Kills the process with SIGKILL.
    pub fn kill9(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// Sends SIGTERM, as an orchestrator does.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Stops the process with SIGSTOP: it does nothing more, and keeps its locks.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -s $0 $1", name, &pid]).status();
        assert!(status.expect("sh runs").success(), "SIG{name} could not be sent to {pid}");
    }

    /// The resident memory of the process, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most resident memory that the process has had, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
        number.and_then(|number| number.parse().ok()).expect("a number of KiB")
    }

    /// The processor time that the process has used.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(&self.child.id().to_string())
    }

    /// Waits for the process to exit. None after the limit.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Standard output so far, including the ready line.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().expect("the lock").clone()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.directory)).unwrap_or_default()
    }
}

/// A new ledger with one server and a client. Bind all three: the first two end when dropped.
pub async fn start_server(kind: Kind) -> (TestDatabase, Server, Client) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start(&database).await;
    let client = server.client();
    (database, server, client)
}

/// The same with these arguments of the server.
pub async fn start_server_with(kind: Kind, arguments: &[&str]) -> (TestDatabase, Server, Client) {
    let database = TestDatabase::create(kind).await;
    let server = Server::start_with(&database, arguments).await;
    let client = server.client();
    (database, server, client)
}

/// The same with two servers and a client of the first.
pub async fn start_two_servers(kind: Kind) -> (TestDatabase, Vec<Server>, Client) {
    let database = TestDatabase::create(kind).await;
    let servers = Server::start_fleet(&database, 2).await;
    let client = servers[0].client();
    (database, servers, client)
}

/// A new ledger for a heavy load, with `count` servers and a client of each.
pub async fn start_loaded(kind: Kind, count: usize) -> (TestDatabase, Vec<Server>, Vec<Client>) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let servers = Server::start_fleet(&database, count).await;
    let clients = servers.iter().map(Server::client).collect();
    (database, servers, clients)
}

/// The same with one server.
pub async fn start_loaded_server(kind: Kind) -> (TestDatabase, Server, Client) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let server = Server::start(&database).await;
    let client = server.client();
    (database, server, client)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!(
                "---- log of the server at {} ----\n{}",
                self.address,
                last_lines(&self.log())
            );
        }
    }
}

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn must_succeed(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts the exit code and a single line on standard error, and returns that line after
    /// `error: `.
    #[track_caller]
    pub fn must_fail(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        let why = self.stderr.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n'));
        let why = why.unwrap_or_else(|| panic!("not an error's line: {}", self.stderr));
        assert_eq!(why.lines().count(), 1, "{}", self.stderr);
        why
    }

    /// Asserts also that the line contains these words.
    #[track_caller]
    pub fn must_fail_with(&self, code: i32, words: &str) {
        let why = self.must_fail(code);
        assert!(why.contains(words), "{words:?} is not in: {why}");
    }
}

impl TestDatabase {
    /// Runs a command on this database.
    pub async fn passbook(&self, arguments: &[&str]) -> Outcome {
        passbook(&[arguments, &["--database-url", self.url()]].concat()).await
    }
}

/// A database's URL with this search path.
pub fn with_search_path(url: &str, path: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options[search_path]={path}")
}

/// The error with which a server does not start on this database.
pub async fn start_error(url: &str) -> String {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", url];
    passbook(&serve).await.must_fail(1).to_owned()
}

/// Runs `passbook` with these arguments until it exits.
pub async fn passbook(arguments: &[&str]) -> Outcome {
    run(command(&program()), arguments).await
}

pub async fn passbook_of(program: &Path, arguments: &[&str]) -> Outcome {
    run(command(program), arguments).await
}

/// The same with these environment variables.
pub async fn passbook_in(environment: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let mut command = command(&program());
    command.envs(environment.iter().copied());
    run(command, arguments).await
}

/// `code` is None if it had to be killed after [`COMMAND_TIME_MAX`].
async fn run(mut command: Command, arguments: &[&str]) -> Outcome {
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
    let end = Instant::now() + COMMAND_TIME_MAX;
    let status = loop {
        match child.try_wait().expect("the process can be waited for") {
            Some(status) => break Some(status),
            None if Instant::now() > end => break None,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let text = |thread: thread::JoinHandle<String>| thread.join().expect("the reading thread");
    let code = status.and_then(|status| status.code());
    Outcome { code, stdout: text(stdout), stderr: text(stderr) }
}

/// The program under test: that of PASSBOOK_TEST_BIN, which `scripts/test` sets, or that which Cargo has
/// built with the tests.
pub fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_passbook").into();
    std::env::var_os("PASSBOOK_TEST_BIN").map_or_else(built, PathBuf::from)
}

/// The command without the PASSBOOK_ variables of the test run.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PASSBOOK_") {
            command.env_remove(name);
        }
    }
    command
}

fn spawn_and_wait(
    program: PathBuf,
    listen: String,
    restart_arguments: Vec<String>,
) -> Result<Server, String> {
    let (mut server, lines) = launch(program, &listen, restart_arguments);
    let Ok(ready_line) = lines.recv_timeout(PATIENCE) else {
        let log = server.log();
        return Err(format!("the server did not get ready; its log:\n{}", last_lines(&log)));
    };
    server.address =
        address_of(&ready_line).ok_or_else(|| format!("not a ready line: {ready_line}"))?;
    server.ready_line = ready_line;
    Ok(server)
}

/// The address in a ready line, which is JSON for an ephemeral ledger.
fn address_of(ready_line: &str) -> Option<SocketAddr> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(ready_line) {
        return json["address"].as_str()?.parse().ok();
    }
    ready_line.strip_prefix("ready: listening on ")?.split(',').next()?.parse().ok()
}

/// Starts the process. Its address and ready line are still unknown; the channel gets the lines of
/// its standard output.
fn launch(
    program: PathBuf,
    listen: &str,
    restart_arguments: Vec<String>,
) -> (Server, mpsc::Receiver<String>) {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let log = File::create(log_path(&directory)).expect("a log file");
    let mut command = command(&program);
    command.args(["serve", "--listen", listen]).args(&restart_arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir(directory.path());
    let mut child = command.spawn().expect("the binary starts");
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let stdout = Arc::new(Mutex::new(Vec::new()));
    let (sender, receiver) = mpsc::channel();
    let seen = Arc::clone(&stdout);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            seen.lock().expect("the lock").push(line.clone());
            let _ = sender.send(line);
        }
    });
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let ready_line = String::new();
    let server =
        Server { child, address, ready_line, stdout, directory, program, restart_arguments };
    (server, receiver)
}

fn log_path(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}

fn read_all(source: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last lines of a log.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The processor time that a process has used: its id, or `self`.
pub fn cpu_time(process: &str) -> Duration {
    /// USER_HZ, in which the kernel counts.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.expect("the process is there");
    // The name, in parentheses, may contain anything. User and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|it| TICK * it.parse::<u32>().expect("a number of ticks")).sum()
}
