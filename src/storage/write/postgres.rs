//! PostgreSQL: rows travel as one array a column (UNNEST), so that the text of a statement does
//! not depend on the size of the batch and is planned once a connection. The rows to update are
//! named by `key = ANY (ARRAY[...])`, which can be found by the index or not at all: with `=` the
//! plan that is made while a table has a few rows can be one that reads all of it.

use std::{array, sync::LazyLock};

use sea_orm::{ConnectionTrait, DatabaseTransaction, Value};

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

pub static INSERT_ACCOUNTS: LazyLock<String> = LazyLock::new(|| {
    format!("{} ON CONFLICT DO NOTHING", Parameters::default().insert(&NEW_ACCOUNTS))
});

// One statement, one round trip. Its parts run in no particular order, which does not matter:
// the rows of accounts are locked already, and nobody else can insert an entry for them. A
// request id that has a record already aborts the statement; ON CONFLICT would cost every
// other row a second search of the index and a second record in the log.
pub static INSERT_POSTINGS: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    format!(
        "WITH new_requests AS ({}), new_entries AS ({}) {}",
        parameters.insert(&NEW_REQUESTS),
        parameters.insert(&NEW_ENTRIES),
        parameters.update(&BALANCE_UPDATES)
    )
});

pub static UPDATE_ACCOUNTS: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    format!(
        "WITH new_changes AS ({}) {}",
        parameters.insert(&NEW_ACCOUNT_CHANGES),
        parameters.update(&ACCOUNT_UPDATES)
    )
});

pub static INSERT_HOLDS: LazyLock<String> =
    LazyLock::new(|| Parameters::default().insert(&NEW_HOLDS));

pub static UPDATE_HOLDS: LazyLock<String> =
    LazyLock::new(|| Parameters::default().update(&CLOSED_HOLDS));

/// Writes all changes.
pub async fn write(
    transaction: &DatabaseTransaction,
    changes: &Changes<'_>,
) -> Result<(), StorageError> {
    let Changes { new_accounts, new_requests, new_entries, balance_updates, .. } = changes;
    let Changes { account_changes, account_updates, new_holds, closed_holds, .. } = changes;
    if !new_accounts.is_empty() {
        let values = arrays(&NEW_ACCOUNTS, new_accounts);
        let inserted = execute(transaction, &INSERT_ACCOUNTS, values).await?;
        expect_all(NEW_ACCOUNTS.what, inserted, new_accounts.len())?;
    }
    if !new_requests.is_empty() || !balance_updates.is_empty() {
        let values = arrays(&NEW_REQUESTS, new_requests)
            .chain(arrays(&NEW_ENTRIES, new_entries))
            .chain(arrays(&BALANCE_UPDATES, balance_updates));
        let updated = execute(transaction, &INSERT_POSTINGS, values).await?;
        expect_all(BALANCE_UPDATES.what, updated, balance_updates.len())?;
    }
    // An account that was opened in this batch, too, has changes and is not among the updated.
    if !account_changes.is_empty() {
        let values = arrays(&NEW_ACCOUNT_CHANGES, account_changes)
            .chain(arrays(&ACCOUNT_UPDATES, account_updates));
        let updated = execute(transaction, &UPDATE_ACCOUNTS, values).await?;
        expect_all(ACCOUNT_UPDATES.what, updated, account_updates.len())?;
    }
    if !new_holds.is_empty() {
        let inserted = execute(transaction, &INSERT_HOLDS, arrays(&NEW_HOLDS, new_holds)).await?;
        expect_all(NEW_HOLDS.what, inserted, new_holds.len())?;
    }
    if !closed_holds.is_empty() {
        let values = arrays(&CLOSED_HOLDS, closed_holds);
        let updated = execute(transaction, &UPDATE_HOLDS, values).await?;
        expect_all(CLOSED_HOLDS.what, updated, closed_holds.len())?;
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

/// The values of these rows, one array a column.
fn arrays<R: 'static, const N: usize>(
    rows: &'static Rows<R, N>,
    all: &[&R],
) -> impl Iterator<Item = Value> + use<R, N> {
    let mut arrays: [Vec<Value>; N] = array::from_fn(|_| Vec::with_capacity(all.len()));
    for row in all {
        for (array, value) in arrays.iter_mut().zip((rows.values)(DatabaseKind::Postgres, row)) {
            array.push(value);
        }
    }
    let columns = rows.columns().iter().zip(arrays);
    columns.map(|(column, array)| Value::Array(column.array_type(), Some(Box::new(array))))
}

/// The number of parameters that a statement has so far.
#[derive(Default)]
struct Parameters(usize);

impl Parameters {
    fn insert<R: 'static, const N: usize>(&mut self, rows: &Rows<R, N>) -> String {
        let (table, names) = (rows.table.name, rows.table.column_list(""));
        let columns = rows.columns();
        let values: Vec<_> = columns.iter().map(|it| it.element_value(it.name)).collect();
        let (values, new) = (values.join(", "), self.unnest(columns));
        format!("INSERT INTO {table} ({names}) SELECT {values} FROM {new}")
    }

    fn update<R: 'static, const N: usize>(&mut self, rows: &Rows<R, N>) -> String {
        let (table, columns) = (rows.table.name, rows.columns());
        let set = |column: &&Column| {
            let name = column.name;
            format!("{name} = {}", column.element_value(&format!("new.{name}")))
        };
        let set = columns.iter().skip(rows.keys).map(set).collect::<Vec<_>>().join(", ");
        let (key, new) = (columns[0].name, self.unnest(columns));
        // A second key is named by a range: of two lists PostgreSQL may search by the first only.
        let second = columns[1..rows.keys].iter().map(|it| {
            let key = it.name;
            format!(
                " AND {table}.{key} >= new.{key} COLLATE \"C\" \
                 AND {table}.{key} <= new.{key} COLLATE \"C\""
            )
        });
        let second: String = second.collect();
        format!(
            "UPDATE {table} SET {set} FROM {new} \
             WHERE {table}.{key} = ANY (ARRAY[new.{key} COLLATE \"C\"]){second}"
        )
    }

    /// The rows of the next parameters, as the table `new`.
    fn unnest(&mut self, columns: &[&Column]) -> String {
        let array = |column: &&Column| {
            self.0 += 1;
            format!("${}::{}", self.0, column.array_type_name())
        };
        let arrays = columns.iter().map(array).collect::<Vec<_>>().join(", ");
        let names = columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        format!("UNNEST({arrays}) AS new({names})")
    }
}
