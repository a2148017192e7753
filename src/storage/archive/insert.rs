//! Inserting rows, many in a statement.

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};

use crate::storage::{
    StorageError,
    archive::fields::Row,
    dialect::DatabaseKind,
    tables::{ColumnType, Table},
    write::statements::{Parameters, sqlite_insert, sqlite_rows},
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
    let kind = DatabaseKind::of(transaction);
    let mut columns: Vec<_> = table.inserted().cloned().collect();
    for column in columns.iter_mut().filter(|column| column.kind == ColumnType::Amount) {
        column.kind = ColumnType::AmountAsText;
    }
    let columns: Vec<_> = columns.iter().collect();
    let statement = match kind {
        DatabaseKind::Sqlite => {
            let sql = sqlite_insert(table, &columns) + &sqlite_rows(columns.len(), rows.len());
            kind.statement(sql, rows.into_iter().flatten())
        }
        DatabaseKind::Postgres => {
            let mut arrays: Vec<Vec<Value>> =
                columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
            for row in rows {
                for (array, value) in arrays.iter_mut().zip(row) {
                    array.push(value);
                }
            }
            let arrays = columns.iter().zip(arrays).map(|(column, array)| column.array(array));
            kind.statement(Parameters::default().insert(table, &columns), arrays)
        }
    };
    transaction.execute_raw(statement).await?;
    Ok(())
}
