//! PostgreSQL servers that a test starts, kills, copies and promotes.
//!
//! The programs stand beside `PASSBOOK_TEST_PSQL`. PostgreSQL refuses to run as root, so it runs as
//! the user `postgres` then, as in scripts/postgres.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, DatabaseConnection};
use tempfile::TempDir;

use crate::harness::{
    database::{connect, rows},
    eventually, passbook,
};

/// Ports below the kernel's ephemeral range, so that a stopped server can bind its port again.
/// scripts/postgres uses ports above.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// One server with its own directory, killed when dropped.
pub struct PostgresServer {
    pub port: u16,
    directory: TempDir,
    process: Option<Child>,
    settings: Vec<String>,
}

impl PostgresServer {
    /// Starts a new server.
    pub async fn start() -> Self {
        Self::start_in(None, &[]).await
    }

    /// Starts a new server with the schema.
    pub async fn start_migrated() -> Self {
        let server = Self::start().await;
        server.migrate().await;
        server
    }

    pub async fn migrate(&self) {
        passbook(&["migrate", "--database-url", &self.url(), "up"]).await.must_succeed();
    }

    /// Starts a new server with its data in this directory and additional settings.
    pub async fn start_in(parent: Option<&Path>, settings: &[&str]) -> Self {
        let mut server = Self::empty(parent);
        server.settings = settings.iter().map(|it| (*it).to_owned()).collect();
        let data = server.data();
        let mut initdb = program("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        run(initdb.arg("--no-sync").arg("-D").arg(data));
        server.run().await;
        server
    }

    /// Starts a standby of this server.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::empty(None);
        standby.settings.clone_from(&self.settings);
        self.copy_to(&standby.data());
        standby.run().await;
        standby
    }

    /// Restarts a crashed server as a standby of this one, at its old address.
    pub async fn follow(&mut self, primary: &Self) {
        let mut standby = Self::empty(None);
        standby.settings.clone_from(&primary.settings);
        standby.port = self.port;
        self.crash();
        primary.copy_to(&standby.data());
        *self = standby;
        self.run().await;
    }

    /// Makes a copy that follows this server under the name `standby`.
    fn copy_to(&self, data: &Path) {
        let from =
            format!("host=127.0.0.1 port={} user=postgres application_name=standby", self.port);
        let mut copy = program("pg_basebackup");
        copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"]);
        run(copy.args(["--no-sync", "-d", &from]).arg("-D").arg(data));
    }

    fn empty(parent: Option<&Path>) -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("passbook-postgres.");
        let directory = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir_in("/tmp"),
        };
        let directory = directory.expect("a directory for temporary files");
        if let Some(user) = server_user() {
            run(Command::new("chown").arg(user).arg(directory.path()));
        }
        Self { port: free_port(), directory, process: None, settings: Vec::new() }
    }

    /// Starts a stopped server and waits until it accepts connections.
    pub async fn run(&mut self) {
        self.launch();
        let up = async || connect(&self.url()).await.is_ok();
        eventually("PostgreSQL takes connections", up).await;
    }

    /// Starts the process without waiting.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("a log");
        let mut command = program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "fsync=on",
            "synchronous_commit=on",
            "shared_buffers=32MB",
            "wal_keep_size=256MB",
            "max_wal_size=256MB",
        ];
        for setting in settings.iter().copied().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.process = Some(command.spawn().expect("postgres starts"));
    }

    /// Stops the server immediately, as a crash does. All its processes have exited on return.
    pub fn crash(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // SIGQUIT: the postmaster kills its children first. After SIGKILL the children would
        // continue for a moment while the port is already free.
        let pid = process.id().to_string();
        let _ = Command::new("sh").args(["-c", "kill -QUIT \"$0\"", &pid]).status();
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Promotes a standby.
    pub async fn promote(&self) {
        let session = self.session().await;
        let promoted = session.execute_unprepared("SELECT pg_promote(true, 60)").await;
        promoted.expect("the standby becomes the primary");
    }

    /// A superuser's session.
    pub async fn session(&self) -> DatabaseConnection {
        connect(&self.url()).await.expect("a session")
    }

    /// Waits until this server, a standby, has the first entry.
    pub async fn wait_for_an_entry(&self) {
        let session = self.session().await;
        eventually("the standby has it", async || {
            let rows = rows(&session, "SELECT 1 FROM entries").await;
            rows.is_ok_and(|rows| !rows.is_empty())
        })
        .await;
    }

    pub async fn execute(&self, sql: &str) {
        let session = self.session().await;
        // One at a time: some must not run in a transaction.
        for statement in sql.split(';') {
            let done = session.execute_unprepared(statement).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        session.close().await.expect("the session ends");
    }

    /// Requires a password from this role.
    pub fn require_passwords_of(&self, role: &str) {
        let path = self.data().join("pg_hba.conf");
        let trusting = std::fs::read_to_string(&path).expect("pg_hba.conf");
        let rules = format!("host all {role} 127.0.0.1/32 scram-sha-256\n{trusting}");
        std::fs::write(&path, rules).expect("pg_hba.conf can be written");
        let data = self.data();
        run(program("pg_ctl").arg("reload").arg("-D").arg(data));
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        url(&[self])
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            println!("---- log of PostgreSQL at {} ----\n{}", self.address(), last.join("\n"));
        }
        self.crash();
        // Only root can remove the files of its user.
        let _ = run_quietly(as_server_user("rm").arg("-rf").arg(self.data()));
    }
}

/// A URL with the addresses of all servers.
pub fn url(servers: &[&PostgresServer]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| server.address()).collect();
    format!("postgres://postgres@{}/postgres?sslmode=disable", hosts.join(","))
}

pub fn free_port() -> u16 {
    for _ in 0..100 {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

fn program(name: &str) -> Command {
    let psql = std::env::var("PASSBOOK_TEST_PSQL").unwrap_or_else(|_| {
        panic!("this test needs PostgreSQL's programs: run it by scripts/test, or set PASSBOOK_TEST_PSQL")
    });
    let path = Path::new(&psql).with_file_name(name);
    as_server_user(path.to_str().expect("a path in UTF-8"))
}

/// A command that does not run as root.
pub fn as_server_user(program: &str) -> Command {
    let mut command = match server_user() {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", program]);
            command
        }
        None => Command::new(program),
    };
    // The user may have no access to the current directory.
    command.current_dir("/");
    command
}

/// None if this process does not run as root.
pub fn server_user() -> Option<String> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if id(&["-u"])? != "0" {
        return None;
    }
    let user = if id(&["-u", "postgres"]).is_some() { "postgres" } else { "nobody" };
    Some(user.to_owned())
}

fn run(command: &mut Command) {
    let output = run_quietly(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}

fn run_quietly(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).output()
}
