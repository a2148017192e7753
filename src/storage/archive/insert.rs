//! Inserting rows, many in a statement.

use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};

use crate::storage::archive::reader::Row;
use crate::storage::{
    StorageError,
    dialect::DatabaseKind,
    tables::{Column, ColumnType, Table},
};

/// The most rows in one statement. On SQLite each value is a parameter, and a statement has at most
/// 32,766; on PostgreSQL each column is one.
pub fn rows_max(kind: DatabaseKind) -> usize {
    match kind {
        DatabaseKind::Sqlite => 500,
        DatabaseKind::Postgres => 5000,
    }
}

/// Inserts these rows.
pub async fn insert(
    transaction: &DatabaseTransaction,
    table: &Table,
    rows: Vec<Row>,
) -> Result<(), StorageError> {
    let statement = match DatabaseKind::of(transaction) {
        DatabaseKind::Sqlite => sqlite(table, rows)?,
        DatabaseKind::Postgres => postgres(table, rows),
    };
    transaction.execute_raw(statement).await?;
    Ok(())
}

/// All values travel as text in one array for each column; an empty text stands for null.
fn postgres(table: &Table, rows: Vec<Row>) -> Statement {
    let cast = |column: &Column| {
        let name = column.name;
        let text = if column.is_nullable { format!("NULLIF({name}, '')") } else { name.to_owned() };
        match column.kind {
            ColumnType::Text => text,
            ColumnType::SmallInteger => format!("{text}::smallint"),
            ColumnType::Integer => format!("{text}::bigint"),
            ColumnType::Flag => format!("{text}::boolean"),
            ColumnType::Amount => format!("{text}::numeric"),
            ColumnType::Bytes => format!("decode({text}, 'hex')"),
            ColumnType::Uuid => format!("{text}::uuid"),
            ColumnType::Json => format!("{text}::jsonb"),
        }
    };
    let casts: Vec<String> = table.columns.iter().map(cast).collect();
    let arrays: Vec<String> =
        (1..=table.columns.len()).map(|number| format!("${number}::text[]")).collect();
    let (name, names) = (table.name, table.column_list(""));
    let (casts, arrays) = (casts.join(", "), arrays.join(", "));
    let sql = format!(
        "INSERT INTO {name} ({names}) SELECT {casts} FROM UNNEST({arrays}) AS new({names})"
    );
    let mut columns: Vec<Vec<String>> =
        table.columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell.unwrap_or_default());
        }
    }
    DatabaseKind::Postgres.statement(sql, columns.into_iter().map(Value::from))
}

fn sqlite(table: &Table, rows: Vec<Row>) -> Result<Statement, StorageError> {
    let row = format!("({})", vec!["?"; table.columns.len()].join(", "));
    let (name, names) = (table.name, table.column_list(""));
    let all = vec![row.as_str(); rows.len()].join(", ");
    let sql = format!("INSERT INTO {name} ({names}) VALUES {all}");
    let mut values = Vec::with_capacity(rows.len() * table.columns.len());
    for row in rows {
        for (column, cell) in table.columns.iter().zip(row) {
            let refused = || StorageError::Data(format!("column {}", column.name));
            values.push(sqlite_value(column.kind, cell).ok_or_else(refused)?);
        }
    }
    Ok(DatabaseKind::Sqlite.statement(sql, values))
}

/// The value of a cell. None for a text that the reader should have refused.
fn sqlite_value(kind: ColumnType, cell: Option<String>) -> Option<Value> {
    let Some(text) = cell else { return Some(Value::String(None)) };
    match kind {
        ColumnType::Text | ColumnType::Amount | ColumnType::Json => Some(text.into()),
        ColumnType::SmallInteger | ColumnType::Integer => Some(text.parse::<i64>().ok()?.into()),
        ColumnType::Flag => Some(text.parse::<bool>().ok()?.into()),
        ColumnType::Uuid => Some(uuid::Uuid::try_parse(&text).ok()?.as_bytes().to_vec().into()),
        ColumnType::Bytes => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let byte = |pair: &[u8]| u8::try_from(digit(&pair[0])? * 16 + digit(&pair[1])?).ok();
            let bytes: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(byte).collect();
            Some(bytes?.into())
        }
    }
}
