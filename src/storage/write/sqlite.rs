//! SQLite: rows travel as bound values, several a statement. The numbers of rows are few, so that
//! each statement is prepared once.

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};

use crate::{
    domain::{account::Account, hold::Hold},
    storage::{
        StorageError,
        dialect::DatabaseKind,
        write::changes::{
            Changes, attributes_json, entry_names_json, expect_all, hold_id, labels_json,
            rejection_json, reverses,
        },
    },
};

/// Rows in one statement: as many of the first as there are, then of the next. With 15 columns
/// far below SQLite's limit of 32,766 values.
const ROWS: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];

// Each statement up to its rows, and from there on.
const INSERT_ACCOUNTS: [&str; 2] = [
    "INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
        overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
        create_time_us, update_time_us, caller) VALUES ",
    "",
];
const INSERT_REQUESTS: [&str; 2] = [
    "INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
        description, labels, entry_names, create_time_us, hold_id, reverses_transaction_id) VALUES ",
    "",
];
const INSERT_ENTRIES: [&str; 2] = [
    "INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, \
        create_time_us, hash) VALUES ",
    "",
];
const MOVE_ACCOUNTS: [&str; 2] = [
    "UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, \
        version = new.column5, last_hash = new.column6, update_time_us = new.column7 FROM (VALUES ",
    ") AS new WHERE accounts.account_id = new.column1",
];

const UPDATE_ACCOUNTS: [&str; 2] = [
    "UPDATE accounts SET balance = new.column2, held = new.column3, sequence = new.column4, \
        version = new.column5, last_hash = new.column6, update_time_us = new.column7, \
        state = new.column8, overdraft_limit = new.column9, unlimited_overdraft = new.column10, \
        labels = new.column11 FROM (VALUES ",
    ") AS new WHERE accounts.account_id = new.column1",
];
const INSERT_ACCOUNT_CHANGES: [&str; 2] = [
    "INSERT INTO account_changes (account_id, version, kind, reason, caller, attributes_before, \
        attributes_after, create_time_us) VALUES ",
    "",
];
const INSERT_HOLDS: [&str; 2] = [
    "INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, captured_amount, \
        transaction_id, request_id, description, labels, create_time_us, update_time_us, caller, \
        end_caller) VALUES ",
    "",
];
const UPDATE_HOLDS: [&str; 2] = [
    "UPDATE holds SET state = new.column2, captured_amount = new.column3, \
        transaction_id = new.column4, update_time_us = new.column5, \
        end_caller = new.column6 FROM (VALUES ",
    ") AS new WHERE holds.hold_id = new.column1",
];

/// Writes all of it. The whole database is ours from BEGIN IMMEDIATE on: a key that was free a
/// moment ago still is.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    let Changes { created, moved, updated, account_changes, new_records, entries, placed, ended } =
        changes;
    let created = created.iter().map(|it| -> [Value; 15] {
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
            (*it.caller).into(),
        ]
    });
    let new_records = new_records.iter().map(|it| -> [Value; 12] {
        [
            (*it.request.key.caller).into(),
            it.request.key.request_id.as_str().into(),
            it.record.fingerprint.to_vec().into(),
            it.record.transaction_id.as_bytes().to_vec().into(),
            it.request.action.name().into(),
            rejection_json(it).into(),
            it.request.description.as_str().into(),
            labels_json(&it.request.labels).into(),
            entry_names_json(it).into(),
            it.create_time_us.into(),
            hold_id(it).into(),
            reverses(it).map(|id| id.as_bytes().to_vec()).into(),
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
    let account_changes = account_changes.iter().map(|it| -> [Value; 8] {
        [
            it.account_id.as_str().into(),
            it.version.into(),
            it.kind.name().into(),
            it.reason.as_str().into(),
            (*it.caller).into(),
            attributes_json(&it.before).into(),
            attributes_json(&it.after).into(),
            it.create_time_us.into(),
        ]
    });
    let updated = updated.iter().map(|it| -> [Value; 11] {
        let [id, balance, held, sequence, version, hash, time] = position(it);
        let state = it.state.name().into();
        let limit = it.overdraft_limit.to_string().into();
        let unlimited = it.unlimited_overdraft.into();
        let labels = labels_json(&it.labels).into();
        [id, balance, held, sequence, version, hash, time, state, limit, unlimited, labels]
    });
    execute(transaction, "account id", INSERT_ACCOUNTS, created).await?;
    execute(transaction, "request id", INSERT_REQUESTS, new_records).await?;
    execute(transaction, "entry", INSERT_ENTRIES, entries).await?;
    let moved = moved.iter().map(|it| position(it));
    execute(transaction, "account", MOVE_ACCOUNTS, moved).await?;
    execute(transaction, "account", UPDATE_ACCOUNTS, updated).await?;
    execute(transaction, "change", INSERT_ACCOUNT_CHANGES, account_changes).await?;
    execute(transaction, "hold id", INSERT_HOLDS, placed.iter().map(|it| new_hold(it))).await?;
    execute(transaction, "hold", UPDATE_HOLDS, ended.iter().map(|it| ended_hold(it))).await
}

/// Where an account stands.
fn position(account: &Account) -> [Value; 7] {
    [
        account.account_id.as_str().into(),
        account.balance.to_string().into(),
        account.held.to_string().into(),
        account.sequence.into(),
        account.version.into(),
        account.last_hash.to_vec().into(),
        account.update_time_us.into(),
    ]
}

fn new_hold(hold: &Hold) -> [Value; 14] {
    [
        hold.hold_id.as_str().into(),
        hold.account_id.as_str().into(),
        hold.amount.to_string().into(),
        hold.state.name().into(),
        hold.expire_time_us.into(),
        hold.captured.map(|captured| captured.amount.to_string()).into(),
        hold.captured.map(|captured| captured.transaction_id.as_bytes().to_vec()).into(),
        hold.request_id.as_str().into(),
        hold.description.as_str().into(),
        labels_json(&hold.labels).into(),
        hold.create_time_us.into(),
        hold.update_time_us.into(),
        (*hold.caller).into(),
        (*hold.end_caller).into(),
    ]
}

fn ended_hold(hold: &Hold) -> [Value; 6] {
    [
        hold.hold_id.as_str().into(),
        hold.state.name().into(),
        hold.captured.map(|captured| captured.amount.to_string()).into(),
        hold.captured.map(|captured| captured.transaction_id.as_bytes().to_vec()).into(),
        hold.update_time_us.into(),
        (*hold.end_caller).into(),
    ]
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
            let statement = DatabaseKind::Sqlite.statement(sql, values);
            let written = transaction.execute_raw(statement).await?.rows_affected();
            expect_all(name, written, count)?;
        }
    }
    Ok(())
}
