//! The check of the schema in the commands that read the whole database.

use passbook_command::CliError;

use crate::storage::{SchemaStatus, Store};

/// Returns an error unless the schema of the database is exactly that of this program.
pub async fn require_current(store: &Store) -> Result<(), CliError> {
    Err(CliError::Run(match store.schema_status().await.map_err(CliError::run)? {
        SchemaStatus::Current => return Ok(()),
        SchemaStatus::Missing => {
            "the database has no schema: check database_url, or run `passbook migrate up`"
                .to_owned()
        }
        SchemaStatus::Behind(pending) => format!(
            "the database's schema is older than this program ({} not applied): run \
             `passbook migrate up`",
            pending.join(", ")
        ),
        SchemaStatus::Ahead(unknown) => format!(
            "the database's schema is newer than this program ({} not known): run a newer passbook",
            unknown.join(", ")
        ),
    }))
}
