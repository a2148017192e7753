//! Writing what a book has changed: two statements on PostgreSQL at most, four on SQLite,
//! however many commands the book holds.
//!
//! Rows travel as one array a column (PostgreSQL, UNNEST) or as one JSON document (SQLite,
//! `json_each`), so the texts of the statements are constant and each is prepared once.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult, Statement, Value};
use serde_json::json;

use crate::{
    domain::{
        account::Account,
        book::{Book, Recorded},
        transaction::Entry,
    },
    storage::StorageError,
};

/// Writes new accounts first, then request ids, entries and balances: whoever inserts may wait
/// for another's uncommitted key, and everyone does so in this order and, within a table, in
/// the order of the keys.
pub async fn write(transaction: &DatabaseTransaction, book: &Book) -> Result<(), StorageError> {
    let created: Vec<&Account> = book.created().collect();
    let changed: Vec<&Account> = book.changed().collect();
    let mut recorded: Vec<&Recorded> = book.recorded().iter().collect();
    recorded.sort_by(|left, right| left.posting.key.cmp(&right.posting.key));
    let entries: Vec<&Entry> = book
        .recorded()
        .iter()
        .filter_map(|recorded| recorded.decided.verdict.as_ref().ok())
        .flat_map(|made| &made.entries)
        .collect();
    match transaction.get_database_backend() {
        DbBackend::Sqlite => sqlite(transaction, &created, &changed, &recorded, &entries).await,
        _ => postgres(transaction, &created, &changed, &recorded, &entries).await,
    }
}

const INSERT_ACCOUNTS_POSTGRES: &str = "\
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
// the rows of accounts are locked already, and nobody else can insert an entry for them.
const POST_POSTGRES: &str = "\
    WITH recorded AS ( \
        INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
            description, labels, entry_names, create_time_us) \
        SELECT caller, request_id, fingerprint, transaction_id, kind, NULLIF(rejection, ''), \
            description, labels::jsonb, entry_names::jsonb, create_time_us \
        FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[], \
            $7::text[], $8::text[], $9::text[], $10::bigint[]) \
            AS new(caller, request_id, fingerprint, transaction_id, kind, rejection, \
                description, labels, entry_names, create_time_us) \
        RETURNING 1), \
    entered AS ( \
        INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, \
            create_time_us, hash) \
        SELECT * FROM UNNEST($11::text[], $12::bigint[], $13::uuid[], $14::numeric[], \
            $15::numeric[], $16::bigint[], $17::bytea[])), \
    changed AS ( \
        UPDATE accounts SET balance = new.balance, held = new.held, sequence = new.sequence, \
            version = new.version, last_hash = new.last_hash, \
            update_time_us = new.update_time_us \
        FROM UNNEST($18::text[], $19::numeric[], $20::numeric[], $21::bigint[], $22::bigint[], \
            $23::bytea[], $24::bigint[]) \
            AS new(account_id, balance, held, sequence, version, last_hash, update_time_us) \
        WHERE accounts.account_id = new.account_id COLLATE \"C\" RETURNING 1) \
    SELECT (SELECT count(*) FROM recorded) AS recorded, (SELECT count(*) FROM changed) AS changed";

async fn postgres(
    transaction: &DatabaseTransaction,
    created: &[&Account],
    changed: &[&Account],
    recorded: &[&Recorded],
    entries: &[&Entry],
) -> Result<(), StorageError> {
    if !created.is_empty() {
        let values: [Value; 14] = [
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
            column(created, |it| json!(it.labels).to_string()),
            column(created, |it| it.create_time_us),
            column(created, |it| it.update_time_us),
        ];
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ACCOUNTS_POSTGRES, values);
        let inserted = transaction.execute_raw(statement).await?.rows_affected();
        expect_all("account id", inserted, created.len())?;
    }
    if recorded.is_empty() {
        return Ok(());
    }
    let values = postgres_columns(changed, recorded, entries);
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, POST_POSTGRES, values);
    let Some(row) = transaction.query_one_raw(statement).await? else {
        return Err(StorageError::Corrupt("the counts did not come back".to_owned()));
    };
    let Written { recorded: requests, changed: accounts } = Written::from_query_result(&row, "")?;
    if requests.unsigned_abs() < recorded.len() as u64 {
        let text = format!("{} of {} request ids are new", requests, recorded.len());
        return Err(StorageError::Decided(text));
    }
    expect_all("account", accounts.unsigned_abs(), changed.len())
}

#[derive(FromQueryResult)]
struct Written {
    recorded: i64,
    changed: i64,
}

fn postgres_columns(
    changed: &[&Account],
    recorded: &[&Recorded],
    entries: &[&Entry],
) -> [Value; 24] {
    [
        column(recorded, |it| it.posting.key.caller.to_string()),
        column(recorded, |it| it.posting.key.request_id.to_string()),
        column(recorded, |it| it.decided.fingerprint.to_vec()),
        column(recorded, |it| it.decided.transaction_id),
        column(recorded, |it| it.posting.kind.name().to_owned()),
        column(recorded, |it| rejection_json(it).unwrap_or_default()),
        column(recorded, |it| it.posting.description.clone()),
        column(recorded, |it| json!(it.posting.labels).to_string()),
        column(recorded, |it| entry_names_json(it).to_string()),
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

const INSERT_ACCOUNTS_SQLITE: &str = "\
    INSERT INTO accounts (account_id, currency_code, currency_scale, balance, held, \
        overdraft_limit, unlimited_overdraft, state, sequence, version, last_hash, labels, \
        create_time_us, update_time_us) \
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, \
        value->>7, value->>8, value->>9, unhex(value->>10), value->11, value->>12, value->>13 \
    FROM json_each(?)";

const INSERT_REQUESTS_SQLITE: &str = "\
    INSERT INTO requests (caller, request_id, fingerprint, transaction_id, kind, rejection, \
        description, labels, entry_names, create_time_us) \
    SELECT value->>0, value->>1, unhex(value->>2), unhex(value->>3), value->>4, value->>5, \
        value->>6, value->7, value->8, value->>9 \
    FROM json_each(?)";

const INSERT_ENTRIES_SQLITE: &str = "\
    INSERT INTO entries (account_id, sequence, transaction_id, amount, balance_after, \
        create_time_us, hash) \
    SELECT value->>0, value->>1, unhex(value->>2), value->>3, value->>4, value->>5, \
        unhex(value->>6) \
    FROM json_each(?)";

const UPDATE_ACCOUNTS_SQLITE: &str = "\
    UPDATE accounts SET balance = new.value->>1, held = new.value->>2, \
        sequence = new.value->>3, version = new.value->>4, \
        last_hash = unhex(new.value->>5), update_time_us = new.value->>6 \
    FROM json_each(?) new WHERE accounts.account_id = new.value->>0";

/// The whole database is ours from BEGIN IMMEDIATE on: a key that was free a moment ago still is.
async fn sqlite(
    transaction: &DatabaseTransaction,
    created: &[&Account],
    changed: &[&Account],
    recorded: &[&Recorded],
    entries: &[&Entry],
) -> Result<(), StorageError> {
    let created = json_rows(created, |it| {
        json!([
            it.account_id,
            it.currency.code(),
            it.currency.scale(),
            it.balance,
            it.held,
            it.overdraft_limit,
            it.unlimited_overdraft,
            it.state.name(),
            it.sequence,
            it.version,
            hex(&it.last_hash),
            it.labels,
            it.create_time_us,
            it.update_time_us,
        ])
    });
    let recorded = json_rows(recorded, |it| {
        json!([
            &*it.posting.key.caller,
            it.posting.key.request_id,
            hex(&it.decided.fingerprint),
            it.decided.transaction_id.simple(),
            it.posting.kind.name(),
            rejection_json(it),
            it.posting.description,
            it.posting.labels,
            entry_names_json(it),
            it.create_time_us,
        ])
    });
    let entries = json_rows(entries, |it| {
        json!([
            it.account_id,
            it.sequence,
            it.transaction_id.simple(),
            it.amount,
            it.balance_after,
            it.create_time_us,
            hex(&it.hash),
        ])
    });
    let changed = json_rows(changed, |it| {
        json!([
            it.account_id,
            it.balance,
            it.held,
            it.sequence,
            it.version,
            hex(&it.last_hash),
            it.update_time_us,
        ])
    });
    for (name, sql, rows) in [
        ("account id", INSERT_ACCOUNTS_SQLITE, created),
        ("request id", INSERT_REQUESTS_SQLITE, recorded),
        ("entry", INSERT_ENTRIES_SQLITE, entries),
        ("account", UPDATE_ACCOUNTS_SQLITE, changed),
    ] {
        if rows.is_empty() {
            continue;
        }
        let expected = rows.len();
        let document = serde_json::Value::Array(rows).to_string();
        let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, [document.into()]);
        let written = transaction.execute_raw(statement).await?.rows_affected();
        expect_all(name, written, expected)?;
    }
    Ok(())
}

fn json_rows<R>(rows: &[&R], row: impl Fn(&R) -> serde_json::Value) -> Vec<serde_json::Value> {
    rows.iter().map(|it| row(it)).collect()
}

fn rejection_json(recorded: &Recorded) -> Option<String> {
    let rejection = recorded.decided.verdict.as_ref().err()?;
    Some(json!(rejection).to_string())
}

fn entry_names_json(recorded: &Recorded) -> serde_json::Value {
    let entries = recorded.decided.verdict.as_ref().map(|made| made.entries.as_slice());
    let names = entries.unwrap_or_default().iter().map(|it| (&it.account_id, it.sequence));
    json!(names.collect::<Vec<_>>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        text
    })
}

/// Fewer rows than were sent: somebody else committed the same key since it was looked up.
fn expect_all(what: &str, written: u64, expected: usize) -> Result<(), StorageError> {
    if written == expected as u64 {
        return Ok(());
    }
    Err(StorageError::Aborted(format!(
        "{written} of {expected} rows written: {what} taken meanwhile"
    )))
}
