//! The database's URL. PostgreSQL's has one host or several, in libpq's syntax:
//! `postgres://user@h1:5432,[::1]:5432/name?sslmode=require`.

mod error;
mod files;
mod parameters;
mod parts;

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use sea_orm::sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::SqliteConnectOptions,
};

pub use self::error::DatabaseUrlError;
use self::{files::NamedFile, parameters::Parameters, parts::Parts};
use crate::{
    regular_file,
    storage::{
        connect::{
            session,
            sqlite_file::{self, DatabaseFile, SUFFIXES},
            target::TargetSession,
        },
        dialect::DatabaseKind,
    },
};

/// A database URL. Its `Debug` shows no part of the URL, which may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl(pub(in crate::storage) Options, Vec<NamedFile>);

#[derive(Clone)]
pub(in crate::storage) enum Options {
    Sqlite(Box<SqliteConnectOptions>),
    /// One for each host; at least one.
    Postgres(Vec<PgConnectOptions>),
}

impl DatabaseUrl {
    /// Reads `sqlite://...`, `postgres://...` or `postgresql://...`; the latter two with one host
    /// or several. Trims white space.
    ///
    /// # Errors
    /// Another scheme, an in-memory SQLite database, or not a URL.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let text = text.trim();
        if text.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(text);
            let options = options.map_err(|_| DatabaseUrlError::MalformedSqlite)?;
            if !sqlite_file::is_file(&options) {
                return Err(DatabaseUrlError::InMemory);
            }
            return Ok(Self(
                Options::Sqlite(Box::new(options.disable_statement_logging())),
                Vec::new(),
            ));
        }
        let Some(rest) =
            text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))
        else {
            return Err(DatabaseUrlError::Scheme);
        };
        let parts = Parts::split(rest)?;
        let parameters = Parameters::check(parts.parameters)?;
        let files = files::named(&parameters);
        let options = parts.hosts.iter().map(|host| {
            let own = parts.user.iter().chain(host);
            let query = parameters::query(own.chain(&parts.database).chain(&parameters.kept));
            let options = PgConnectOptions::from_str(&format!("postgres:///?{query}"))
                .map_err(|_| DatabaseUrlError::Malformed)?;
            Ok(options.disable_statement_logging())
        });
        Ok(Self(Options::Postgres(options.collect::<Result<_, _>>()?), files))
    }

    /// Whether a text is a URL with a password in it: USER:PASSWORD@, or as a parameter.
    #[must_use]
    pub fn has_password(text: &str) -> bool {
        let rest = text.trim().split_once("://").map_or("", |(_, rest)| rest);
        Parts::split(rest).is_ok_and(|parts| {
            parts.user.iter().chain(&parts.parameters).any(|(name, _)| name == "password")
        })
    }

    /// Sets the password. SQLite has none.
    pub fn with_password(self, password: &str) -> Result<Self, DatabaseUrlError> {
        match self.0 {
            Options::Postgres(options) => {
                let with_it = options.into_iter().map(|it| it.password(password));
                Ok(Self(Options::Postgres(with_it.collect()), self.1))
            }
            Options::Sqlite(_) => Err(DatabaseUrlError::NoPassword),
        }
    }

    /// The files that a database on SQLite consists of, or the certificates and keys that a URL of
    /// PostgreSQL names.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.0 {
            Options::Sqlite(options) => {
                let path = regular_file::real_path(options.get_filename());
                SUFFIXES.iter().map(|suffix| sqlite_file::beside(&path, suffix)).collect()
            }
            Options::Postgres(_) => self.1.iter().map(NamedFile::path).collect(),
        }
    }

    /// The file of the private key with which PostgreSQL knows this program.
    #[must_use]
    pub fn key_file(&self) -> Option<PathBuf> {
        self.1.iter().find(|file| file.is_key()).map(NamedFile::path)
    }

    /// Checks that a server can change the database, as far as can be seen without a connection.
    ///
    /// # Errors
    /// On SQLite, why the file cannot be opened or may not be; on PostgreSQL, a setting in the URL that
    /// breaks a promise.
    pub fn check_for_changes(&self) -> Result<(), String> {
        match &self.0 {
            Options::Sqlite(options) => {
                let file = DatabaseFile::new((**options).clone(), TargetSession::Primary);
                file.map(drop).map_err(|error| error.to_string())
            }
            Options::Postgres(hosts) => {
                let unsafe_option = hosts.iter().find_map(session::unsafe_option);
                unsafe_option.map_or(Ok(()), Err)
            }
        }
    }

    /// Reads the certificates and keys that the URL names, as each connection will. The error has
    /// the name of the first file that cannot be used.
    pub fn check_files(&self) -> Result<(), String> {
        files::check(&self.1)
    }

    /// The first host on another machine whose name connections do not verify, and their `sslmode`.
    #[must_use]
    pub fn unverified_host(&self) -> Option<(&str, &'static str)> {
        let Options::Postgres(hosts) = &self.0 else { return None };
        let unverified = |options: &PgConnectOptions| match options.get_ssl_mode() {
            PgSslMode::VerifyFull => None,
            PgSslMode::VerifyCa => Some("verify-ca"),
            PgSslMode::Require => Some("require"),
            PgSslMode::Prefer => Some("prefer (the default)"),
            PgSslMode::Allow => Some("allow"),
            PgSslMode::Disable => Some("disable"),
        };
        let mut remote = hosts.iter().filter(|options| !is_local(options));
        remote.find_map(|options| Some((options.get_host(), unverified(options)?)))
    }

    /// The kind of database.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        match self.0 {
            Options::Sqlite(_) => DatabaseKind::Sqlite,
            Options::Postgres(_) => DatabaseKind::Postgres,
        }
    }
}

/// Whether a host is this machine: a socket, `localhost` or a loopback address.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://...", self.kind())
    }
}

#[cfg(test)]
mod tests;
