//! The two databases, and how their SQL differs.

use std::fmt;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

/// The kind of database behind a connection or a URL.
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

impl From<DatabaseKind> for DbBackend {
    fn from(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Sqlite => Self::Sqlite,
            DatabaseKind::Postgres => Self::Postgres,
        }
    }
}

impl DatabaseKind {
    /// The kind of database that a connection or transaction is of.
    pub(in crate::storage) fn of(connection: &impl ConnectionTrait) -> Self {
        match connection.get_database_backend() {
            DbBackend::Sqlite => Self::Sqlite,
            _ => Self::Postgres,
        }
    }

    /// A statement with its values.
    pub(in crate::storage) fn statement(
        self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Statement {
        Statement::from_sql_and_values(self.into(), sql, values)
    }

    /// The database's clock, as an expression in microseconds since the Unix epoch.
    pub(in crate::storage) fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000",
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
        }
    }

    /// The clock at the beginning of the statement. It is the same for all rows, so that an index
    /// can be searched by it.
    pub(in crate::storage) fn statement_clock(self) -> &'static str {
        match self {
            // SQLite's clock stands still within a statement.
            Self::Sqlite => self.clock(),
            Self::Postgres => "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)",
        }
    }

    /// A statement's text with the placeholders `{1}` to `{4}` written as the database has them.
    pub(in crate::storage) fn with_placeholders(self, template: &str) -> String {
        let sign = match self {
            Self::Sqlite => '?',
            Self::Postgres => '$',
        };
        (1..=4).fold(template.to_owned(), |sql, number| {
            sql.replace(&format!("{{{number}}}"), &format!("{sign}{number}"))
        })
    }
}
