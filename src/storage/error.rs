//! Errors, classified by SQLSTATE or SQLite's result code. The driver's text goes only to the log.
//!
//! PostgreSQL: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
//! SQLite: <https://www.sqlite.org/rescode.html>.

use sea_orm::{
    DbErr, RuntimeErr, SqlxError,
    sqlx::postgres::{PgDatabaseError as Postgres, PgSeverity},
};

/// Why a statement failed. The transaction around it has no effect.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A lock was not granted in time.
    #[error("lock not granted in time: {0}")]
    LockTimeout(String),
    /// The database aborted the transaction for a transient reason: a deadlock, a serialization
    /// failure, a key that another transaction has just taken.
    #[error("transaction aborted: {0}")]
    Aborted(String),
    /// A request has a record already that the attempt did not look up.
    #[error("request recorded already: {0}")]
    RepeatedRequest(String),
    /// The database cannot be reached or written; the connection must not be used again.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The database's role lacks a right; the connection must not be used again.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// A table or column is missing.
    #[error("schema not migrated: {0}")]
    SchemaNotMigrated(String),
    /// The database refused a value or a row: a request of the batch has an invalid value that no
    /// check has caught.
    #[error("the database refused the data: {0}")]
    Data(String),
    /// A row has a value that this service never wrote.
    #[error("unreadable row: {0}")]
    Corrupt(String),
}

impl StorageError {
    /// The error without the ids of unreadable rows, for any log level. The log has those ids at
    /// debug, and `passbook verify` finds them.
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
    /// The transaction was rolled back.
    #[error(transparent)]
    NotCommitted(StorageError),
    /// The transaction may be committed: the answer was lost.
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
            // After an ERROR the transaction is rolled back, except where the server does not know.
            // A FATAL or PANIC (a shutdown, a failed fsync) may come after the commit was written.
            postgres.severity() == PgSeverity::Error
                && code != "40003"
                && !matches!(code.get(..2), Some("08" | "57") | None)
        } else {
            // A commit that met a locked file or a full disk is not written whole.
            is_sqlite_busy(&code) || primary_code(&code) == Some(13)
        };
        if is_known { Self::NotCommitted(error.into()) } else { Self::Unknown(text) }
    }
}

/// The name of the column whose value the driver could not decode.
pub(super) fn undecodable_column(error: &DbErr) -> Option<&str> {
    match sqlx_error(error)? {
        SqlxError::ColumnDecode { index, .. } => Some(index.trim_matches('"')),
        _ => None,
    }
}

fn words(error: &DbErr) -> String {
    let of_postgres = sqlx_error(error).and_then(of_postgres);
    of_postgres.map_or_else(|| error.to_string(), postgres_words)
}

fn of_postgres(error: &SqlxError) -> Option<&Postgres> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// PostgreSQL's message, and what to do. sqlx's text would add a line number of PostgreSQL's
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
            "correct USER:PASSWORD@ in database_url, where %23 stands for #, %2F for /, %3F for ?, \
             %40 for @ and %25 for %, or database_password_file",
        ),
        "28000" => Some("correct the user in database_url, or the server's pg_hba.conf"),
        "3D000" => Some("create the database, or correct its name in database_url"),
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
        // The sequence of an account's next entry is taken: its row contradicts its entries.
        ("23505", _) if constraint == Some("entries_pkey") => StorageError::Data(text),
        ("23505", _) if constraint == Some("requests_pkey") => StorageError::RepeatedRequest(text),
        // Keys are looked up first, so another unique violation means that the key was taken in
        // between, and fresh rows will show it.
        ("40001" | "40P01" | "40003" | "57014" | "25P04" | "23505", _) => {
            StorageError::Aborted(text)
        }
        ("42501", _) => StorageError::Forbidden(text),
        ("42P01" | "42703" | "3F000", _) => StorageError::SchemaNotMigrated(text),
        // An invalid value comes from a request.
        (_, Some("22" | "23" | "54")) => StorageError::Data(text),
        // The texts of statements are constant, so the connection or the server is at fault (25006:
        // read-only, a standby; 0A000: a plan made before a migration).
        _ => StorageError::Unavailable(text),
    }
}

/// SQLite's messages where a table or a column is missing.
const LACKS: [&str; 3] = ["no such table", "no such column", "has no column named"];

fn from_sqlite_code(code: &str, text: String) -> StorageError {
    if is_sqlite_busy(code) {
        return StorageError::LockTimeout(text);
    }
    match primary_code(code) {
        Some(1) if LACKS.iter().any(|it| text.contains(it)) => {
            StorageError::SchemaNotMigrated(text)
        }
        // The message of our own trigger, which runs before the unique constraint.
        Some(19) if text.contains("REPLACE on requests") => StorageError::RepeatedRequest(text),
        // TOOBIG, CONSTRAINT, MISMATCH. Other keys are looked up under the write lock, so a unique
        // violation is no race.
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
