//! SQLite: several rows in a statement. The numbers of rows are few, so that each statement is
//! prepared once.

use std::borrow::Borrow;

use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement};

use crate::storage::{
    StorageError,
    dialect::DatabaseKind,
    write::{
        changes::{AccountKeys, Changes, OpenedAccount, account_keys, expect_all},
        rows::{
            ACCOUNT_UPDATES, BALANCE_UPDATES, CHANGED_HOLDS, NEW_ACCOUNT_CHANGES, NEW_ACCOUNTS,
            NEW_COMMITS, NEW_ENTRIES, NEW_HOLDS, NEW_REQUESTS, Rows,
        },
        statements::sqlite_rows,
    },
};

/// Numbers of rows in one statement: as many of the first as there are, then of the next. With 15
/// columns far below SQLite's limit of 32,766 values.
const ROW_COUNTS: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];

/// Writes new accounts and returns their keys.
pub async fn insert_accounts(
    transaction: &DatabaseTransaction,
    accounts: &[OpenedAccount],
) -> Result<AccountKeys, StorageError> {
    let mut keys = AccountKeys::new();
    for statement in statements(&NEW_ACCOUNTS, accounts) {
        keys.extend(account_keys(&transaction.query_all_raw(statement.0).await?)?);
    }
    Ok(keys)
}

/// Writes all changes. BEGIN IMMEDIATE has locked the whole database: a key that was free when it
/// was looked up is free still.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    execute(transaction, &NEW_REQUESTS, &changes.new_requests).await?;
    execute(transaction, &NEW_ENTRIES, &changes.new_entries).await?;
    execute(transaction, &NEW_COMMITS, &changes.new_commits).await?;
    execute(transaction, &BALANCE_UPDATES, &changes.balance_updates).await?;
    execute(transaction, &ACCOUNT_UPDATES, &changes.account_updates).await?;
    execute(transaction, &NEW_ACCOUNT_CHANGES, &changes.account_changes).await?;
    execute(transaction, &NEW_HOLDS, &changes.new_holds).await?;
    execute(transaction, &CHANGED_HOLDS, &changes.changed_holds).await
}

async fn execute<R>(
    transaction: &DatabaseTransaction,
    rows: &Rows<R>,
    all: &[impl Borrow<R>],
) -> Result<(), StorageError> {
    for (statement, count) in statements(rows, all) {
        let written = transaction.execute_raw(statement).await?.rows_affected();
        expect_all(rows.what, written, count)?;
    }
    Ok(())
}

/// The statements that write all rows, each with its number of rows.
fn statements<R>(
    rows: &Rows<R>,
    mut left: &[impl Borrow<R>],
) -> impl Iterator<Item = (Statement, usize)> {
    let [before, after] = &rows.sqlite;
    std::iter::from_fn(move || {
        let count = ROW_COUNTS.into_iter().find(|count| *count <= left.len())?;
        let (now, later) = left.split_at(count);
        left = later;
        let sql = format!("{before}{}{after}", sqlite_rows(rows.cells.len(), count));
        let values =
            now.iter().flat_map(|row| rows.cells.iter().map(|(_, value)| value(row.borrow())));
        Some((DatabaseKind::Sqlite.statement(sql, values), count))
    })
}
