//! Checks before the first migration: no foreign tables of the same names, and the right to create
//! tables. PostgreSQL's own errors would not say what to do. And one before it is reverted.

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};

use crate::storage::{StorageError, dialect::DatabaseKind, tables::TABLES};

/// The role that creates tables, and the schema; the names are quoted for SQL.
#[derive(FromQueryResult)]
struct Grants {
    role: String,
    /// None if no schema of the search_path exists.
    schema: Option<String>,
    may_create: Option<bool>,
    search_path: String,
}

/// Fails, with advice, if the role may not create tables.
pub async fn require_right(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    if DatabaseKind::of(transaction) != DatabaseKind::Postgres {
        return Ok(());
    }
    let sql = "SELECT quote_ident(current_user) AS role, \
               quote_ident(current_schema()) AS schema, \
               has_schema_privilege(current_schema(), 'CREATE') AS may_create, \
               current_setting('search_path') AS search_path";
    let grants = Grants::find_by_statement(DatabaseKind::Postgres.statement(sql, []));
    match grants.one(transaction).await? {
        Some(Grants { role, schema: Some(schema), may_create: Some(false), .. }) => {
            Err(StorageError::Forbidden(format!(
                "{role} may not create tables in schema {schema}: GRANT CREATE ON SCHEMA {schema} \
                 TO {role}, or make it the owner: ALTER SCHEMA {schema} OWNER TO {role}"
            )))
        }
        Some(Grants { role, schema: None, search_path, .. }) => {
            Err(StorageError::Forbidden(format!(
                "{role} may use no schema of the search_path ({search_path}): GRANT \
                 USAGE, CREATE ON SCHEMA ... TO {role}, or CREATE SCHEMA passbook AUTHORIZATION \
                 {role}, with options[search_path]=passbook in database_url"
            )))
        }
        _ => Ok(()),
    }
}

/// Fails, with advice, if there are foreign tables of the same names.
pub async fn require_free(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    let kind = DatabaseKind::of(transaction);
    let tables = TABLES.map(|table| format!("'{}'", table.name)).join(", ");
    let (sql, way_out) = match kind {
        DatabaseKind::Sqlite => (
            format!(
                "SELECT name FROM sqlite_schema WHERE name IN ({tables}) ORDER BY name LIMIT 1"
            ),
            "give the ledger a file of its own",
        ),
        DatabaseKind::Postgres => (
            format!(
                "SELECT relname::text AS name FROM pg_class \
                 WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) \
                 AND relname IN ({tables}) ORDER BY relname LIMIT 1"
            ),
            "give the ledger a database of its own, or a schema of its own: CREATE SCHEMA \
             passbook, and options[search_path]=passbook in database_url",
        ),
    };
    let Some(row) = transaction.query_one_raw(kind.statement(sql, [])).await? else {
        return Ok(());
    };
    let name: String = row.try_get("", "name")?;
    Err(StorageError::SchemaNotMigrated(format!(
        "the table {name} exists already, and no migration of Passbook has created it: {way_out}"
    )))
}

/// Fails if there are accounts: a ledger is not deleted by reverting its migrations.
pub async fn require_no_account(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    let any = DatabaseKind::of(transaction).statement("SELECT 1 FROM accounts LIMIT 1", []);
    match transaction.query_one_raw(any).await? {
        None => Ok(()),
        Some(_) => Err(StorageError::Forbidden(
            "there are accounts: to delete the ledger for good, delete the database or its tables"
                .to_owned(),
        )),
    }
}
