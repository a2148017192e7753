//! Export: rows to lines.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, TryGetable, Value};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{Counts, FORMAT, FORMAT_VERSION, trailer};
use crate::storage::{
    Snapshot, StorageError,
    dialect::DatabaseKind,
    hex::to_hex,
    schema_version,
    tables::{Column, ColumnType, TABLES, Table},
};

/// Rows in one page: some megabytes, so that round trips do not count.
const PAGE: usize = 5000;

/// Why an export was not made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// The database does not answer, or a row cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<DbErr> for ExportError {
    fn from(error: DbErr) -> Self {
        Self::Storage(error.into())
    }
}

impl Snapshot {
    /// Exports the ledger and returns the number of rows.
    pub async fn export(
        &self,
        output: &mut (impl Write + Send),
        create_time: &str,
        lines: &AtomicU64,
    ) -> Result<u64, ExportError> {
        let connection = &self.connections()[0];
        let database = DatabaseKind::of(&**connection).to_string();
        let header = json!({
            "type": "header",
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "schema_version": schema_version(),
            "database": database,
            "create_time": create_time,
        });
        writeln!(output, "{header}")?;
        let mut counts = Counts::default();
        for (table, count) in TABLES.iter().zip(&mut counts) {
            *count = export(connection, table, output, lines).await?;
        }
        writeln!(output, "{}", trailer(&counts))?;
        output.flush()?;
        Ok(counts.iter().sum())
    }
}

async fn export(
    connection: &DatabaseTransaction,
    table: &Table,
    output: &mut (impl Write + Send),
    lines: &AtomicU64,
) -> Result<u64, ExportError> {
    let kind = DatabaseKind::of(connection);
    let mut count = 0;
    let (first, next) = (page_sql(kind, table, false), page_sql(kind, table, true));
    let mut statement = kind.statement(first, []);
    loop {
        let rows = connection.query_all_raw(statement).await?;
        let mut text = Vec::with_capacity(rows.len() * 256);
        for row in &rows {
            write_row(&mut text, table, row)?;
        }
        output.write_all(&text)?;
        count += rows.len() as u64;
        lines.fetch_add(rows.len() as u64, Ordering::Relaxed);
        match rows.last() {
            Some(last) if rows.len() == PAGE => {
                statement = kind.statement(next.as_str(), key_of(table, last)?);
            }
            _ => return Ok(count),
        }
    }
}

/// The statement for the first page, and for those after a key.
fn page_sql(kind: DatabaseKind, table: &Table, has_key: bool) -> String {
    let select = |column: &Column| match column.kind {
        ColumnType::Amount | ColumnType::Json => kind.text(column.name),
        _ => column.name.to_owned(),
    };
    let columns = table.columns.iter().map(select).collect::<Vec<_>>().join(", ");
    let key = table.key().iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
    let after = match (has_key, table.key_length) {
        (false, _) => String::new(),
        (true, 1) => format!("WHERE {key} > $1"),
        (true, _) => format!("WHERE ({key}) > ($1, $2)"),
    };
    let name = table.name;
    format!("SELECT {columns} FROM {name} {after} ORDER BY {key} LIMIT {PAGE}")
}

fn key_of(table: &Table, row: &QueryResult) -> Result<Vec<Value>, DbErr> {
    let cells = table.key().iter().enumerate();
    cells
        .map(|(index, column)| match column.kind {
            ColumnType::Integer => Ok(row.try_get_by_index::<i64>(index)?.into()),
            _ => Ok(row.try_get_by_index::<String>(index)?.into()),
        })
        .collect()
}

/// Appends the line of a row. Only reading a value can fail.
fn write_row(text: &mut Vec<u8>, table: &Table, row: &QueryResult) -> Result<(), ExportError> {
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(table.row_name.as_bytes());
    text.push(b'"');
    for (index, column) in table.columns.iter().enumerate() {
        text.extend_from_slice(b",\"");
        text.extend_from_slice(column.name.as_bytes());
        text.extend_from_slice(b"\":");
        write_cell(text, column, index, row).map_err(|why| {
            // The first column is part of the key.
            let key: Result<String, _> = row.try_get_by_index(0);
            let (name, key, column) = (table.name, key.unwrap_or_default(), column.name);
            StorageError::Corrupt(format!("{name}, {key:?}: column {column}: {why}"))
        })?;
    }
    text.extend_from_slice(b"}\n");
    Ok(())
}

fn write_cell(
    text: &mut Vec<u8>,
    column: &Column,
    index: usize,
    row: &QueryResult,
) -> Result<(), String> {
    let value = match column.kind {
        ColumnType::Text | ColumnType::Amount | ColumnType::AmountAsText => {
            get::<String>(row, index)
        }
        ColumnType::SmallInteger => get::<i16>(row, index),
        ColumnType::Integer => get::<i64>(row, index),
        ColumnType::Flag => get::<bool>(row, index),
        ColumnType::Uuid => get::<Uuid>(row, index),
        ColumnType::Bytes => {
            row.try_get_by_index::<Option<Vec<u8>>>(index).map(|it| json!(it.map(|it| to_hex(&it))))
        }
        ColumnType::Json => {
            let json: String = row.try_get_by_index(index).map_err(|error| error.to_string())?;
            Ok(serde_json::from_str(&json).map_err(|error| error.to_string())?)
        }
    };
    let value = value.map_err(|error| error.to_string())?;
    if value.is_null() && !column.is_nullable {
        return Err("it is null".to_owned());
    }
    serde_json::to_writer(text, &value).map_err(|error| error.to_string())
}

fn get<T: TryGetable + Serialize>(
    row: &QueryResult,
    index: usize,
) -> Result<serde_json::Value, DbErr> {
    row.try_get_by_index::<Option<T>>(index).map(|value| json!(value))
}
