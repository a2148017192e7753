//! SQLite: rows travel as bound values, several in a statement. The numbers of rows are few, so
//! that each statement is prepared once.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::storage::{
    StorageError,
    dialect::DatabaseKind,
    tables::Column,
    write::{
        changes::{Changes, expect_all},
        rows::{
            ACCOUNT_UPDATES, BALANCE_UPDATES, CLOSED_HOLDS, NEW_ACCOUNT_CHANGES, NEW_ACCOUNTS,
            NEW_ENTRIES, NEW_HOLDS, NEW_REQUESTS, Rows,
        },
    },
};

/// Numbers of rows in one statement: as many of the first as there are, then of the next. With 15
/// columns far below SQLite's limit of 32,766 values.
const ROW_COUNTS: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];

/// Writes all changes. BEGIN IMMEDIATE has locked the whole database: a key that was free when it
/// was looked up is free still.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    execute(transaction, &NEW_ACCOUNTS, &changes.new_accounts).await?;
    execute(transaction, &NEW_REQUESTS, &changes.new_requests).await?;
    execute(transaction, &NEW_ENTRIES, &changes.new_entries).await?;
    execute(transaction, &BALANCE_UPDATES, &changes.balance_updates).await?;
    execute(transaction, &ACCOUNT_UPDATES, &changes.account_updates).await?;
    execute(transaction, &NEW_ACCOUNT_CHANGES, &changes.account_changes).await?;
    execute(transaction, &NEW_HOLDS, &changes.new_holds).await?;
    execute(transaction, &CLOSED_HOLDS, &changes.closed_holds).await
}

async fn execute<R: 'static, const N: usize>(
    transaction: &DatabaseTransaction,
    rows: &'static Rows<R, N>,
    mut left: &[&R],
) -> Result<(), StorageError> {
    let [before, after] = rows.sqlite.get_or_init(|| text(rows));
    let row = format!("({})", vec!["?"; N].join(", "));
    for count in ROW_COUNTS {
        while let Some((now, later)) = left.split_at_checked(count) {
            let sql = format!("{before}{}{after}", vec![row.as_str(); count].join(", "));
            let values = now.iter().flat_map(|row| (rows.values)(DatabaseKind::Sqlite, row));
            let statement = DatabaseKind::Sqlite.statement(sql, values);
            let written = transaction.execute_raw(statement).await?.rows_affected();
            expect_all(rows.what, written, count)?;
            left = later;
        }
    }
    Ok(())
}

/// A statement up to its rows, and from there on.
pub fn text<R: 'static, const N: usize>(rows: &Rows<R, N>) -> [String; 2] {
    let (table, columns) = (rows.table.name, rows.columns());
    if !rows.is_update() {
        let names = rows.table.column_list("");
        return [format!("INSERT INTO {table} ({names}) VALUES "), String::new()];
    }
    let equals = |(index, it): (usize, &&Column)| format!("{} = new.column{}", it.name, index + 1);
    let (keys, set) = columns.split_at(rows.keys);
    let set = set.iter().enumerate().map(|(index, it)| equals((index + rows.keys, it)));
    let set = set.collect::<Vec<_>>().join(", ");
    let keys = keys.iter().enumerate().map(|key| format!("{table}.{}", equals(key)));
    let keys = keys.collect::<Vec<_>>().join(" AND ");
    [format!("UPDATE {table} SET {set} FROM (VALUES "), format!(") AS new WHERE {keys}")]
}
