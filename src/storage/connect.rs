//! Connections, and what is set on each of them.

use std::{fmt, str::FromStr, time::Duration};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, SqlxError,
    sqlx::{
        self, ConnectOptions, Connection,
        pool::{PoolConnectionMetadata, PoolOptions},
        postgres::{PgConnectOptions, PgPool},
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous},
    },
};

use crate::storage::{StorageError, Writer};

/// How long a group commit waits for row locks before it goes on without the accounts that
/// someone else holds. Long enough for another server's transaction to end, short enough that
/// a lock held for seconds is not felt on other accounts.
const POSTGRES_LOCK_TIMEOUT: &str = "20ms";
/// A statement that runs longer is broken off: far above any healthy one.
const POSTGRES_STATEMENT_TIMEOUT: &str = "6s";
/// A transaction that nobody drives any more gives back its locks after this.
const POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT: &str = "10s";
/// How soon a backend that waits for a lock notices that its server process was killed.
const POSTGRES_CONNECTION_CHECK: &str = "2s";
/// How long SQLite itself waits for the write lock before the worker looks up and tries again.
/// Short, because SQLite polls with growing pauses, and two busy processes are served more
/// evenly by frequent tries.
const SQLITE_WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);
/// Readers and migrations meet a lock only in rare moments (recovery, another migration).
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before they are moved into the database's file. A page
/// that changes often is moved once for many changes; the log takes 64 MiB on the disk.
const SQLITE_CHECKPOINT_PAGES: &str = "16384";
/// What the writer keeps in memory of the database, in KiB (SQLite takes a negative number for
/// that): the pages that a batch changes, or they go to the disk before the commit.
const SQLITE_CACHE_SIZE: &str = "-16384";
/// How long to wait for a connection: longer means that the database is not well.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for this long is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// How long that test may take; sqlx itself would wait for a dead peer for ever. Well below
/// [`ACQUIRE_TIMEOUT`], so that there is time left for a new connection.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Reads at the same time in one process; more wait.
const READERS_MAX: u32 = 8;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// One file, one writer at a time.
    Sqlite,
    /// Version 14 or later.
    Postgres,
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// Where the database is. Its `Debug` never shows the URL, which may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl(Options);

#[derive(Clone)]
enum Options {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

/// Why a text is not a database URL. The text itself is not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// In memory, every connection would have a database of its own.
    #[error("must name a file: an in-memory SQLite database cannot be shared by connections")]
    InMemory,
    /// Not a URL of that scheme.
    #[error("is not a valid URL (in a user name or password, write %2F for / and %40 for @)")]
    Malformed,
    /// SQLite knows no passwords.
    #[error("is not PostgreSQL's")]
    NoPassword,
}

impl DatabaseUrl {
    /// Reads `sqlite://...`, `postgres://...` or `postgresql://...`.
    ///
    /// # Errors
    /// Another scheme, or an in-memory SQLite database.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if text.starts_with("sqlite:") {
            if text.contains(":memory:") || text.contains("mode=memory") {
                return Err(DatabaseUrlError::InMemory);
            }
            let options = SqliteConnectOptions::from_str(text);
            return options.map_or(Err(DatabaseUrlError::Malformed), |it| {
                Ok(Self(Options::Sqlite(Box::new(it.disable_statement_logging()))))
            });
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::Scheme);
        }
        let options = PgConnectOptions::from_str(text);
        options.map_or(Err(DatabaseUrlError::Malformed), |it| {
            Ok(Self(Options::Postgres(Box::new(it.disable_statement_logging()))))
        })
    }

    /// The same with this password.
    ///
    /// # Errors
    /// It is not PostgreSQL's.
    pub fn with_password(self, password: &str) -> Result<Self, DatabaseUrlError> {
        match self.0 {
            Options::Postgres(options) => {
                Ok(Self(Options::Postgres(Box::new(options.password(password)))))
            }
            Options::Sqlite(_) => Err(DatabaseUrlError::NoPassword),
        }
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        match self.0 {
            Options::Sqlite(_) => DatabaseKind::Sqlite,
            Options::Postgres(_) => DatabaseKind::Postgres,
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://...", self.kind())
    }
}

/// A database, and the connections that reads share.
pub struct Store {
    url: DatabaseUrl,
    pub(super) readers: DatabaseConnection,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Reader,
    Writer,
    /// Migrations: waits for locks, and is not cut off by a statement timeout.
    Admin,
}

impl Store {
    /// Connects; the schema is not looked at yet.
    ///
    /// # Errors
    /// The database cannot be reached or opened.
    pub async fn connect(url: DatabaseUrl) -> Result<Self, StorageError> {
        let readers = open(&url, Role::Reader, READERS_MAX).await?;
        Ok(Self { url, readers })
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        self.url.kind()
    }

    /// Closes the connections of reads. On SQLite, moves what is in the write-ahead log into the
    /// database's file, so that this alone is a whole copy.
    ///
    /// # Errors
    /// The log could not be moved, which the next server does at its start.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.readers.close_by_ref().await?;
        if self.kind() == DatabaseKind::Sqlite {
            let admin = self.admin().await?;
            // Another process that is reading has the log moved by itself, sooner or later.
            admin.execute_unprepared("PRAGMA busy_timeout = 500").await?;
            admin.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
            admin.close().await?;
        }
        Ok(())
    }

    /// A connection of its own for one worker, in a pool of one: what is left on it after a
    /// panic or a time-out is dropped with it and never reaches anyone else.
    ///
    /// # Errors
    /// The database cannot be reached or opened.
    pub async fn writer(&self) -> Result<Writer, StorageError> {
        Ok(Writer::new(open(&self.url, Role::Writer, 1).await?))
    }

    pub(super) async fn admin(&self) -> Result<DatabaseConnection, StorageError> {
        Ok(open(&self.url, Role::Admin, 1).await?)
    }
}

/// The pools are made here and handed to SeaORM, whose own way would log the URL at trace.
async fn open(url: &DatabaseUrl, role: Role, size: u32) -> Result<DatabaseConnection, SqlxError> {
    match &url.0 {
        Options::Postgres(options) => {
            let options = postgres((**options).clone(), role);
            let pool: PgPool = pool_options(role, size).connect_with(options).await?;
            Ok(pool.into())
        }
        Options::Sqlite(options) => {
            let options = sqlite((**options).clone(), role);
            let pool: SqlitePool = pool_options(role, size).connect_with(options).await?;
            Ok(pool.into())
        }
    }
}

fn pool_options<DB: sqlx::Database>(role: Role, size: u32) -> PoolOptions<DB> {
    let options = PoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata: PoolConnectionMetadata| {
            Box::pin(async move {
                let is_fresh = metadata.idle_for < TEST_AFTER_IDLE;
                (is_fresh || answers(connection).await).then_some(true).ok_or_else(dead)
            })
        });
    if role != Role::Reader {
        return options;
    }
    // A read whose caller has gone may leave a connection to a dead peer behind. A writer's pool
    // is thrown away as a whole.
    options.after_release(|connection, _| {
        Box::pin(async move { answers(connection).await.then_some(true).ok_or_else(dead) })
    })
}

/// As an error it closes the connection without a word more to the peer.
fn dead() -> SqlxError {
    SqlxError::Io(std::io::ErrorKind::TimedOut.into())
}

async fn answers<C: Connection>(connection: &mut C) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

fn postgres(options: PgConnectOptions, role: Role) -> PgConnectOptions {
    let options = options.application_name("passbook").options([
        ("default_transaction_isolation", "read committed"),
        ("idle_in_transaction_session_timeout", POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT),
        ("client_connection_check_interval", POSTGRES_CONNECTION_CHECK),
        // An acknowledged change is on disk, whatever the server's default is.
        ("synchronous_commit", "on"),
        // Compiling these short statements costs more than running them.
        ("jit", "off"),
    ]);
    match role {
        Role::Reader => options.options([
            ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT),
            // A generic plan made while a table was empty scans it when it is large.
            ("plan_cache_mode", "force_custom_plan"),
        ]),
        Role::Writer => options.options([
            ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT),
            ("lock_timeout", POSTGRES_LOCK_TIMEOUT),
            // All that a writer does is to find rows by their keys, for which one plan is right
            // whatever the size of the tables: an index look-up for each. So each statement is
            // planned once a connection, and without the choices that would be right only for
            // the size of the moment.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]),
        Role::Admin => options,
    }
}

fn sqlite(options: SqliteConnectOptions, role: Role) -> SqliteConnectOptions {
    let busy_timeout = match role {
        Role::Writer => SQLITE_WRITER_BUSY_TIMEOUT,
        Role::Reader | Role::Admin => SQLITE_BUSY_TIMEOUT,
    };
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose acknowledged changes when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout);
    match role {
        Role::Reader => options.pragma("query_only", "on"),
        Role::Writer => options
            .pragma("wal_autocheckpoint", SQLITE_CHECKPOINT_PAGES)
            .pragma("cache_size", SQLITE_CACHE_SIZE),
        Role::Admin => options,
    }
}
