//! The list of applied migrations in the database.
//!
//! Passbook has its own table for it. The first versions used `seaql_migrations`, a name that other
//! programs use, too. A database that has it keeps both tables: servers of an earlier version,
//! which may run beside this one or replace it again, read and write the former table only. So the
//! former table counts as long as it has our rows, and gets a copy of every change. It can be
//! dropped when no such server is left.

use std::collections::BTreeSet;

use migration::{FORMER_TABLE, Migrator, MigratorTrait, TABLE};
use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};

use crate::storage::{StorageError, dialect::DatabaseKind};

/// Which of the two tables exist.
#[derive(FromQueryResult)]
struct Tables {
    has_own: bool,
    may_read_own: bool,
    /// Whether the former table exists and may be read, which another program's may not.
    has_former: bool,
}

/// The names of all migrations that this program knows, oldest first.
#[must_use]
pub fn migration_names() -> BTreeSet<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// The names of the applied migrations, by this program or a newer one.
pub async fn applied(connection: &impl ConnectionTrait) -> Result<BTreeSet<String>, StorageError> {
    let tables = tables(connection).await?;
    let former = former(connection, &tables).await?;
    let mut applied = BTreeSet::new();
    // A role that only serves may lack the right to read the new table, and can do without.
    if tables.has_own && (tables.may_read_own || former.is_none()) {
        applied = versions(connection, TABLE).await?;
    }
    if let Some(former) = former {
        // Unknown names in the former table are another program's.
        let names = migration_names();
        applied.retain(|name| !names.contains(name));
        applied.extend(former.intersection(&names).cloned());
    }
    Ok(applied)
}

/// Copies our rows of the former table, if there are any, into the new one; returns whether there
/// are. Called under the lock, before a migration.
pub async fn take_over(transaction: &DatabaseTransaction) -> Result<bool, StorageError> {
    let tables = tables(transaction).await?;
    if former(transaction, &tables).await?.is_none() {
        return Ok(false);
    }
    Migrator::install(transaction).await?;
    copy(transaction, FORMER_TABLE, TABLE).await?;
    Ok(true)
}

/// Copies our rows of the new table back into the former one, after a migration.
pub async fn hand_back(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    copy(transaction, TABLE, FORMER_TABLE).await
}

/// Replaces our rows of one table by those of the other.
async fn copy(transaction: &DatabaseTransaction, from: &str, to: &str) -> Result<(), StorageError> {
    // The names are this program's, and plain.
    let names: Vec<_> = migration_names().iter().map(|name| format!("'{name}'")).collect();
    let of_ours = format!("WHERE version IN ({})", names.join(", "));
    transaction.execute_unprepared(&format!("DELETE FROM {to} {of_ours}")).await?;
    let insert = format!(
        "INSERT INTO {to} (version, applied_at) SELECT version, applied_at FROM {from} {of_ours}"
    );
    transaction.execute_unprepared(&insert).await?;
    Ok(())
}

/// The names in the former table; None if it does not exist or has only rows of another program.
async fn former(
    connection: &impl ConnectionTrait,
    tables: &Tables,
) -> Result<Option<BTreeSet<String>>, StorageError> {
    if !tables.has_former {
        return Ok(None);
    }
    let versions = versions(connection, FORMER_TABLE).await?;
    // The first migration is applied as long as any is.
    let is_ours = migration_names().first().is_some_and(|first| versions.contains(first));
    Ok(is_ours.then_some(versions))
}

async fn tables(connection: &impl ConnectionTrait) -> Result<Tables, StorageError> {
    let kind = DatabaseKind::of(connection);
    let sql = match kind {
        DatabaseKind::Sqlite => format!(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '{TABLE}') AS has_own, \
             true AS may_read_own, \
             EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '{FORMER_TABLE}') AS has_former"
        ),
        DatabaseKind::Postgres => format!(
            "SELECT to_regclass('{TABLE}') IS NOT NULL AS has_own, \
             coalesce(has_table_privilege(to_regclass('{TABLE}'), 'SELECT'), false) \
             AS may_read_own, \
             coalesce(has_table_privilege(to_regclass('{FORMER_TABLE}'), 'SELECT'), false) \
             AS has_former"
        ),
    };
    let tables = Tables::find_by_statement(kind.statement(sql, []));
    let tables = tables.one(connection).await?;
    tables.ok_or_else(|| {
        StorageError::Corrupt("the statement for the migration tables has no row".to_owned())
    })
}

async fn versions(
    connection: &impl ConnectionTrait,
    table: &str,
) -> Result<BTreeSet<String>, StorageError> {
    let kind = DatabaseKind::of(connection);
    let statement = kind.statement(format!("SELECT version FROM {table}"), []);
    let rows = connection.query_all_raw(statement).await?;
    Ok(rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?)
}
