//! PostgreSQL: one statement for all rows that are written together.

use std::{borrow::Borrow, sync::LazyLock};

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};

use crate::storage::{
    StorageError,
    dialect::DatabaseKind,
    tables::ACCOUNTS,
    write::{
        changes::{AccountKeys, Changes, OpenedAccount, account_keys, expect_all},
        rows::{
            ACCOUNT_UPDATES, BALANCE_UPDATES, CHANGED_HOLDS, NEW_ACCOUNT_CHANGES, NEW_ACCOUNTS,
            NEW_COMMITS, NEW_ENTRIES, NEW_HOLDS, NEW_REQUESTS, Rows,
        },
        statements::Parameters,
    },
};

pub static INSERT_ACCOUNTS: LazyLock<String> = LazyLock::new(|| {
    let insert = NEW_ACCOUNTS.postgres(&mut Parameters::default());
    format!("{insert} ON CONFLICT DO NOTHING{}", ACCOUNTS.returning())
});

// One statement, one round trip. Its parts run in no particular order, which does not matter:
// the rows of accounts are locked already, and nobody else can insert an entry for them, or draw
// the number of a commit that changes them. A request id that has a record already aborts the
// statement; ON CONFLICT would cost every other row a second search of the index and a second
// record in the log.
pub static INSERT_POSTINGS: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    format!(
        "WITH new_requests AS ({}), new_entries AS ({}), new_commits AS ({}) {}",
        NEW_REQUESTS.postgres(&mut parameters),
        NEW_ENTRIES.postgres(&mut parameters),
        NEW_COMMITS.postgres(&mut parameters),
        BALANCE_UPDATES.postgres(&mut parameters)
    )
});

pub static UPDATE_ACCOUNTS: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    format!(
        "WITH new_changes AS ({}) {}",
        NEW_ACCOUNT_CHANGES.postgres(&mut parameters),
        ACCOUNT_UPDATES.postgres(&mut parameters)
    )
});

pub static INSERT_HOLDS: LazyLock<String> =
    LazyLock::new(|| NEW_HOLDS.postgres(&mut Parameters::default()));

pub static UPDATE_HOLDS: LazyLock<String> =
    LazyLock::new(|| CHANGED_HOLDS.postgres(&mut Parameters::default()));

/// Writes new accounts and returns their keys. An account whose id was taken meanwhile has none.
pub async fn insert_accounts(
    transaction: &DatabaseTransaction,
    accounts: &[OpenedAccount],
) -> Result<AccountKeys, StorageError> {
    if accounts.is_empty() {
        return Ok(AccountKeys::new());
    }
    let values = part(&NEW_ACCOUNTS, accounts).arrays;
    let statement = DatabaseKind::Postgres.statement(INSERT_ACCOUNTS.as_str(), values);
    account_keys(&transaction.query_all_raw(statement).await?)
}

/// Writes all changes.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    let postings = [
        part(&NEW_REQUESTS, &changes.new_requests),
        part(&NEW_ENTRIES, &changes.new_entries),
        part(&NEW_COMMITS, &changes.new_commits),
        part(&BALANCE_UPDATES, &changes.balance_updates),
    ];
    execute(transaction, &INSERT_POSTINGS, postings).await?;
    // An account that was opened in this batch, too, has changes and is not among the updated.
    let updates = [
        part(&NEW_ACCOUNT_CHANGES, &changes.account_changes),
        part(&ACCOUNT_UPDATES, &changes.account_updates),
    ];
    execute(transaction, &UPDATE_ACCOUNTS, updates).await?;
    execute(transaction, &INSERT_HOLDS, [part(&NEW_HOLDS, &changes.new_holds)]).await?;
    execute(transaction, &UPDATE_HOLDS, [part(&CHANGED_HOLDS, &changes.changed_holds)]).await
}

/// The rows of one part of a statement.
struct Part<'a> {
    what: &'static str,
    row_count: usize,
    /// One array a column.
    arrays: Box<dyn Iterator<Item = Value> + Send + 'a>,
}

fn part<'a, R: Sync>(rows: &'a Rows<R>, all: &'a [impl Borrow<R> + Sync]) -> Part<'a> {
    let arrays = rows
        .cells
        .iter()
        .map(|(column, value)| column.array(all.iter().map(|row| value(row.borrow())).collect()));
    Part { what: rows.what, row_count: all.len(), arrays: Box::new(arrays) }
}

/// Executes a statement, unless it has no rows at all. Its last part counts the rows.
async fn execute<const PARTS: usize>(
    transaction: &DatabaseTransaction,
    sql: &str,
    parts: [Part<'_>; PARTS],
) -> Result<(), StorageError> {
    if parts.iter().all(|part| part.row_count == 0) {
        return Ok(());
    }
    let (what, expected) = (parts[PARTS - 1].what, parts[PARTS - 1].row_count);
    let values = parts.into_iter().flat_map(|part| part.arrays);
    let statement = DatabaseKind::Postgres.statement(sql, values);
    let written = transaction.execute_raw(statement).await?.rows_affected();
    expect_all(what, written, expected)
}
