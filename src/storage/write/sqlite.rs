//! SQLite: rows travel as bound values, several a statement. The numbers of rows are few, so that
//! each statement is prepared once.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement, Value};

use super::{Changes, entry_names_json, expect_all, labels_json, rejection_json};
use crate::storage::StorageError;

/// Rows in one statement: as many of the first as there are, then of the next. With 14 columns
/// far below SQLite's limit of 32,766 values.
const ROWS: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];

// Each statement up to its rows, and from there on.
const INSERT_ACCOUNTS: [&str; 2] = [
    "INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
        overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
        create_time_us, update_time_us) VALUES ",
    "",
];
const INSERT_REQUESTS: [&str; 2] = [
    "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
        description, labels, entry_names, create_time_us) VALUES ",
    "",
];
const INSERT_ENTRIES: [&str; 2] = [
    "INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, \
        create_time_us, hash) VALUES ",
    "",
];
const UPDATE_ACCOUNTS: [&str; 2] = [
    "UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, \
        version = new.column5, last_hash = new.column6, update_time_us = new.column7 FROM (VALUES ",
    ") AS new WHERE accounts.account_id = new.column1",
];

/// Writes all of it. The whole database is ours from BEGIN IMMEDIATE on: a key that was free a
/// moment ago still is.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    let Changes { created, changed, recorded, entries } = changes;
    let created = created.iter().map(|it| -> [Value; 14] {
        [
            it.account_id.as_str().into(),
            it.currency.code().into(),
            it.currency.scale().into(),
            it.balance.to_string().into(),
            it.held.to_string().into(),
            it.overdraft_limit.to_string().into(),
            it.unlimited_overdraft.into(),
            it.state.name().into(),
            it.sequence.into(),
            it.version.into(),
            it.last_hash.to_vec().into(),
            labels_json(&it.labels).into(),
            it.create_time_us.into(),
            it.update_time_us.into(),
        ]
    });
    let recorded = recorded.iter().map(|it| -> [Value; 10] {
        [
            (*it.posting.key.caller).into(),
            it.posting.key.request_id.as_str().into(),
            it.decided.fingerprint.to_vec().into(),
            it.decided.transaction_id.as_bytes().to_vec().into(),
            it.posting.kind.name().into(),
            rejection_json(it).into(),
            it.posting.description.as_str().into(),
            labels_json(&it.posting.labels).into(),
            entry_names_json(it).into(),
            it.create_time_us.into(),
        ]
    });
    let entries = entries.iter().map(|it| -> [Value; 7] {
        [
            it.account_id.as_str().into(),
            it.sequence.into(),
            it.transaction_id.as_bytes().to_vec().into(),
            it.amount.to_string().into(),
            it.balance_after.to_string().into(),
            it.create_time_us.into(),
            it.hash.to_vec().into(),
        ]
    });
    let changed = changed.iter().map(|it| -> [Value; 7] {
        [
            it.account_id.as_str().into(),
            it.balance.to_string().into(),
            it.held.to_string().into(),
            it.sequence.into(),
            it.version.into(),
            it.last_hash.to_vec().into(),
            it.update_time_us.into(),
        ]
    });
    execute(transaction, "account id", INSERT_ACCOUNTS, created).await?;
    execute(transaction, "request id", INSERT_REQUESTS, recorded).await?;
    execute(transaction, "entry", INSERT_ENTRIES, entries).await?;
    execute(transaction, "account", UPDATE_ACCOUNTS, changed).await
}

/// Runs a statement, given up to its rows and from there on, for all of these rows.
async fn execute<const COLUMNS: usize>(
    transaction: &DatabaseTransaction,
    name: &str,
    [before, after]: [&str; 2],
    mut rows: impl ExactSizeIterator<Item = [Value; COLUMNS]>,
) -> Result<(), StorageError> {
    let row = format!("({})", vec!["?"; COLUMNS].join(", "));
    for count in ROWS {
        while rows.len() >= count {
            let sql = format!("{before}{}{after}", vec![row.as_str(); count].join(", "));
            let values = rows.by_ref().take(count).flatten();
            let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
            let written = transaction.execute_raw(statement).await?.rows_affected();
            expect_all(name, written, count)?;
        }
    }
    Ok(())
}
