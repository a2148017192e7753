//! SQLite: several rows in a statement. The numbers of rows are few, so that each statement is
//! prepared once.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::storage::{
    StorageError,
    dialect::DatabaseKind,
    write::{
        changes::{Changes, expect_all},
        rows::{
            ACCOUNT_UPDATES, BALANCE_UPDATES, CLOSED_HOLDS, NEW_ACCOUNT_CHANGES, NEW_ACCOUNTS,
            NEW_ENTRIES, NEW_HOLDS, NEW_REQUESTS, Rows,
        },
        statements::sqlite_rows,
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

async fn execute<R>(
    transaction: &DatabaseTransaction,
    rows: &Rows<R>,
    mut left: &[&R],
) -> Result<(), StorageError> {
    let [before, after] = &rows.sqlite;
    for count in ROW_COUNTS {
        while let Some((now, later)) = left.split_at_checked(count) {
            let sql = format!("{before}{}{after}", sqlite_rows(rows.cells.len(), count));
            let values = now.iter().flat_map(|row| rows.cells.iter().map(|(_, value)| value(row)));
            let statement = DatabaseKind::Sqlite.statement(sql, values);
            let written = transaction.execute_raw(statement).await?.rows_affected();
            expect_all(rows.what, written, count)?;
            left = later;
        }
    }
    Ok(())
}
