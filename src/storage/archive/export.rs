//! Export: rows to lines.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, TryGetable, Value};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    Counts, FORMAT, FORMAT_VERSION,
    fields::{FIELDS, Field, Form, account_ids, entry_names},
    trailer,
};
use crate::{
    domain::{hex::to_hex, ids::AccountId},
    storage::{
        Snapshot, StorageError,
        commit_pages::page_of_commits,
        dialect::DatabaseKind,
        schema_version,
        tables::{COMMITS, Column, ColumnType, TABLES, Table},
    },
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
        for ((table, fields), count) in TABLES.iter().zip(FIELDS.iter()).zip(&mut counts) {
            *count = export(connection, table, fields, output, lines).await?;
        }
        writeln!(output, "{}", trailer(&counts))?;
        output.flush()?;
        Ok(counts.iter().sum())
    }
}

async fn export(
    connection: &DatabaseTransaction,
    table: &Table,
    fields: &[Field],
    output: &mut (impl Write + Send),
    lines: &AtomicU64,
) -> Result<u64, ExportError> {
    let kind = DatabaseKind::of(connection);
    let mut count = 0;
    let (first, next) = (page_sql(kind, table, false), page_sql(kind, table, true));
    let mut statement = kind.statement(first, []);
    loop {
        let rows = connection.query_all_raw(statement).await?;
        let account_ids = account_ids(connection, fields, &rows).await?;
        let mut text = Vec::with_capacity(rows.len() * 256);
        for row in &rows {
            write_row(&mut text, table, fields, row, &account_ids)?;
        }
        output.write_all(&text)?;
        count += rows.len() as u64;
        lines.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let Some(last) = rows.last() else { return Ok(count) };
        statement = kind.statement(next.as_str(), key_of(table, fields.len(), last)?);
    }
}

/// The statement for the first page, and for those after a key. The first empty page is the end.
fn page_sql(kind: DatabaseKind, table: &Table, has_key: bool) -> String {
    let select = |column: &Column| match column.kind {
        ColumnType::Amount | ColumnType::Json => kind.text(column.name),
        _ => column.name.to_owned(),
    };
    let columns = table.inserted().map(select).collect::<Vec<_>>().join(", ");
    let key: Vec<_> = page_key(table).iter().map(|column| column.name).collect();
    let (key, key_length) = (key.join(", "), key.len());
    if table.name == COMMITS.name {
        // Numbers begin with 1.
        return page_of_commits(&format!("{columns}, {key}"), if has_key { "$1" } else { "0" });
    }
    let after = match (has_key, key_length) {
        (false, _) => String::new(),
        (true, 1) => format!("WHERE {key} > $1"),
        (true, _) => format!("WHERE ({key}) > ($1, $2)"),
    };
    let name = table.name;
    format!("SELECT {columns}, {key} FROM {name} {after} ORDER BY {key} LIMIT {PAGE}")
}

/// The columns by which a table is read page by page. Accounts are in the order of their keys, so
/// that an import gives out keys in the same order, and entries stay in theirs.
fn page_key(table: &Table) -> Vec<&Column> {
    let generated: Vec<_> = table.columns.iter().filter(|column| column.is_generated).collect();
    if generated.is_empty() { table.key().iter().collect() } else { generated }
}

/// The key of a row, which begins at this index.
fn key_of(table: &Table, first: usize, row: &QueryResult) -> Result<Vec<Value>, DbErr> {
    let cells = page_key(table).into_iter().zip(first..);
    cells
        .map(|(column, index)| match column.kind {
            ColumnType::Integer => Ok(row.try_get_by_index::<i64>(index)?.into()),
            _ => Ok(row.try_get_by_index::<String>(index)?.into()),
        })
        .collect()
}

/// Appends the line of a row. Only reading a value can fail.
fn write_row(
    text: &mut Vec<u8>,
    table: &Table,
    fields: &[Field],
    row: &QueryResult,
    account_ids: &BTreeMap<i64, AccountId>,
) -> Result<(), ExportError> {
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(table.row_name.as_bytes());
    text.push(b'"');
    for (index, field) in fields.iter().enumerate() {
        let column = &field.column;
        text.extend_from_slice(b",\"");
        text.extend_from_slice(column.name.as_bytes());
        text.extend_from_slice(b"\":");
        write_cell(text, field, index, row, account_ids).map_err(|why| {
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
    field: &Field,
    index: usize,
    row: &QueryResult,
    account_ids: &BTreeMap<i64, AccountId>,
) -> Result<(), String> {
    let column = &field.column;
    let value = match column.kind {
        _ if field.form == Form::AccountId => {
            row.try_get_by_index(index).map(|key: i64| json!(account_ids.get(&key)))
        }
        _ if field.form == Form::EntryNames => {
            let keys: String = row.try_get_by_index(index).map_err(|error| error.to_string())?;
            Ok(json!(entry_names(&keys, account_ids)?))
        }
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
            let json: Option<String> =
                row.try_get_by_index(index).map_err(|error| error.to_string())?;
            let json = json.as_deref().unwrap_or("null");
            Ok(serde_json::from_str(json).map_err(|error| error.to_string())?)
        }
    };
    let mut value = value.map_err(|error| error.to_string())?;
    if value.is_null() && field.form == Form::NeverNull {
        value = if column.kind == ColumnType::Json { json!({}) } else { json!("") };
    }
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
