//! PostgreSQL: rows travel as one array a column (UNNEST), so that the text of a statement does
//! not depend on the size of the batch and is planned once a connection.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement, Value};

use super::{Changes, entry_names_json, expect_all, labels_json, rejection_json};
use crate::{domain::account::Account, storage::StorageError};

const INSERT_ACCOUNTS: &str = "\
    INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
        overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
        create_time_us, update_time_us) \
    SELECT account_id, currency_code, currency_scale, balance, held, overdraft_limit, \
        unlimited_overdraft, state, sequence, version, last_hash, labels::jsonb, \
        create_time_us, update_time_us \
    FROM UNNEST($1::text[], $2::text[], $3::smallint[], $4::numeric[], $5::numeric[], \
        $6::numeric[], $7::boolean[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[], \
        $12::text[], $13::bigint[], $14::bigint[]) \
        AS new(account_id, currency_code, currency_scale, balance, held, overdraft_limit, \
            unlimited_overdraft, state, sequence, version, last_hash, labels, create_time_us, \
            update_time_us) \
    ON CONFLICT DO NOTHING";

// One statement, one round trip. Its parts run in no particular order, which does not matter:
// the rows of accounts are locked already, and nobody else can insert an entry for them. A
// request id that has its verdict already breaks all of it off; ON CONFLICT would cost every
// other row a second search of the index and a second record in the log.
const POST: &str = "\
    WITH recorded AS ( \
        INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
            description, labels, entry_names, create_time_us) \
        SELECT caller, request_id, fingerprint, transaction_id, kind, NULLIF(rejection, ''), \
            description, labels::jsonb, entry_names::jsonb, create_time_us \
        FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[], \
            $7::text[], $8::text[], $9::text[], $10::bigint[]) \
            AS new(caller, request_id, fingerprint, transaction_id, kind, rejection, \
                description, labels, entry_names, create_time_us)), \
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
    WHERE accounts.account_id = new.account_id COLLATE \"C\"";

/// Writes all of it.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    if !changes.created.is_empty() {
        let inserted = execute(transaction, INSERT_ACCOUNTS, created(&changes.created)).await?;
        expect_all("account id", inserted, changes.created.len())?;
    }
    if changes.recorded.is_empty() {
        return Ok(());
    }
    let updated = execute(transaction, POST, posted(changes)).await?;
    expect_all("account", updated, changes.changed.len())
}

async fn execute(
    transaction: &DatabaseTransaction,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, StorageError> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    Ok(transaction.execute_raw(statement).await?.rows_affected())
}

fn created(created: &[&Account]) -> [Value; 14] {
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
    ]
}

fn posted(changes: &Changes<'_>) -> [Value; 24] {
    let Changes { changed, recorded, entries, .. } = changes;
    [
        column(recorded, |it| it.posting.key.caller.to_string()),
        column(recorded, |it| it.posting.key.request_id.to_string()),
        column(recorded, |it| it.decided.fingerprint.to_vec()),
        column(recorded, |it| it.decided.transaction_id),
        column(recorded, |it| it.posting.kind.name().to_owned()),
        column(recorded, |it| rejection_json(it).unwrap_or_default()),
        column(recorded, |it| it.posting.description.clone()),
        column(recorded, |it| labels_json(&it.posting.labels)),
        column(recorded, entry_names_json),
        column(recorded, |it| it.create_time_us),
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
    ]
}

fn column<R, T>(rows: &[&R], field: impl Fn(&R) -> T) -> Value
where
    Vec<T>: Into<Value>,
{
    rows.iter().map(|row| field(row)).collect::<Vec<T>>().into()
}
