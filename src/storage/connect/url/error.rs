//! Why a text is not a database URL.

use crate::storage::connect::target::HOSTS_MAX;

/// Why a text is not a database URL. No part of the text is repeated that could be a part of a
/// password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatabaseUrlError {
    /// The scheme is neither SQLite's nor PostgreSQL's.
    #[error("must begin with sqlite:// or postgres://")]
    Scheme,
    /// In memory, every connection would have a database of its own.
    #[error(
        "must name a file by its path, as in sqlite://passbook.db?mode=rwc: a SQLite database \
         in memory cannot be shared by connections"
    )]
    InMemory,
    /// A SQLite URL that cannot be parsed.
    #[error(
        "is not a valid URL: for SQLite write sqlite://FILE or sqlite://FILE?mode=rwc, with %3F for \
         a ? in the file's name; mode, cache, immutable and vfs are its only parameters"
    )]
    MalformedSqlite,
    /// A PostgreSQL URL that cannot be parsed.
    #[error(
        "is not a valid URL: in a user name or password, write %23 for #, %2F for /, %3F for ?, \
         %40 for @ and %25 for %"
    )]
    Malformed,
    /// The hosts cannot be parsed.
    #[error(
        "is not a valid URL: it must have HOST or HOST:PORT, or several separated by commas, with \
         IPv6 addresses in brackets, as in [::1]:5432; in a user name or password, write %2F for / \
         and %40 for @"
    )]
    Hosts,
    /// A parameter that cannot be used as it is. The error does not repeat its value.
    #[error("has the parameter {name}: {advice}")]
    Parameter {
        /// The name of the parameter.
        name: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// An unknown parameter.
    #[error(
        "has an unknown parameter: {0}; leave it out, or write options[NAME]=VALUE for a \
         PostgreSQL setting"
    )]
    Unknown(String),
    /// An unknown parameter that may be a part of a password.
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
    #[error("is a SQLite URL, which has no password")]
    NoPassword,
}
