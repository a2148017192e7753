//! `passbook migrate`: applies, shows and reverts migrations.

use clap::{Args, Subcommand};
use passbook_command::{CliError, output};

use crate::{
    config::DatabaseConfig,
    storage::{SchemaStatus, Store},
};

#[derive(Args)]
pub struct Migrate {
    #[command(subcommand)]
    direction: Direction,

    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Subcommand)]
enum Direction {
    /// Apply all pending migrations. Several processes may run this at the same time.
    Up,
    /// List the migrations as applied or pending. Exit code 1 if the schema is older or newer than
    /// this program.
    Status,
    /// Revert the latest migration. This deletes its tables with all their rows.
    Down,
}

impl Migrate {
    pub async fn run(self) -> Result<(), CliError> {
        let url = self.database.url().map_err(CliError::Usage)?;
        let store = match self.direction {
            Direction::Up | Direction::Down => Store::connect(url).await,
            Direction::Status => Store::connect_to_read(url).await,
        };
        let store = store.map_err(CliError::run)?;
        match self.direction {
            Direction::Up => {
                reject_newer(&store).await?.migrate_up().await.map_err(CliError::run)?;
            }
            Direction::Down => {
                reject_newer(&store).await?.migrate_down().await.map_err(CliError::run)?;
            }
            Direction::Status => {}
        }
        for (name, applied) in store.migrations().await.map_err(CliError::run)? {
            let state = if applied { "applied" } else { "pending" };
            output::line(format_args!("{state} {name}"))?;
        }
        match (self.direction, store.schema_status().await.map_err(CliError::run)?) {
            (Direction::Up | Direction::Down, _) | (_, SchemaStatus::Current) => Ok(()),
            (Direction::Status, SchemaStatus::Missing | SchemaStatus::Behind(_)) => {
                Err(CliError::Run("migrations are pending: run `passbook migrate up`".to_owned()))
            }
            (Direction::Status, SchemaStatus::Ahead(unknown)) => Err(newer(&unknown)),
        }
    }
}

async fn reject_newer(store: &Store) -> Result<&Store, CliError> {
    match store.schema_status().await.map_err(CliError::run)? {
        SchemaStatus::Ahead(unknown) => Err(newer(&unknown)),
        SchemaStatus::Missing | SchemaStatus::Behind(_) | SchemaStatus::Current => Ok(store),
    }
}

fn newer(unknown: &[String]) -> CliError {
    CliError::Run(format!(
        "the database's schema is newer than this program ({} not known): run a newer passbook",
        unknown.join(", ")
    ))
}
