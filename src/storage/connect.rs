//! Connections, and what is set on each of them.

use std::{fmt, time::Duration};

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use crate::storage::{StorageError, Writer};

/// How long a group commit waits for row locks before it goes on without the accounts that
/// someone else holds. Long enough for another server's transaction to end, short enough that
/// a lock held for seconds is not felt on other accounts.
const POSTGRES_LOCK_TIMEOUT: &str = "20ms";
/// A statement that runs longer is broken off: far above any healthy one.
const POSTGRES_STATEMENT_TIMEOUT: &str = "15s";
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
/// How long to wait for a connection: longer means that the database is not well.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for this long is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
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
pub struct DatabaseUrl {
    url: String,
    kind: DatabaseKind,
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
            return Ok(Self { url: text.to_owned(), kind: DatabaseKind::Sqlite });
        }
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(DatabaseUrlError::Scheme)?;
        Ok(Self { url: format!("postgres://{rest}"), kind: DatabaseKind::Postgres })
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://...", self.kind)
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
        self.url.kind
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

async fn open(
    url: &DatabaseUrl,
    role: Role,
    connections: u32,
) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url.url.clone());
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    match url.kind {
        DatabaseKind::Postgres => options.map_sqlx_postgres_opts(move |it| postgres(it, role)),
        DatabaseKind::Sqlite => options.map_sqlx_sqlite_opts(move |it| sqlite(it, role)),
    };
    Database::connect(options).await
}

fn postgres(
    options: sea_orm::sqlx::postgres::PgConnectOptions,
    role: Role,
) -> sea_orm::sqlx::postgres::PgConnectOptions {
    let options = options.application_name("passbook").options([
        ("default_transaction_isolation", "read committed"),
        ("idle_in_transaction_session_timeout", POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT),
        ("client_connection_check_interval", POSTGRES_CONNECTION_CHECK),
        // A generic plan made while a table was empty scans it when it is large.
        ("plan_cache_mode", "force_custom_plan"),
        // An acknowledged change is on disk, whatever the server's default is.
        ("synchronous_commit", "on"),
        // Compiling these short statements costs more than running them.
        ("jit", "off"),
    ]);
    match role {
        Role::Reader => options.options([("statement_timeout", POSTGRES_STATEMENT_TIMEOUT)]),
        Role::Writer => options.options([
            ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT),
            ("lock_timeout", POSTGRES_LOCK_TIMEOUT),
        ]),
        Role::Admin => options,
    }
}

fn sqlite(
    options: sea_orm::sqlx::sqlite::SqliteConnectOptions,
    role: Role,
) -> sea_orm::sqlx::sqlite::SqliteConnectOptions {
    let busy_timeout = match role {
        Role::Writer => SQLITE_WRITER_BUSY_TIMEOUT,
        Role::Reader | Role::Admin => SQLITE_BUSY_TIMEOUT,
    };
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose acknowledged changes when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout);
    if role == Role::Reader { options.pragma("query_only", "on") } else { options }
}
