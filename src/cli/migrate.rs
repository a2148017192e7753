//! `passbook migrate`: applies, shows and reverts migrations.

use clap::{Args, Subcommand};
use passbook_command::{CliError, output};

use crate::{
    cli::schema,
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
    /// Revert the latest migration, and delete what only its schema stores. The first one is not
    /// reverted while there are accounts.
    Down,
}

impl Migrate {
    pub async fn run(self) -> Result<(), CliError> {
        let url = self.database.url().map_err(CliError::Usage)?;
        let store = match self.direction {
            Direction::Up | Direction::Down => Store::connect(url, None).await,
            Direction::Status => Store::connect_to_read(url).await,
        };
        let store = store.map_err(CliError::run)?;
        let migrated = self.direction.run(&store).await;
        if !matches!(self.direction, Direction::Status) {
            schema::close(&store).await;
        }
        migrated
    }
}

impl Direction {
    async fn run(&self, store: &Store) -> Result<(), CliError> {
        let status = store.schema_status().await.map_err(CliError::run)?;
        match (self, &status) {
            (Self::Up | Self::Down, SchemaStatus::Ahead(_)) => {
                return schema::require_current(status);
            }
            (Self::Up, _) => store.migrate_up().await.map_err(CliError::run)?,
            (Self::Down, _) => store.migrate_down().await.map_err(CliError::run)?,
            (Self::Status, _) => {}
        }
        for (name, applied) in store.migrations().await.map_err(CliError::run)? {
            let state = if applied { "applied" } else { "pending" };
            output::line(format_args!("{state} {name}"))?;
        }
        match self {
            Self::Up | Self::Down => Ok(()),
            Self::Status => schema::require_current(status),
        }
    }
}
