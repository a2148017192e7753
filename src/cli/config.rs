//! `passbook config`: validates settings without serving.

use clap::{Args, Subcommand};
use passbook_command::{CliError, output};

use crate::{cli::checked_settings::CheckedSettings, config::ServeConfig};

#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read all flags, variables and files that `serve` would read, and report the first error in
    /// them with exit code 2. Examines the file of SQLite from outside, and connects to nothing.
    Check(ServeConfig),
}

impl Config {
    pub fn run(self) -> Result<(), CliError> {
        let Action::Check(config) = self.action;
        let settings = CheckedSettings::read(config).map_err(CliError::Usage)?;
        if !settings.config.ephemeral {
            let url = settings.config.database.url().map_err(CliError::Usage)?;
            url.check_for_changes().map_err(CliError::Usage)?;
        }
        for warning in settings.config.warnings() {
            tracing::warn!("{warning}");
        }
        output::line("the settings are valid")
    }
}
