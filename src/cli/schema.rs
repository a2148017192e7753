//! What the verbs that read the whole database say of a schema that is not this program's.

use passbook_command::CliError;

use crate::storage::{SchemaStatus, Store};

/// Refuses a database whose schema is not exactly this program's.
pub async fn require_current(store: &Store) -> Result<(), CliError> {
    Err(CliError::Run(match store.schema_status().await.map_err(CliError::run)? {
        SchemaStatus::Current => return Ok(()),
        SchemaStatus::Missing => {
            "the database has no schema: is it the right one? `passbook migrate up` makes it"
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
