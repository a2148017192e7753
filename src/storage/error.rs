//! What went wrong, by SQLSTATE or SQLite's code; the driver's text stays in the log.
//!
//! PostgreSQL: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
//! SQLite: <https://www.sqlite.org/rescode.html>.

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlxError};

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
    /// The database cannot be reached or written; the connection must not be used again.
    #[error("database unavailable: {0}")]
    Unavailable(String),
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
        let text = error.to_string();
        match &error {
            DbErr::Conn(RuntimeErr::SqlxError(inner))
            | DbErr::Exec(RuntimeErr::SqlxError(inner))
            | DbErr::Query(RuntimeErr::SqlxError(inner)) => from_sqlx(inner, text),
            DbErr::ConnectionAcquire(
                ConnAcquireErr::Timeout | ConnAcquireErr::ConnectionClosed,
            ) => Self::Unavailable(text),
            DbErr::Conn(_) => Self::Unavailable(text),
            _ => Self::Corrupt(text),
        }
    }
}

impl From<DbErr> for CommitError {
    fn from(error: DbErr) -> Self {
        let code = sqlx_error(&error).and_then(SqlxError::as_database_error).and_then(|it| {
            Some((it.code()?.into_owned(), it.try_downcast_ref::<Postgres>().is_some()))
        });
        match code {
            // The server itself says that it rolled back, or that it does not know.
            Some((code, true)) if !matches!(code.as_str(), "40003" | "08007") => {
                match &code[..2] {
                    // An administrator's shutdown may hit after the commit record was written.
                    "08" | "57" => Self::Unknown(error.to_string()),
                    _ => Self::NotCommitted(error.into()),
                }
            }
            Some((code, false)) if is_sqlite_busy(&code) => Self::NotCommitted(error.into()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

type Postgres = sea_orm::sqlx::postgres::PgDatabaseError;

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
        from_sqlstate(&code, text)
    } else {
        from_sqlite_code(&code, text)
    }
}

fn from_sqlstate(code: &str, text: String) -> StorageError {
    match code {
        "55P03" => StorageError::LockTimeout(text),
        // Unique violations too: keys are looked up first, so one means that somebody else
        // took the key in between, and fresh rows will show it.
        "40001" | "40P01" | "40003" | "57014" | "25P04" | "23505" => StorageError::Aborted(text),
        // Read-only: connected to a standby.
        "25006" => StorageError::Unavailable(text),
        "42P01" | "42703" | "3F000" => StorageError::SchemaNotMigrated(text),
        _ => match code.get(..2) {
            Some("22" | "23") => StorageError::Data(text),
            // Connection, authorisation, catalogue, resources, intervention, system, internal.
            Some("08" | "28" | "3D" | "53" | "57" | "58" | "XX") => StorageError::Unavailable(text),
            _ => StorageError::Data(text),
        },
    }
}

fn from_sqlite_code(code: &str, text: String) -> StorageError {
    if is_sqlite_busy(code) {
        return StorageError::LockTimeout(text);
    }
    // The primary code is the low byte of the extended one.
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(1) if text.contains("no such table") || text.contains("no such column") => {
            StorageError::SchemaNotMigrated(text)
        }
        // Unique constraints, as 23505 above.
        Ok(19) if matches!(code, "1555" | "2067") => StorageError::Aborted(text),
        // Permission, read-only, interrupt, I/O, corrupt, full, cannot open, protocol, not a database.
        Ok(3 | 8 | 9 | 10 | 11 | 13 | 14 | 15 | 26) => StorageError::Unavailable(text),
        _ => StorageError::Data(text),
    }
}

/// BUSY and LOCKED, plain and extended (BUSY_RECOVERY 261, BUSY_SNAPSHOT 517 ...).
fn is_sqlite_busy(code: &str) -> bool {
    matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6))
}
