//! What went wrong, by SQLSTATE or SQLite's code; the driver's text stays in the log.
//!
//! PostgreSQL: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
//! SQLite: <https://www.sqlite.org/rescode.html>.

use sea_orm::{
    DbErr, RuntimeErr, SqlxError,
    sqlx::postgres::{PgDatabaseError as Postgres, PgSeverity},
};

/// Why a statement failed. In every case the transaction around it has no effect.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The lock was not had in time.
    #[error("lock not available in time: {0}")]
    LockTimeout(String),
    /// The database broke off the transaction for a reason that may be gone when it is run
    /// again: a deadlock, a serialisation failure, a key that someone else has just taken.
    #[error("transaction broken off: {0}")]
    Aborted(String),
    /// A request has its verdict already, and the attempt did not know it.
    #[error("decided already: {0}")]
    RepeatedRequest(String),
    /// The database cannot be reached or written; the connection must not be used again.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The database's role may not do what it has to; the connection must not be used again.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// A table or column is missing.
    #[error("schema not migrated: {0}")]
    SchemaNotMigrated(String),
    /// The database refused a value or a row: some request of the batch carries what should
    /// not have come this far.
    #[error("data refused: {0}")]
    Data(String),
    /// A row holds what this service never wrote.
    #[error("unreadable row: {0}")]
    Corrupt(String),
}

impl StorageError {
    /// The error as it may be logged at any level: without the ids of what cannot be read, which
    /// the log has at debug, and `passbook verify` finds.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Corrupt(_) => "unreadable row: see `passbook verify`".to_owned(),
            Self::LockTimeout(_)
            | Self::Aborted(_)
            | Self::RepeatedRequest(_)
            | Self::Unavailable(_)
            | Self::Forbidden(_)
            | Self::SchemaNotMigrated(_)
            | Self::Data(_) => self.to_string(),
        }
    }
}

/// Why a COMMIT was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It did not happen.
    #[error(transparent)]
    NotCommitted(StorageError),
    /// It may have happened: the answer was lost.
    #[error("outcome of COMMIT unknown: {0}")]
    Unknown(String),
}

impl From<DbErr> for StorageError {
    fn from(error: DbErr) -> Self {
        let text = words(&error);
        match (&error, sqlx_error(&error)) {
            (_, Some(inner)) => from_sqlx(inner, text),
            (DbErr::ConnectionAcquire(_) | DbErr::Conn(_), None) => Self::Unavailable(text),
            (_, None) => Self::Corrupt(text),
        }
    }
}

impl From<SqlxError> for StorageError {
    fn from(error: SqlxError) -> Self {
        let text = of_postgres(&error).map_or_else(|| error.to_string(), postgres_words);
        from_sqlx(&error, text)
    }
}

impl From<DbErr> for CommitError {
    fn from(error: DbErr) -> Self {
        let text = words(&error);
        let Some(database_error) = sqlx_error(&error).and_then(SqlxError::as_database_error) else {
            return Self::Unknown(text);
        };
        let code = database_error.code().unwrap_or_default();
        let is_known = if let Some(postgres) = database_error.try_downcast_ref::<Postgres>() {
            // An ERROR says that it was rolled back, except where the server does not know. A
            // FATAL or PANIC (a shutdown, a failed fsync) may come after the commit was written.
            postgres.severity() == PgSeverity::Error
                && code != "40003"
                && !matches!(code.get(..2), Some("08" | "57") | None)
        } else {
            // A commit that found the file locked or the disk full has not been written whole.
            is_sqlite_busy(&code) || primary_code(&code) == Some(13)
        };
        if is_known { Self::NotCommitted(error.into()) } else { Self::Unknown(text) }
    }
}

fn words(error: &DbErr) -> String {
    let of_postgres = sqlx_error(error).and_then(of_postgres);
    of_postgres.map_or_else(|| error.to_string(), postgres_words)
}

fn of_postgres(error: &SqlxError) -> Option<&Postgres> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// PostgreSQL's own words, and what to do. sqlx would add a number: that of a line in PostgreSQL's
/// source.
pub(super) fn postgres_words(error: &Postgres) -> String {
    match advice(error.code(), error.message()) {
        Some(advice) => format!("{}: {advice}", error.message()),
        None => error.message().to_owned(),
    }
}

fn advice(code: &str, message: &str) -> Option<&'static str> {
    match code {
        "28P01" => Some(
            "mend USER:PASSWORD@ in database_url, where %23 stands for #, %2F for /, %3F for ?, \
             %40 for @ and %25 for %, or database_password_file",
        ),
        "28000" => Some("mend the user in database_url, or the server's pg_hba.conf"),
        "3D000" => Some("CREATE DATABASE, or mend its name in database_url"),
        "53300" => Some("raise the server's max_connections, the role's or the database's limit"),
        "42501" if message.contains("for database") => {
            Some("GRANT CONNECT ON DATABASE to the user of database_url")
        }
        "42501" if message.contains("for schema") => {
            Some("GRANT USAGE ON SCHEMA to the user of database_url; CREATE as well, to migrate")
        }
        "42501" if message.contains("for table") => {
            Some("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA to the user of database_url")
        }
        "42501" if message.contains("must be owner") => {
            Some("migrate as the user who owns the ledger's tables")
        }
        _ => None,
    }
}

fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn from_sqlx(error: &SqlxError, text: String) -> StorageError {
    let Some(database_error) = error.as_database_error() else {
        return match error {
            SqlxError::ColumnDecode { .. }
            | SqlxError::ColumnNotFound(_)
            | SqlxError::ColumnIndexOutOfBounds { .. }
            | SqlxError::Decode(_)
            | SqlxError::TypeNotFound { .. } => StorageError::Corrupt(text),
            SqlxError::Encode(_) => StorageError::Data(text),
            _ => StorageError::Unavailable(text),
        };
    };
    let code = database_error.code().unwrap_or_default();
    if database_error.try_downcast_ref::<Postgres>().is_some() {
        from_sqlstate(&code, database_error.constraint(), text)
    } else {
        from_sqlite_code(&code, text)
    }
}

fn from_sqlstate(code: &str, constraint: Option<&str>, text: String) -> StorageError {
    match (code, code.get(..2)) {
        ("55P03", _) => StorageError::LockTimeout(text),
        // The number of an account's next entry is taken: its row is not what the entries say.
        ("23505", _) if constraint == Some("entries_pkey") => StorageError::Data(text),
        ("23505", _) if constraint == Some("requests_pkey") => StorageError::RepeatedRequest(text),
        // Other unique violations too: keys are looked up first, so one means that somebody
        // else took the key in between, and fresh rows will show it.
        ("40001" | "40P01" | "40003" | "57014" | "25P04" | "23505", _) => {
            StorageError::Aborted(text)
        }
        ("42501", _) => StorageError::Forbidden(text),
        ("42P01" | "42703" | "3F000", _) => StorageError::SchemaNotMigrated(text),
        // What is wrong with a value is wrong with a request.
        (_, Some("22" | "23" | "54")) => StorageError::Data(text),
        // All else is wrong with the connection or the server (25006: read-only, a standby;
        // 0A000: a plan made before a migration). The texts of the statements are constant.
        _ => StorageError::Unavailable(text),
    }
}

fn from_sqlite_code(code: &str, text: String) -> StorageError {
    if is_sqlite_busy(code) {
        return StorageError::LockTimeout(text);
    }
    match primary_code(code) {
        Some(1) if text.contains("no such table") || text.contains("no such column") => {
            StorageError::SchemaNotMigrated(text)
        }
        // Our own trigger's words, which come before the unique constraint would.
        Some(19) if text.contains("REPLACE on requests") => StorageError::RepeatedRequest(text),
        // TOOBIG, CONSTRAINT, MISMATCH. All else is looked up under the one write lock, so a
        // unique constraint is no race.
        Some(18..=20) => StorageError::Data(text),
        _ => StorageError::Unavailable(text),
    }
}

/// BUSY and LOCKED, plain and extended (BUSY_RECOVERY 261, BUSY_SNAPSHOT 517 ...).
fn is_sqlite_busy(code: &str) -> bool {
    matches!(primary_code(code), Some(5 | 6))
}

/// The low byte of an extended result code.
fn primary_code(code: &str) -> Option<u32> {
    code.parse::<u32>().ok().map(|code| code & 0xff)
}
