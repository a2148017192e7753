//! A new database for each test, dropped with the test.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use passbook::storage::migration_names;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, QueryResult, Statement,
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::harness::{
    server::passbook,
    slots::{self, Load, Slot},
};

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// One database, dropped with this value.
pub struct TestDatabase {
    pub kind: Kind,
    url: String,
    name: String,
    raw: OnceCell<DatabaseConnection>,
    directory: Option<TempDir>,
    /// It belongs to a server of the test, and is dropped with that server.
    is_outside: bool,
    _slot: Option<Slot>,
}

impl TestDatabase {
    /// An empty ledger with its schema.
    pub async fn create(kind: Kind) -> Self {
        Self::create_for(kind, Load::Light).await
    }

    /// The same with a slot for this load.
    pub async fn create_for(kind: Kind, load: Load) -> Self {
        let slot = slots::take(load).await;
        let mut database = match kind {
            Kind::Sqlite => Self::sqlite_of(sqlite_template().await),
            Kind::Postgres => Self::postgres(Some(postgres_template().await)).await,
        };
        database._slot = Some(slot);
        database
    }

    /// A database without any table.
    pub async fn create_empty(kind: Kind) -> Self {
        let slot = slots::take(Load::Light).await;
        let mut database = match kind {
            Kind::Sqlite => Self::sqlite(),
            Kind::Postgres => Self::postgres(None).await,
        };
        database._slot = Some(slot);
        database
    }

    /// Another empty ledger for a test that already has its slot.
    pub async fn create_beside(&self, kind: Kind) -> Self {
        let database = self.create_empty_beside(kind).await;
        passbook(&["migrate", "--database-url", database.url(), "up"]).await.must_succeed();
        database
    }

    /// The same without any table.
    pub async fn create_empty_beside(&self, kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => Self::sqlite(),
            Kind::Postgres => Self::postgres(None).await,
        }
    }

    fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        let url = sqlite_url(&directory.path().join("passbook.db"));
        let raw = OnceCell::new();
        let name = "passbook.db".to_owned();
        let directory = Some(directory);
        Self { kind: Kind::Sqlite, url, name, raw, directory, is_outside: false, _slot: None }
    }

    /// A database with these bytes.
    fn sqlite_of(bytes: &[u8]) -> Self {
        let database = Self::sqlite();
        let directory = database.directory.as_ref().expect("its directory");
        let path = directory.path().join(&database.name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).expect("a new file");
        file.write_all(bytes).expect("it is written");
        database
    }

    async fn postgres(template: Option<&str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("passbook_test_{}_{number}", std::process::id());
        let template = template.unwrap_or("template0");
        on_server(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let url = postgres_url(&name);
        let raw = OnceCell::new();
        let is_outside = false;
        Self { kind: Kind::Postgres, url, name, raw, directory: None, is_outside, _slot: None }
    }

    /// An existing ledger, on a server or in a folder of the test. It is not dropped.
    pub fn outside(url: &str, slot: Slot) -> Self {
        let (raw, name, is_outside) = (OnceCell::new(), String::new(), true);
        let kind = if url.starts_with("sqlite:") { Kind::Sqlite } else { Kind::Postgres };
        let _slot = Some(slot);
        let url = url.to_owned();
        Self { kind, url, name, raw, directory: None, is_outside, _slot }
    }

    /// Reverts all migrations from the first one whose name ends like this.
    pub async fn migrate_down_before(&self, migration: &str) {
        let names = migration_names();
        for _ in names.iter().skip_while(|name| !name.ends_with(migration)) {
            self.passbook(&["migrate", "down"]).await.must_succeed();
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name in PostgreSQL, as in `pg_stat_activity.datname`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the same database behind another address, such as a proxy's.
    pub fn url_at(&self, address: std::net::SocketAddr) -> String {
        let (start, rest) = self.url.split_once("://").expect("a URL");
        let (user, server_and_path) = rest.split_once('@').unwrap_or(("postgres", rest));
        let (_, path) = server_and_path.split_once('/').expect("a URL with a path");
        let path = path.split('?').next().unwrap_or(path);
        format!("{start}://{user}@{address}/{path}?sslmode=disable")
    }

    /// A new session, as of another program on the same database.
    pub async fn connect(&self) -> DatabaseConnection {
        connect(&self.url)
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.url))
    }

    /// The session of the test, opened on first use.
    pub async fn raw(&self) -> &DatabaseConnection {
        self.raw.get_or_init(|| self.connect()).await
    }

    /// Runs one or more statements.
    pub async fn execute(&self, sql: &str) {
        if let Err(error) = self.raw().await.execute_unprepared(sql).await {
            panic!("{sql}: {error}");
        }
    }

    /// Runs statements that the database must reject, and returns its message.
    pub async fn refused(&self, sql: &str) -> String {
        match self.raw().await.execute_unprepared(sql).await {
            Ok(_) => panic!("the database let this pass: {sql}"),
            Err(error) => error.to_string(),
        }
    }

    /// Runs statements that the database must reject with these words.
    pub async fn must_refuse(&self, statements: &[impl AsRef<str>], words: &str) {
        for statement in statements {
            let said = self.refused(statement.as_ref()).await;
            assert!(said.contains(words), "{}: {said}", statement.as_ref());
        }
    }

    pub async fn rows(&self, sql: &str) -> Vec<QueryResult> {
        rows(self.raw().await, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of the first row, which must be text.
    pub async fn text(&self, sql: &str) -> String {
        self.texts(sql).await.into_iter().next().unwrap_or_else(|| panic!("no row: {sql}"))
    }

    /// The first column of each row, which must be text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.rows(sql).await;
        rows.iter().map(|row| row.try_get_by_index(0).expect("a column of text")).collect()
    }

    /// Locks this account in a session of its own, as another program would: its row, or the file of
    /// SQLite.
    pub async fn lock_account(&self, account_id: &str) -> DatabaseConnection {
        let session = self.connect().await;
        let lock = match self.kind {
            Kind::Sqlite => "BEGIN IMMEDIATE".to_owned(),
            Kind::Postgres => {
                format!(
                    "BEGIN; SELECT 1 FROM accounts WHERE account_id = '{account_id}' FOR UPDATE"
                )
            }
        };
        session.execute_unprepared(&lock).await.expect("it is locked");
        session
    }

    /// All accounts, each as a text.
    pub async fn accounts(&self) -> Vec<String> {
        let columns = "account_id || currency_code || balance || held || overdraft_limit || \
            unlimited_overdraft || state || sequence || version || labels || update_time_us";
        self.texts(&format!("SELECT {columns} FROM accounts ORDER BY account_id")).await
    }

    /// All holds, each as a text.
    pub async fn holds(&self) -> Vec<String> {
        let columns = "hold_id || account_key || amount || state || coalesce(expire_time_us, 0) || \
            request_id || coalesce(description, '') || coalesce(CAST(labels AS TEXT), '') || \
            create_time_us || update_time_us";
        self.texts(&format!("SELECT {columns} FROM holds ORDER BY hold_id")).await
    }

    /// Rows numbered from 1, as a table `numbers` with the column `n`, for a FROM.
    pub fn numbers(&self, count: usize) -> String {
        match self.kind {
            Kind::Sqlite => format!(
                "(WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
                  SELECT n FROM n) numbers"
            ),
            Kind::Postgres => format!("generate_series(1, {count}) AS numbers(n)"),
        }
    }

    /// Copies the first request so many times: the names of callers and the request ids are expressions of
    /// `n`.
    pub async fn copy_request(&self, caller: &str, request_id: &str, count: usize) {
        let transaction_id = match self.kind {
            Kind::Sqlite => "randomblob(16)",
            Kind::Postgres => "gen_random_uuid()",
        };
        let insert = format!(
            "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, entry_keys,
                 create_time_us)
             SELECT {caller}, {request_id}, fingerprint, {transaction_id}, kind, entry_keys,
                 create_time_us
             FROM {}, (SELECT * FROM requests LIMIT 1) r",
            self.numbers(count)
        );
        self.execute(&insert).await;
    }

    /// Creates a role of PostgreSQL with these options that owns nothing. Returns its name and its URL.
    pub async fn create_role(&self, options: &str) -> (String, String) {
        let role = format!("role_of_{}", self.name);
        self.execute(&format!("CREATE ROLE {role} LOGIN {options}")).await;
        let (_, rest) = self.url.split_once('@').expect("a user");
        let url = format!("postgres://{role}@{rest}");
        (role, url)
    }

    /// The same with all rights on the tables.
    pub async fn create_serving_role(&self, options: &str) -> (String, String) {
        let (role, url) = self.create_role(options).await;
        self.execute(&format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")).await;
        (role, url)
    }

    /// Drops a role and its rights.
    pub async fn drop_role(&self, role: &str) {
        self.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }

    /// Copies the account `pattern`: the ids are the prefix and a number of at least five digits.
    pub async fn copy_account(&self, prefix: &str, count: usize) {
        let width = count.to_string().len().max(5);
        let digits = match self.kind {
            Kind::Sqlite => format!("substr('0000000' || n, -{width})"),
            Kind::Postgres => format!("lpad(n::text, {width}, '0')"),
        };
        let columns = "currency_code, currency_scale, balance, held, overdraft_limit, \
            unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
            update_time_us, caller";
        let insert = format!(
            "INSERT INTO accounts (account_id, {columns})
             SELECT '{prefix}' || {digits}, {columns} FROM accounts, {}
             WHERE account_id = 'pattern'",
            self.numbers(count)
        );
        self.execute(&insert).await;
    }

    /// The number of PostgreSQL sessions that wait for a lock.
    pub async fn lock_waits(&self) -> i64 {
        let name = &self.name;
        let waiting = format!("datname = '{name}' AND wait_event_type = 'Lock'");
        self.count(&format!("pg_stat_activity WHERE {waiting}")).await
    }

    /// The columns of a table that an INSERT may set.
    pub async fn columns(&self, table: &str) -> Vec<String> {
        self.texts(&match self.kind {
            Kind::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
            Kind::Postgres => format!(
                "SELECT column_name::text FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = '{table}' AND is_generated = 'NEVER'"
            ),
        })
        .await
    }

    pub async fn count(&self, from_where: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {from_where}");
        self.rows(&sql).await[0].try_get_by_index(0).expect("a count")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.kind == Kind::Sqlite {
            drop(self.directory.take());
            return;
        }
        if self.is_outside {
            return;
        }
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // `drop` cannot wait for a future, so a thread with a runtime of its own does.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(on_server(&sql));
        });
        if dropping.join().is_err() {
            eprintln!("left behind: database {}", self.name);
        }
    }
}

/// The condition that a row of `entries` is of this account.
pub fn of_account(account_id: &str) -> String {
    format!("account_key = (SELECT account_key FROM accounts WHERE account_id = '{account_id}')")
}

pub async fn rows(database: &impl ConnectionTrait, sql: &str) -> Result<Vec<QueryResult>, DbErr> {
    database.query_all_raw(Statement::from_string(database.get_database_backend(), sql)).await
}

pub async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    // One connection, so that BEGIN, statements and COMMIT meet in one session.
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await
}

fn sqlite_url(path: &Path) -> String {
    format!("sqlite://{}?mode=rwc", path.display())
}

fn server_url() -> String {
    std::env::var("PASSBOOK_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "this test needs PostgreSQL: run it by scripts/test, which brings one, or set \
             PASSBOOK_TEST_POSTGRES_URL to a superuser's URL of a server for tests"
        )
    })
}

fn postgres_url(name: &str) -> String {
    let server = server_url();
    let (address, parameters) = server.split_once('?').unwrap_or((&server, ""));
    let start = address.rsplit_once('/').expect("PASSBOOK_TEST_POSTGRES_URL ends in /DATABASE").0;
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{start}/{name}{mark}{parameters}")
}

async fn on_server(sql: &str) -> Vec<QueryResult> {
    let server = connect(&server_url()).await.expect("a session with the PostgreSQL for tests");
    let rows = rows(&server, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    server.close().await.expect("the session ends");
    rows
}

/// The bytes of a new SQLite database, migrated by the real command.
async fn sqlite_template() -> &'static [u8] {
    static TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();
    let make = async || {
        let database = TestDatabase::sqlite();
        passbook(&["migrate", "--database-url", database.url(), "up"]).await.must_succeed();
        let directory = database.directory.as_ref().expect("its directory").path();
        let log = directory.join("passbook.db-wal");
        assert!(!log.exists(), "the command has moved its log into the file");
        std::fs::read(directory.join("passbook.db")).expect("its file")
    };
    TEMPLATE.get_or_init(make).await
}

/// The template of all PostgreSQL databases of this run, migrated by the real command.
async fn postgres_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let make = async || {
        drop_left_behind().await;
        let name = format!("passbook_test_{}_template", std::process::id());
        on_server(&format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        passbook(&["migrate", "--database-url", &postgres_url(&name), "up"]).await.must_succeed();
        name
    };
    TEMPLATE.get_or_init(make).await
}

/// Drops the databases of test runs that were killed.
async fn drop_left_behind() {
    let names = "SELECT datname::text FROM pg_database WHERE datname LIKE 'passbook_test_%'";
    for row in on_server(names).await {
        let name: String = row.try_get_by_index(0).expect("a name");
        let process = name.split('_').nth(2).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            on_server(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}
