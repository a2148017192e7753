//! The database of the commands that use all of it: the check of its schema, and the end of its
//! connections.

use passbook_command::CliError;

use crate::{
    config::DatabaseConfig,
    storage::{DatabaseKind, SchemaStatus, Store},
};

/// Connects to a database that has exactly the schema of this program, to read from it.
pub async fn connect_to_read(database: &DatabaseConfig) -> Result<Store, CliError> {
    let url = database.url().map_err(CliError::Usage)?;
    let store = Store::connect_to_read(url).await.map_err(CliError::run)?;
    require_current(store.schema_status().await.map_err(CliError::run)?)?;
    match store.missing_key().await.map_err(CliError::run)? {
        Some(missing) => Err(CliError::Run(format!("the database is not whole: {missing}"))),
        None => Ok(store),
    }
}

/// Applies pending migrations if that is allowed. Returns an error that names the right command if
/// the schema is not that of this program.
pub async fn prepare(store: &Store, migrate: bool) -> Result<(), CliError> {
    match store.schema_status().await.map_err(CliError::run)? {
        SchemaStatus::Missing | SchemaStatus::Behind(_)
            if migrate || store.kind() == DatabaseKind::Sqlite =>
        {
            store.migrate_up().await.map_err(CliError::run)?;
            // Sessions from before there was a ledger are not kept with its schema.
            store.invalidate_connections();
            Ok(())
        }
        status => require_current(status),
    }
}

/// Closes the database after a command that may have changed it: on SQLite the file alone has the
/// whole ledger then. What the command has committed stays, so an error here is only logged.
pub async fn close(store: &Store) {
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "cannot close the connections to the database; nothing is lost");
    }
}

/// Returns an error, which names the right command, unless the schema is that of this program.
pub fn require_current(status: SchemaStatus) -> Result<(), CliError> {
    Err(CliError::Run(match status {
        SchemaStatus::Current => return Ok(()),
        SchemaStatus::Missing => "the database has no schema: check database_url, or run \
             `passbook migrate up` or `passbook serve --migrate`"
            .to_owned(),
        SchemaStatus::Behind(pending) => format!(
            "the database's schema is older than this program ({} not applied): run \
             `passbook migrate up` or `passbook serve --migrate`",
            pending.join(", ")
        ),
        SchemaStatus::Ahead(unknown) => format!(
            "the database's schema is newer than this program ({} not known): run the newer \
             passbook, or revert the schema with the newer passbook's `migrate down`",
            unknown.join(", ")
        ),
    }))
}
