//! Where the database is.

use std::path::PathBuf;

use clap::{ArgMatches, Args, parser::ValueSource};

use crate::storage::DatabaseUrl;

/// Where the database is; shared by all verbs that need it.
#[derive(Args, Clone)]
pub struct DatabaseConfig {
    /// Where the database is: sqlite://FILE?mode=rwc or postgres://USER@HOST:PORT/NAME.
    ///
    /// Several hosts, as in postgres://USER@H1:5432,H2:5432/NAME: the one that is the primary is
    /// used, and looked for again when it moves.
    ///
    /// A password belongs into --database-password-file, or into the environment variable or the
    /// configuration file as USER:PASSWORD@; on the command line everyone on the machine sees it.
    #[arg(
        long,
        env = "PASSBOOK_DATABASE_URL",
        global = true,
        default_value = "sqlite://passbook.db?mode=rwc",
        hide_env_values = true,
        value_name = "URL"
    )]
    // Not parsed by clap, which would repeat a wrong one, password and all.
    database_url: String,

    /// A file with the password of the database's user, and nothing else.
    #[arg(long, env = "PASSBOOK_DATABASE_PASSWORD_FILE", global = true, value_name = "FILE")]
    database_password_file: Option<PathBuf>,
}

impl DatabaseConfig {
    /// The URL.
    ///
    /// # Errors
    /// What is wrong with it, without the URL itself.
    pub fn url(&self) -> Result<DatabaseUrl, String> {
        let url = DatabaseUrl::parse(&self.database_url)
            .map_err(|error| format!("database_url {error}"))?;
        url.check_files().map_err(|error| format!("database_url names {error}"))?;
        let Some(path) = &self.database_password_file else { return Ok(url) };
        if DatabaseUrl::has_password(&self.database_url) {
            return Err(
                "database_password_file is given, and database_url has a password, too".to_owned()
            );
        }
        let password = std::fs::read_to_string(path).map_err(|error| {
            format!("database_password_file {} cannot be read: {error}", path.display())
        })?;
        // As an editor left it.
        let password = password.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        url.with_password(password)
            .map_err(|error| format!("database_password_file is given, but database_url {error}"))
    }
}

/// Whether the URL has a password and is on the command line, where everyone on the machine can read
/// it.
pub(crate) fn password_in_arguments(matches: &ArgMatches) -> bool {
    const ID: &str = "database_url";
    if let Some((_, subcommand)) = matches.subcommand() {
        return password_in_arguments(subcommand);
    }
    let Ok(Some(url)) = matches.try_get_one::<String>(ID) else { return false };
    matches.value_source(ID) == Some(ValueSource::CommandLine) && DatabaseUrl::has_password(url)
}
