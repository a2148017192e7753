//! The settings of the connection to the database.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, parser::ValueSource};

use crate::{regular_file, storage::DatabaseUrl};

const DATABASE_URL_DEFAULT: &str = "sqlite://passbook.db?mode=rwc";

/// The database of a command.
#[derive(Args, Clone)]
pub struct DatabaseConfig {
    /// The URL of the database: sqlite://FILE?mode=rwc or postgres://USER@HOST:PORT/NAME.
    ///
    /// With several hosts, as in postgres://USER@H1:5432,H2:5432/NAME, the server uses the primary
    /// among them, and finds the new primary after a failover. Commands that only read go to the
    /// primary as well, or to a standby if no primary answers.
    ///
    /// Put a password into --database-password-file, or as USER:PASSWORD@ into the variable or the
    /// file of settings. Every user of the machine can read a password on the command line.
    #[arg(long, env, hide_env_values = true, global = true, value_name = "URL")]
    #[arg(default_value = DATABASE_URL_DEFAULT)]
    // Parsed later: an error of clap would repeat an invalid URL with its password.
    database_url: String,

    /// A file that contains only the password of the database user.
    #[arg(long, env, global = true, value_name = "FILE")]
    database_password_file: Option<PathBuf>,
}

impl DatabaseConfig {
    /// Whether the database is the one without any setting.
    pub(super) fn is_default(&self) -> bool {
        self.database_url == DATABASE_URL_DEFAULT && self.database_password_file.is_none()
    }

    /// The file with the password, if it is set.
    pub(super) fn password_file(&self) -> Option<&Path> {
        self.database_password_file.as_deref()
    }

    /// The file of the private key with which the server signs in, if the URL or a variable names one.
    pub(super) fn key_file(&self) -> Option<PathBuf> {
        DatabaseUrl::parse(&self.database_url).ok()?.key_file()
    }

    /// A warning of connections to another machine that may not be the database.
    pub(super) fn warning(&self) -> Option<String> {
        let url = DatabaseUrl::parse(&self.database_url).ok()?;
        let (host, mode) = url.unverified_host()?;
        Some(format!(
            "database_url has sslmode={mode} for the host {host}, so a machine in between could pose \
             as the database: set sslmode=verify-full"
        ))
    }

    /// The files that the database consists of, and the one with its password. None for a URL that is
    /// not valid.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let url = DatabaseUrl::parse(&self.database_url);
        let files = url.map(|url| url.files()).unwrap_or_default();
        files.into_iter().chain(self.database_password_file.clone()).collect()
    }

    /// The parsed URL, with the password of the file.
    ///
    /// # Errors
    /// The fault of the URL or of the file, in words that do not repeat the URL.
    pub fn url(&self) -> Result<DatabaseUrl, String> {
        let url = DatabaseUrl::parse(&self.database_url)
            .map_err(|error| format!("database_url {error}"))?;
        url.check_files().map_err(|error| format!("database_url names {error}"))?;
        let Some(path) = &self.database_password_file else { return Ok(url) };
        if DatabaseUrl::has_password(&self.database_url) {
            return Err(
                "database_password_file and database_url both have a password: keep one".to_owned()
            );
        }
        let password = regular_file::read_text_once(path).map_err(|error| {
            format!("database_password_file {} cannot be read: {error}", path.display())
        })?;
        // Editors add a byte order mark or a line break.
        let password = password.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains(['\r', '\n']) {
            return Err(format!(
                "database_password_file {}: must have one line, the password",
                path.display()
            ));
        }
        url.with_password(password)
            .map_err(|error| format!("database_password_file is set, but database_url {error}"))
    }
}

/// Whether the command line has a database URL with a password, which every user of the machine can
/// read.
pub fn password_in_arguments(matches: &ArgMatches) -> bool {
    const ID: &str = "database_url";
    if let Some((_, subcommand)) = matches.subcommand() {
        return password_in_arguments(subcommand);
    }
    let Ok(Some(url)) = matches.try_get_one::<String>(ID) else { return false };
    matches.value_source(ID) == Some(ValueSource::CommandLine) && DatabaseUrl::has_password(url)
}
