//! PostgreSQL: rows travel as one array a column (UNNEST), so that the text of a statement does
//! not depend on the size of the batch and is planned once a connection. The rows to update are
//! named by `key = ANY (ARRAY[...])`, which can be found by the index or not at all: with `=` the
//! plan that is made while a table has a few rows can be one that reads all of it.

use rust_decimal::Decimal;
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

const INSERT_ACCOUNTS: &str = "\
    INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
        overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
        create_time_us, update_time_us, caller) \
    SELECT account_id, currency_code, currency_scale, balance, held, overdraft_limit, \
        unlimited_overdraft, state, sequence, version, last_hash, labels::jsonb, \
        create_time_us, update_time_us, caller \
    FROM UNNEST($1::text[], $2::text[], $3::smallint[], $4::numeric[], $5::numeric[], \
        $6::numeric[], $7::boolean[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[], \
        $12::text[], $13::bigint[], $14::bigint[], $15::text[]) \
        AS new(account_id, currency_code, currency_scale, balance, held, overdraft_limit, \
            unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
            update_time_us, caller) \
    ON CONFLICT DO NOTHING";

// One statement, one round trip. Its parts run in no particular order, which does not matter:
// the rows of accounts are locked already, and nobody else can insert an entry for them. A
// request id that has its verdict already breaks all of it off; ON CONFLICT would cost every
// other row a second search of the index and a second record in the log.
const POST: &str = "\
    WITH new_records AS ( \
        INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
            description, labels, entry_names, create_time_us, hold_id, reverses_transaction_id) \
        SELECT caller, request_id, fingerprint, transaction_id, kind, NULLIF(rejection, ''), \
            description, labels::jsonb, entry_names::jsonb, create_time_us, \
            NULLIF(hold_id, ''), NULLIF(reverses, '')::uuid \
        FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[], \
            $7::text[], $8::text[], $9::text[], $10::bigint[], $25::text[], $26::text[]) \
            AS new(caller, request_id, fingerprint, transaction_id, kind, rejection, \
                description, labels, entry_names, create_time_us, hold_id, reverses)), \
    entered AS ( \
        INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, \
            create_time_us, hash) \
        SELECT * FROM UNNEST($11::text[], $12::bigint[], $13::uuid[], $14::numeric[], \
            $15::numeric[], $16::bigint[], $17::bytea[])) \
    UPDATE accounts SET balance = new.balance, held = new.held, sequence = new.sequence, \
        version = new.version, last_hash = new.last_hash, update_time_us = new.update_time_us \
    FROM UNNEST($18::text[], $19::numeric[], $20::numeric[], $21::bigint[], $22::bigint[], \
        $23::bytea[], $24::bigint[]) \
        AS new(account_id, balance, held, sequence, version, last_hash, update_time_us) \
    WHERE accounts.account_id = ANY (ARRAY[new.account_id COLLATE \"C\"])";

const UPDATE_ACCOUNTS: &str = "\
    WITH changed AS ( \
        INSERT INTO account_changes (account_id, version, kind, reason, caller, \
            attributes_before, attributes_after, create_time_us) \
        SELECT account_id, version, kind, reason, caller, attributes_before::jsonb, \
            attributes_after::jsonb, create_time_us \
        FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], \
            $7::text[], $8::bigint[]) \
            AS new(account_id, version, kind, reason, caller, attributes_before, \
                attributes_after, create_time_us)) \
    UPDATE accounts SET balance = new.balance, held = new.held, sequence = new.sequence, \
        version = new.version, last_hash = new.last_hash, update_time_us = new.update_time_us, \
        state = new.state, overdraft_limit = new.overdraft_limit, \
        unlimited_overdraft = new.unlimited_overdraft, labels = new.labels::jsonb \
    FROM UNNEST($9::text[], $10::numeric[], $11::numeric[], $12::bigint[], $13::bigint[], \
        $14::bytea[], $15::bigint[], $16::text[], $17::numeric[], $18::boolean[], $19::text[]) \
        AS new(account_id, balance, held, sequence, version, last_hash, update_time_us, state, \
            overdraft_limit, unlimited_overdraft, labels) \
    WHERE accounts.account_id = ANY (ARRAY[new.account_id COLLATE \"C\"])";

const INSERT_HOLDS: &str = "\
    INSERT INTO holds (hold_id, account_id, amount, state, expire_time_us, captured_amount, \
        transaction_id, request_id, description, labels, create_time_us, update_time_us, \
        caller, end_caller) \
    SELECT hold_id, account_id, amount, state, NULLIF(expire_time_us, 0), \
        NULLIF(captured_amount, 0), NULLIF(transaction_id, ''::text)::uuid, request_id, \
        description, labels::jsonb, create_time_us, update_time_us, caller, end_caller \
    FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::bigint[], $6::numeric[], \
        $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], \
        $13::text[], $14::text[]) \
        AS new(hold_id, account_id, amount, state, expire_time_us, captured_amount, \
            transaction_id, request_id, description, labels, create_time_us, update_time_us, \
            caller, end_caller)";

const UPDATE_HOLDS: &str = "\
    UPDATE holds SET state = new.state, captured_amount = NULLIF(new.captured_amount, 0), \
        transaction_id = NULLIF(new.transaction_id, '')::uuid, \
        update_time_us = new.update_time_us, end_caller = new.end_caller \
    FROM UNNEST($1::text[], $2::text[], $3::numeric[], $4::text[], $5::bigint[], $6::text[]) \
        AS new(hold_id, state, captured_amount, transaction_id, update_time_us, end_caller) \
    WHERE holds.hold_id = ANY (ARRAY[new.hold_id COLLATE \"C\"])";

/// Writes all of it.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    if !changes.created.is_empty() {
        let inserted = execute(transaction, INSERT_ACCOUNTS, created(&changes.created)).await?;
        expect_all("account id", inserted, changes.created.len())?;
    }
    if !changes.new_records.is_empty() || !changes.moved.is_empty() {
        let moved = execute(transaction, POST, posted(changes)).await?;
        expect_all("account", moved, changes.moved.len())?;
    }
    // An account that was opened in this batch, too, has changes and is not among the updated.
    if !changes.account_changes.is_empty() {
        let updated = execute(transaction, UPDATE_ACCOUNTS, updated(changes)).await?;
        expect_all("account", updated, changes.updated.len())?;
    }
    if !changes.placed.is_empty() {
        let placed = execute(transaction, INSERT_HOLDS, placed(&changes.placed)).await?;
        expect_all("hold id", placed, changes.placed.len())?;
    }
    if !changes.ended.is_empty() {
        let ended = execute(transaction, UPDATE_HOLDS, ended(&changes.ended)).await?;
        expect_all("hold", ended, changes.ended.len())?;
    }
    Ok(())
}

async fn execute(
    transaction: &DatabaseTransaction,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, StorageError> {
    let statement = DatabaseKind::Postgres.statement(sql, values);
    Ok(transaction.execute_raw(statement).await?.rows_affected())
}

fn created(created: &[&Account]) -> [Value; 15] {
    [
        column(created, |it| it.account_id.to_string()),
        column(created, |it| it.currency.code().to_owned()),
        column(created, |it| it.currency.scale() as i16),
        column(created, |it| it.balance.decimal()),
        column(created, |it| it.held.decimal()),
        column(created, |it| it.overdraft_limit.decimal()),
        column(created, |it| it.unlimited_overdraft),
        column(created, |it| it.state.name().to_owned()),
        column(created, |it| it.sequence),
        column(created, |it| it.version),
        column(created, |it| it.last_hash.to_vec()),
        column(created, |it| labels_json(&it.labels)),
        column(created, |it| it.create_time_us),
        column(created, |it| it.update_time_us),
        column(created, |it| it.caller.to_string()),
    ]
}

fn posted(changes: &Changes<'_>) -> [Value; 26] {
    let Changes { moved: changed, new_records, entries, .. } = changes;
    [
        column(new_records, |it| it.request.key.caller.to_string()),
        column(new_records, |it| it.request.key.request_id.to_string()),
        column(new_records, |it| it.record.fingerprint.to_vec()),
        column(new_records, |it| it.record.transaction_id),
        column(new_records, |it| it.request.action.name().to_owned()),
        column(new_records, |it| rejection_json(it).unwrap_or_default()),
        column(new_records, |it| it.request.description.clone()),
        column(new_records, |it| labels_json(&it.request.labels)),
        column(new_records, entry_names_json),
        column(new_records, |it| it.create_time_us),
        column(entries, |it| it.account_id.to_string()),
        column(entries, |it| it.sequence),
        column(entries, |it| it.transaction_id),
        column(entries, |it| it.amount.decimal()),
        column(entries, |it| it.balance_after.decimal()),
        column(entries, |it| it.create_time_us),
        column(entries, |it| it.hash.to_vec()),
        column(changed, |it| it.account_id.to_string()),
        column(changed, |it| it.balance.decimal()),
        column(changed, |it| it.held.decimal()),
        column(changed, |it| it.sequence),
        column(changed, |it| it.version),
        column(changed, |it| it.last_hash.to_vec()),
        column(changed, |it| it.update_time_us),
        column(new_records, |it| hold_id(it).unwrap_or_default()),
        column(new_records, |it| reverses(it).map(|id| id.to_string()).unwrap_or_default()),
    ]
}

fn updated(changes: &Changes<'_>) -> [Value; 19] {
    let Changes { account_changes, updated, .. } = changes;
    [
        column(account_changes, |it| it.account_id.to_string()),
        column(account_changes, |it| it.version),
        column(account_changes, |it| it.kind.name().to_owned()),
        column(account_changes, |it| it.reason.clone()),
        column(account_changes, |it| it.caller.to_string()),
        column(account_changes, |it| attributes_json(&it.before)),
        column(account_changes, |it| attributes_json(&it.after)),
        column(account_changes, |it| it.create_time_us),
        column(updated, |it| it.account_id.to_string()),
        column(updated, |it| it.balance.decimal()),
        column(updated, |it| it.held.decimal()),
        column(updated, |it| it.sequence),
        column(updated, |it| it.version),
        column(updated, |it| it.last_hash.to_vec()),
        column(updated, |it| it.update_time_us),
        column(updated, |it| it.state.name().to_owned()),
        column(updated, |it| it.overdraft_limit.decimal()),
        column(updated, |it| it.unlimited_overdraft),
        column(updated, |it| labels_json(&it.labels)),
    ]
}

// What a hold does not have travels as a value that no hold can have.

fn placed(holds: &[&Hold]) -> [Value; 14] {
    [
        column(holds, |it| it.hold_id.to_string()),
        column(holds, |it| it.account_id.to_string()),
        column(holds, |it| it.amount.decimal()),
        column(holds, |it| it.state.name().to_owned()),
        column(holds, |it| it.expire_time_us.unwrap_or_default()),
        column(holds, captured_amount),
        column(holds, captured_by),
        column(holds, |it| it.request_id.to_string()),
        column(holds, |it| it.description.clone()),
        column(holds, |it| labels_json(&it.labels)),
        column(holds, |it| it.create_time_us),
        column(holds, |it| it.update_time_us),
        column(holds, |it| it.caller.to_string()),
        column(holds, |it| it.end_caller.to_string()),
    ]
}

fn ended(holds: &[&Hold]) -> [Value; 6] {
    [
        column(holds, |it| it.hold_id.to_string()),
        column(holds, |it| it.state.name().to_owned()),
        column(holds, captured_amount),
        column(holds, captured_by),
        column(holds, |it| it.update_time_us),
        column(holds, |it| it.end_caller.to_string()),
    ]
}

fn captured_amount(hold: &Hold) -> Decimal {
    hold.captured.map(|captured| captured.amount.decimal()).unwrap_or_default()
}

fn captured_by(hold: &Hold) -> String {
    hold.captured.map(|captured| captured.transaction_id.to_string()).unwrap_or_default()
}

fn column<R, T>(rows: &[&R], field: impl Fn(&R) -> T) -> Value
where
    Vec<T>: Into<Value>,
{
    rows.iter().map(|row| field(row)).collect::<Vec<T>>().into()
}
