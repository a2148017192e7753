//! `passbook config`: validates settings without serving.

use clap::{Args, Subcommand};
use passbook_command::{CliError, output};

use crate::{
    config::ServeConfig,
    server::{AdminToken, Jwks, Tls},
};

#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read all flags, variables and files that `serve` would read, and report the first error in
    /// them with exit code 2. Connects to nothing.
    Check(ServeConfig),
}

impl Config {
    pub fn run(self) -> Result<(), CliError> {
        let Action::Check(config) = self.action;
        config.validate().map_err(CliError::Usage)?;
        let currencies = config.currencies().map_err(CliError::Usage)?;
        config.contra_accounts(&currencies).map_err(CliError::Usage)?;
        if let Some(files) = config.security.credential_files() {
            files.load(&currencies).map_err(CliError::Usage)?;
        }
        if let Some(source) = &config.security.jwt_jwks {
            Jwks::check(source).map_err(CliError::Usage)?;
        }
        config.security.tls().map(Tls::load).transpose().map_err(CliError::Usage)?;
        let admin_token_file = config.telemetry.admin_token_file.clone();
        admin_token_file.map(AdminToken::load).transpose().map_err(CliError::Usage)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        output::line("the settings are valid")
    }
}
