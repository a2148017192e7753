//! The two databases, and how their SQL differs.

use std::{fmt, sync::OnceLock};

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};
use serde::Serialize;
use uuid::Uuid;

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

    /// The function that gives the least of its arguments.
    pub(in crate::storage) fn least(self) -> &'static str {
        match self {
            Self::Sqlite => "MIN",
            Self::Postgres => "LEAST",
        }
    }

    /// The text of a column of UUIDs; on SQLite without hyphens.
    pub(in crate::storage) fn uuid_text(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("hex({column})"),
            Self::Postgres => column.to_owned(),
        }
    }

    /// The hexadecimal digits of a column of bytes.
    pub(in crate::storage) fn bytes_text(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("hex({column})"),
            Self::Postgres => format!("encode({column}, 'hex')"),
        }
    }

    /// The text of a column of amounts or JSON. PostgreSQL's numbers keep all their digits in it.
    pub(in crate::storage) fn text(self, column: &str) -> String {
        match self {
            Self::Sqlite => column.to_owned(),
            Self::Postgres => format!("{column}::text"),
        }
    }

    /// Whether a column of labels has all labels of a parameter, which is JSON text.
    pub(in crate::storage) fn has_labels(self, column: &str, parameter: &str) -> String {
        match self {
            Self::Sqlite => format!(
                "NOT EXISTS (SELECT 1 FROM json_each({parameter}) wanted WHERE NOT EXISTS \
                 (SELECT 1 FROM json_each({column}) had \
                  WHERE had.key = wanted.key AND had.value = wanted.value))"
            ),
            Self::Postgres => format!("{column} @> CAST({parameter} AS jsonb)"),
        }
    }

    /// A list of texts as one value, so that the statement is the same for any number of them: an
    /// array on PostgreSQL, JSON on SQLite.
    pub(in crate::storage) fn texts(self, texts: impl Iterator<Item = String>) -> Value {
        match self {
            Self::Sqlite => serde_json::Value::from_iter(texts).to_string().into(),
            Self::Postgres => texts.collect::<Vec<_>>().into(),
        }
    }

    /// A list of integers, likewise.
    pub(in crate::storage) fn integers(self, integers: impl Iterator<Item = i64>) -> Value {
        match self {
            Self::Sqlite => serde_json::Value::from_iter(integers).to_string().into(),
            Self::Postgres => integers.collect::<Vec<_>>().into(),
        }
    }

    /// A list of UUIDs, likewise; on SQLite as hexadecimal digits, because JSON has no bytes.
    pub(in crate::storage) fn uuids(self, uuids: impl Iterator<Item = Uuid>) -> Value {
        match self {
            Self::Sqlite => {
                let digits = uuids.map(|uuid| uuid.simple().to_string());
                serde_json::Value::from_iter(digits).to_string().into()
            }
            Self::Postgres => uuids.collect::<Vec<_>>().into(),
        }
    }

    /// A list of pairs: two arrays on PostgreSQL, one JSON array of arrays on SQLite.
    pub(in crate::storage) fn pairs<S: Serialize, T: Serialize>(
        self,
        pairs: impl Iterator<Item = (S, T)>,
    ) -> Vec<Value>
    where
        Vec<S>: Into<Value>,
        Vec<T>: Into<Value>,
    {
        match self {
            Self::Sqlite => vec![serde_json::json!(pairs.collect::<Vec<_>>()).to_string().into()],
            Self::Postgres => {
                let (first, second): (Vec<S>, Vec<T>) = pairs.unzip();
                vec![first.into(), second.into()]
            }
        }
    }

    /// The placeholder of the value with this number, from 1.
    pub(in crate::storage) fn numbered(self, number: usize) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("${number}"),
        }
    }

    /// The placeholder of the one value of an expression that SeaQuery puts into a statement.
    pub(in crate::storage) fn placeholder(self) -> &'static str {
        match self {
            Self::Sqlite => "?",
            Self::Postgres => "$1",
        }
    }
}

/// The text of a statement on each database, built when it is first needed.
pub(in crate::storage) struct Sql {
    build: fn(DatabaseKind) -> String,
    texts: [OnceLock<String>; 2],
}

impl Sql {
    pub(in crate::storage) const fn new(build: fn(DatabaseKind) -> String) -> Self {
        Self { build, texts: [const { OnceLock::new() }; 2] }
    }

    pub(in crate::storage) fn text(&self, kind: DatabaseKind) -> &str {
        self.texts[kind as usize].get_or_init(|| (self.build)(kind))
    }

    pub(in crate::storage) fn statement(
        &self,
        kind: DatabaseKind,
        values: impl IntoIterator<Item = Value>,
    ) -> Statement {
        kind.statement(self.text(kind), values)
    }
}
