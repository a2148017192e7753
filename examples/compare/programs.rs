//! Starts and measures the programs, each on a new database.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    figures::{ACCOUNTS, Database, Figure, Load, Subject},
    foreign_lock, memory, wall,
};

/// The accounts of the full database.
pub const GROWN_ACCOUNTS: u32 = 1_000_000;
const GROWN_ENTRIES_PER_ACCOUNT: u32 = 10;
const GROWN_DATABASE: &str = "passbook_grown";

/// The programs, the PostgreSQL server and the parameters of a comparison.
pub struct Lab {
    pub passbook: PathBuf,
    /// An earlier version of it.
    before: Option<PathBuf>,
    lock_per_request: PathBuf,
    pgbench: PathBuf,
    pub psql: PathBuf,
    /// A superuser's URL of the PostgreSQL, without the database's name.
    postgres: String,
    directory: TempDir,
    duration: Duration,
}

/// A server under load. It is killed on drop.
pub struct Server {
    pub target: String,
    pub process: Child,
}

impl Lab {
    pub fn open(duration: Duration, before: Option<PathBuf>) -> anyhow::Result<Self> {
        let examples = std::env::current_exe()?;
        let examples = examples.parent().context("no folder")?;
        let url = std::env::var("PASSBOOK_TEST_POSTGRES_URL")
            .context("run scripts/compare, which brings a PostgreSQL")?;
        let psql = std::env::var("PASSBOOK_TEST_PSQL").unwrap_or_else(|_| "psql".to_owned());
        let (postgres, _) = url.rsplit_once('/').context("a URL without a database")?;
        let lab = Self {
            passbook: examples.join("../passbook"),
            before,
            lock_per_request: examples.join("lock_per_request"),
            pgbench: Path::new(&psql).with_file_name("pgbench"),
            psql: psql.into(),
            postgres: postgres.to_owned(),
            directory: tempfile::tempdir()?,
            duration,
        };
        ensure!(
            lab.lock_per_request.exists(),
            "lock_per_request is not built: run `cargo build --release --examples`"
        );
        Ok(lab)
    }

    /// Measures one figure. Some figures have several values.
    pub async fn measure(&self, figure: &Figure) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let name = figure.name;
        let value = match figure.subject {
            Subject::Passbook { database, load, servers } => {
                self.passbook_rate(&self.passbook, database, load, servers).await?
            }
            Subject::LockPerRequest { database, load } => self.plain_rate(database, load).await?,
            Subject::Pgbench { accounts, clients } => self.pgbench_rate(accounts, clients).await?,
            Subject::Wall { accounts } => {
                let database = self.database().await?;
                self.migrate(&database.url).await?;
                let rate = wall::rate(&database.url, accounts, self.duration).await?;
                self.drop(database).await?;
                rate
            }
            Subject::ForeignLock => return foreign_lock::measure(self).await,
            Subject::Memory => return memory::measure(self).await,
            Subject::Growth { full } => return self.growth(full).await,
        };
        Ok(vec![(name, value)])
    }

    /// Measures the same figure with the earlier version. None: there is none, or it does not know the
    /// workload, or the figure is not one of Passbook.
    pub async fn measure_before(&self, figure: &Figure) -> anyhow::Result<Option<f64>> {
        let (Some(before), Subject::Passbook { database, load, servers }) =
            (&self.before, figure.subject)
        else {
            return Ok(None);
        };
        let help = run(Command::new(before).args(["bench", "--help"])).await?;
        if !help.contains(&format!("- {}:", load.workload)) {
            return Ok(None);
        }
        self.passbook_rate(before, database, load, servers).await.map(Some)
    }

    async fn passbook_rate(
        &self,
        program: &Path,
        database: Database,
        load: Load,
        servers: u32,
    ) -> anyhow::Result<f64> {
        let servers = servers.to_string();
        let new = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(self.database().await?),
        };
        let url = new.as_ref().map(|it| it.url.as_str());
        let arguments = ["--servers", &servers];
        let report = self.bench(program, load, &arguments, url, self.duration).await?;
        if let Some(new) = new {
            self.drop(new).await?;
        }
        rate(&report)
    }

    async fn plain_rate(&self, database: Database, load: Load) -> anyhow::Result<f64> {
        let new = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(self.database().await?),
        };
        let file = self.directory.path().join("plain.db");
        let url = match &new {
            Some(new) => new.url.clone(),
            None => format!("sqlite://{}?mode=rwc", file.display()),
        };
        let server = start(&self.lock_per_request, &[], &url).await?;
        let report = self
            .bench(&self.passbook, load, &["--target", &server.target], None, self.duration)
            .await?;
        drop(server);
        match new {
            Some(new) => self.drop(new).await?,
            None => std::fs::remove_file(file)?,
        }
        rate(&report)
    }

    /// Runs `bench` of this program and returns its JSON.
    pub async fn bench(
        &self,
        program: &Path,
        load: Load,
        arguments: &[&str],
        url: Option<&str>,
        duration: Duration,
    ) -> anyhow::Result<Value> {
        let json = self.directory.path().join("bench.json");
        let mut command = Command::new(program);
        command
            .args(["bench", "--workload", load.workload, "--mode", load.mode, "--warmup", "1s"])
            .args(["--in-flight", &load.in_flight.to_string()])
            .args(["--duration", &format!("{}ms", duration.as_millis())])
            .arg("--json")
            .arg(&json);
        if !arguments.contains(&"--accounts") {
            command.args(["--accounts", &ACCOUNTS.to_string()]);
        }
        command.args(arguments);
        if let Some(url) = url {
            command.env("PASSBOOK_BENCH_DATABASE_URL", url);
        }
        run(&mut command).await?;
        let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        ensure!(report["errors"] == serde_json::json!({}), "errors: {}", report["errors"]);
        Ok(report)
    }

    async fn pgbench_rate(&self, accounts: u32, clients: u32) -> anyhow::Result<f64> {
        let database = self.database().await?;
        self.migrate(&database.url).await?;
        self.sql(&database.url, &insert_accounts("pgbench", accounts, 0)).await?;
        self.sql(&database.url, "VACUUM ANALYZE accounts").await?;
        self.sql(&database.url, "CHECKPOINT").await?;
        let output = run(Command::new(&self.pgbench)
            .args(["-n", "-M", "prepared", "-f", "scripts/pgbench_change.sql"])
            .args(["-D", &format!("accounts={accounts}")])
            .args(["-c", &clients.to_string(), "-j", "1"])
            .args(["-T", &self.duration.as_secs().to_string(), &database.url]))
        .await?;
        self.drop(database).await?;
        let tps = output.lines().find_map(|line| line.strip_prefix("tps = "));
        let tps = tps
            .and_then(|rest| rest.split(' ').next())
            .context("the output of pgbench has no tps")?;
        Ok(tps.parse()?)
    }

    /// The load of `uniform 512` on an empty database, or on the full one.
    async fn growth(&self, full: bool) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let load = Load { workload: "uniform", mode: "unary", in_flight: 512 };
        let duration = self.duration * 2;
        let (report, names) = if full {
            let url = format!("{}/{GROWN_DATABASE}", self.postgres);
            let accounts = GROWN_ACCOUNTS.to_string();
            let arguments = ["--existing", "grown", "--accounts", &accounts];
            let report = self.bench(&self.passbook, load, &arguments, Some(&url), duration).await?;
            (report, ["growth, full", "growth, full p99"])
        } else {
            let database = self.database().await?;
            let report =
                self.bench(&self.passbook, load, &[], Some(&database.url), duration).await?;
            self.drop(database).await?;
            (report, ["growth, empty", "growth, empty p99"])
        };
        Ok(vec![(names[0], rate(&report)?), (names[1], number(&report, "p99_ms")?)])
    }

    /// Creates the full database. Creates the indexes of `requests` after the rows, which is faster.
    pub async fn grow(&self) -> anyhow::Result<()> {
        let url = format!("{}/{GROWN_DATABASE}", self.postgres);
        self.admin(&format!("DROP DATABASE IF EXISTS {GROWN_DATABASE} WITH (FORCE)")).await?;
        self.admin(&format!("CREATE DATABASE {GROWN_DATABASE}")).await?;
        self.migrate(&url).await?;
        println!("filling a database: {GROWN_ACCOUNTS} accounts");
        let each = GROWN_ENTRIES_PER_ACCOUNT;
        self.sql(&url, &insert_accounts("grown", GROWN_ACCOUNTS, each)).await?;
        println!("filling a database: {} entries", GROWN_ACCOUNTS * each);
        let zeros = "decode(repeat('00', 32), 'hex')";
        for statement in [
            format!(
                "INSERT INTO entries (account_key, sequence, transaction_id, amount, balance_after, \
                     create_time_us, hash) \
                 SELECT account_key, s, gen_random_uuid(), 1, s, s, {zeros} \
                 FROM accounts, generate_series(1, {each}) s"
            ),
            "ALTER TABLE requests DROP CONSTRAINT requests_pkey".to_owned(),
            "DROP INDEX requests_transaction_id".to_owned(),
            format!(
                "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, \
                     entry_keys, create_time_us) \
                 SELECT '', md5(random()::text) || '.' || account_key || '.' || s, \
                     substring({zeros}, 1, 16), gen_random_uuid(), 'deposit', \
                     account_key || ':' || s, s \
                 FROM accounts, generate_series(1, {each}) s"
            ),
            "ALTER TABLE requests ADD PRIMARY KEY (caller, request_id)".to_owned(),
            "CREATE UNIQUE INDEX requests_transaction_id ON requests (transaction_id)".to_owned(),
            "VACUUM ANALYZE".to_owned(),
            "CHECKPOINT".to_owned(),
        ] {
            self.sql(&url, &statement).await?;
        }
        Ok(())
    }

    /// The machine, the versions and the settings on which the figures depend.
    pub async fn about(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut connection = PgConnection::connect(&format!("{}/postgres", self.postgres)).await?;
        let mut about = Vec::new();
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: "));
        let cores = std::thread::available_parallelism()?;
        about.push(("machine".to_owned(), format!("{cores} x {}", model.unwrap_or("unknown"))));
        let rustc = run(Command::new("rustc").arg("--version")).await?;
        about.push(("compiler".to_owned(), rustc.trim().to_owned()));
        for name in
            ["server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size"]
        {
            let value: String =
                sqlx::query_scalar(AssertSqlSafe(format!("SELECT current_setting('{name}')")))
                    .fetch_one(&mut connection)
                    .await?;
            about.push((format!("PostgreSQL {name}"), value));
        }
        about.push(("SQLite".to_owned(), "bundled, WAL, synchronous=FULL".to_owned()));
        if let Some(before) = self.before.as_ref().and_then(|it| it.file_name()) {
            about.push(("the earlier version".to_owned(), before.to_string_lossy().into_owned()));
        }
        let commit = run(Command::new("git").args(["rev-parse", "--short", "HEAD"])).await;
        about.push(("commit".to_owned(), commit.unwrap_or_default().trim().to_owned()));
        Ok(about)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        self.admin(&format!("DROP DATABASE IF EXISTS {GROWN_DATABASE} WITH (FORCE)")).await
    }

    /// Creates a database.
    pub async fn database(&self) -> anyhow::Result<NewDatabase> {
        let name = format!("compare_{}", uuid::Uuid::now_v7().simple());
        self.admin(&format!("CREATE DATABASE {name}")).await?;
        // Earlier writes must not cause a checkpoint during the measurement.
        self.admin("CHECKPOINT").await?;
        Ok(NewDatabase { url: format!("{}/{name}", self.postgres), name })
    }

    pub async fn drop(&self, database: NewDatabase) -> anyhow::Result<()> {
        self.admin(&format!("DROP DATABASE {} WITH (FORCE)", database.name)).await
    }

    pub async fn migrate(&self, url: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.passbook);
        run(command.args(["migrate", "up"]).env("PASSBOOK_DATABASE_URL", url)).await?;
        Ok(())
    }

    /// Starts `passbook serve`.
    pub async fn serve(&self, url: &str) -> anyhow::Result<Server> {
        start(&self.passbook, &["serve", "--listen", "127.0.0.1:0", "--migrate"], url).await
    }

    async fn admin(&self, statement: &str) -> anyhow::Result<()> {
        self.sql(&format!("{}/postgres", self.postgres), statement).await
    }

    pub async fn sql(&self, url: &str, statement: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        connection.close().await?;
        Ok(())
    }
}

/// The database of one measurement.
pub struct NewDatabase {
    pub url: String,
    name: String,
}

/// The SQL that opens the accounts `PREFIX.0` to `PREFIX.count`, each with a balance of `entries`.
/// There is one account more than `count`, because pgbench counts from 1.
pub fn insert_accounts(prefix: &str, count: u32, entries: u32) -> String {
    format!(
        "INSERT INTO accounts SELECT '{prefix}.' || n, 'USD', 2, {entries}, 0, 0, true, 'open', \
         {entries}, {entries} + 1, decode(repeat('00', 32), 'hex'), '{{}}', 0, 0 \
         FROM generate_series(0, {count}) n"
    )
}

pub fn rate(report: &Value) -> anyhow::Result<f64> {
    number(report, "requests_per_s")
}

pub fn number(report: &Value, name: &str) -> anyhow::Result<f64> {
    report[name].as_f64().with_context(|| format!("no {name} in the report"))
}

async fn start(program: &Path, arguments: &[&str], url: &str) -> anyhow::Result<Server> {
    let mut process = Command::new(program)
        .args(arguments)
        .env("PASSBOOK_DATABASE_URL", url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
    let line = lines.next_line().await?.context("the server did not start")?;
    let address = line
        .strip_prefix("ready: listening on ")
        .and_then(|rest| rest.split(',').next())
        .with_context(|| format!("the server said {line:?}"))?;
    Ok(Server { target: format!("http://{address}"), process })
}

/// Runs a program to its end and returns what it printed.
async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
