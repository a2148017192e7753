//! The database's URL. PostgreSQL's has one host or several, in libpq's syntax:
//! `postgres://user@h1:5432,[::1]:5432/name?sslmode=require`.

mod files;
mod parameters;
mod parts;

use std::{fmt, str::FromStr};

use sea_orm::sqlx::{ConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::storage::connect::url::{files::NamedFile, parameters::Parameters, parts::Parts};
use crate::storage::connect::{hosts::HOSTS_MAX, sqlite_file};

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// One file, one writer at a time.
    Sqlite,
    /// Version 14 or later.
    Postgres,
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// Where the database is. Its `Debug` never shows the URL, which may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl(pub(in crate::storage) Options, Vec<NamedFile>);

#[derive(Clone)]
pub(in crate::storage) enum Options {
    Sqlite(Box<SqliteConnectOptions>),
    /// One for each host; at least one.
    Postgres(Vec<PgConnectOptions>),
}

/// Why a text is not a database URL. No part of the text is repeated that could be a part of a
/// password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// In memory, every connection would have a database of its own.
    #[error(
        "must name a file by its path, as in sqlite://passbook.db?mode=rwc: a SQLite database \
         in memory cannot be shared by connections"
    )]
    InMemory,
    /// Not a URL of SQLite's.
    #[error(
        "is not a valid URL: SQLite's are sqlite://FILE or sqlite://FILE?mode=rwc, with %3F for a \
         ? in the file's name; mode, cache, immutable and vfs are its only parameters"
    )]
    MalformedSqlite,
    /// Not a URL of that scheme.
    #[error(
        "is not a valid URL: in a user name or password, write %23 for #, %2F for /, %3F for ?, \
         %40 for @ and %25 for %"
    )]
    Malformed,
    /// What is between the user and the path.
    #[error(
        "is not a valid URL: it must have HOST or HOST:PORT, or several separated by commas, with \
         IPv6 addresses in brackets, as in [::1]:5432; in a user name or password, write %2F for / \
         and %40 for @"
    )]
    Hosts,
    /// A parameter that cannot be used as it is; its value is not repeated.
    #[error("has the parameter {name}: {advice}")]
    Parameter {
        /// Its name.
        name: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A parameter that nobody knows.
    #[error(
        "has an unknown parameter: {0}; leave it out, or write options[NAME]=VALUE for a setting \
         of PostgreSQL's"
    )]
    Unknown(String),
    /// The same, where it may be a part of a password.
    #[error(
        "has an unknown parameter: if it is the rest of a password, write %26 for & and %3F for ?"
    )]
    Unnamed,
    /// Several hosts in a parameter.
    #[error("must have several hosts before its path, as in postgres://h1:5432,h2:5432/name")]
    HostsAsParameter,
    /// Too many hosts.
    #[error("has more than {HOSTS_MAX} hosts")]
    HostsMax,
    /// SQLite knows no passwords.
    #[error("is not PostgreSQL's")]
    NoPassword,
}

impl DatabaseUrl {
    /// Reads `sqlite://...`, `postgres://...` or `postgresql://...`; the latter two with one host
    /// or several. Space around it does not count.
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

    /// The same with this password.
    ///
    /// # Errors
    /// It is not PostgreSQL's.
    pub fn with_password(self, password: &str) -> Result<Self, DatabaseUrlError> {
        match self.0 {
            Options::Postgres(options) => {
                let with_it = options.into_iter().map(|it| it.password(password));
                Ok(Self(Options::Postgres(with_it.collect()), self.1))
            }
            Options::Sqlite(_) => Err(DatabaseUrlError::NoPassword),
        }
    }

    /// Reads the files that it names, as each connection will: certificates and keys.
    ///
    /// # Errors
    /// One cannot be read or is something else; with its name.
    pub fn check_files(&self) -> Result<(), String> {
        files::check(&self.1)
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        match self.0 {
            Options::Sqlite(_) => DatabaseKind::Sqlite,
            Options::Postgres(_) => DatabaseKind::Postgres,
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://...", self.kind())
    }
}

#[cfg(test)]
mod tests;
