//! The database's URL. PostgreSQL's has one host or several, in libpq's syntax:
//! `postgres://user@h1:5432,h2:5432/name?sslmode=require`.

use std::{fmt, str::FromStr};

use sea_orm::sqlx::{ConnectOptions, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use crate::storage::hosts::HOSTS_MAX;

/// What sqlx understands; anything else it would log, with its value, and ignore.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

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
pub struct DatabaseUrl(pub(super) Options);

#[derive(Clone)]
pub(super) enum Options {
    Sqlite(Box<SqliteConnectOptions>),
    /// One for each host; at least one.
    Postgres(Vec<PgConnectOptions>),
}

/// Why a text is not a database URL. The text itself is not repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// In memory, every connection would have a database of its own.
    #[error("must name a file: an in-memory SQLite database cannot be shared by connections")]
    InMemory,
    /// Not a URL of that scheme.
    #[error(
        "is not a valid URL (in a user name or password, write %2F for /, %3F for ? and %40 for @)"
    )]
    Malformed,
    /// A parameter that means nothing here; its value is not repeated.
    #[error("has an unknown parameter: {0}")]
    Parameter(String),
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
    /// or several.
    ///
    /// # Errors
    /// Another scheme, an in-memory SQLite database, or not a URL.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if text.starts_with("sqlite:") {
            if text.contains(":memory:") || text.contains("mode=memory") {
                return Err(DatabaseUrlError::InMemory);
            }
            let options = SqliteConnectOptions::from_str(text);
            return options.map_or(Err(DatabaseUrlError::Malformed), |it| {
                Ok(Self(Options::Sqlite(Box::new(it.disable_statement_logging()))))
            });
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::Scheme);
        }
        Ok(Self(Options::Postgres(postgres(text)?)))
    }

    /// The same with this password.
    ///
    /// # Errors
    /// It is not PostgreSQL's.
    pub fn with_password(self, password: &str) -> Result<Self, DatabaseUrlError> {
        match self.0 {
            Options::Postgres(options) => {
                let with_it = options.into_iter().map(|it| it.password(password));
                Ok(Self(Options::Postgres(with_it.collect())))
            }
            Options::Sqlite(_) => Err(DatabaseUrlError::NoPassword),
        }
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

/// One for each host, in order; at least one.
fn postgres(text: &str) -> Result<Vec<PgConnectOptions>, DatabaseUrlError> {
    let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
    // A password with a question mark in it, the rest of which is nobody's business.
    if parameters.contains('@') {
        return Err(DatabaseUrlError::Malformed);
    }
    let parameters = known(parameters)?;
    let (scheme, rest) = place.split_once("://").ok_or(DatabaseUrlError::Malformed)?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > HOSTS_MAX {
        return Err(DatabaseUrlError::HostsMax);
    }
    let are_several = hosts.len() > 1;
    let options = hosts.into_iter().map(|host| {
        if are_several && host.is_empty() {
            return Err(DatabaseUrlError::Malformed);
        }
        let url = format!("{scheme}://{user}{host}{path}{parameters}");
        let options = PgConnectOptions::from_str(&url).map_err(|_| DatabaseUrlError::Malformed)?;
        Ok(options.disable_statement_logging())
    });
    options.collect()
}

/// The parameters without `target_session_attrs`, which says what is done in any case.
fn known(parameters: &str) -> Result<String, DatabaseUrlError> {
    let mut kept = String::new();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, value) {
            ("target_session_attrs", "read-write" | "primary") => continue,
            ("host" | "hostaddr" | "port", _)
                if value.contains(',') || value.to_lowercase().contains("%2c") =>
            {
                return Err(DatabaseUrlError::HostsAsParameter);
            }
            _ if PARAMETERS.contains(&name) || name.starts_with("options[") => {}
            _ => return Err(DatabaseUrlError::Parameter(name.to_owned())),
        }
        kept.push(if kept.is_empty() { '?' } else { '&' });
        kept.push_str(parameter);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<(String, u16, String)> {
        let DatabaseUrl(Options::Postgres(all)) = DatabaseUrl::parse(text).unwrap() else {
            panic!("not PostgreSQL");
        };
        let place = |it: &PgConnectOptions| {
            (it.get_host().to_owned(), it.get_port(), it.get_username().to_owned())
        };
        all.iter().map(place).collect()
    }

    #[test]
    fn every_host_gets_the_user_and_a_port_of_its_own() {
        let [one, two, three] =
            &hosts("postgres://u:p%2Cw@h1:5433,h2,[::1]:5434/db?sslmode=disable")[..]
        else {
            panic!("three hosts");
        };
        assert_eq!(*one, ("h1".to_owned(), 5433, "u".to_owned()));
        assert_eq!((&*two.0, &*two.2), ("h2", "u"));
        assert_eq!(*three, ("[::1]".to_owned(), 5434, "u".to_owned()));
        assert_eq!(hosts("postgres://u:a,b@h/db").len(), 1, "a comma in a password");
        assert_eq!(hosts("postgresql://h1,h2/db?target_session_attrs=read-write").len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        let wrong = |text| DatabaseUrl::parse(text).map(drop).unwrap_err();
        assert_eq!(wrong("mysql://h/db"), DatabaseUrlError::Scheme);
        assert_eq!(wrong("sqlite://x?mode=memory"), DatabaseUrlError::InMemory);
        for text in [
            "postgres://h1,/db",
            "postgres://,h2/db",
            "postgres://h1:port/db",
            "postgres://h1,h2:70000/db",
            "postgres://u:pa/ss@h/db",
            "postgres://u:pa/ss@h1,h2/db",
            "postgres://u:pa?secret=1@h/db",
            "postgres://h/db?sslmode=perhaps",
        ] {
            assert_eq!(wrong(text), DatabaseUrlError::Malformed, "{text}");
        }
        let unknown = DatabaseUrlError::Parameter("connect_timeout".to_owned());
        assert_eq!(wrong("postgres://h/db?connect_timeout=3"), unknown);
        let standby = DatabaseUrlError::Parameter("target_session_attrs".to_owned());
        assert_eq!(wrong("postgres://h/db?target_session_attrs=standby"), standby);
        assert_eq!(wrong("postgres:///db?host=h1,h2"), DatabaseUrlError::HostsAsParameter);
        let many = format!("postgres://{}h/db", "h,".repeat(HOSTS_MAX));
        assert_eq!(wrong(&many), DatabaseUrlError::HostsMax);
    }
}
