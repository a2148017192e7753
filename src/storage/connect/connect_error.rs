//! Why a database cannot be used, and whether the reason is transient.

use std::path::Path;

use sea_orm::SqlxError;

use crate::storage::{StorageError, error::postgres_words};

/// Why no server can be used. Its text is one line, with addresses, without the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConnectError {
    text: String,
    /// Whether the database may be there in a moment: it is starting, or its name is not known yet.
    may_pass: bool,
}

impl ConnectError {
    /// Whether a retry in a moment may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// Joins what cannot be done and why.
    pub(in crate::storage) fn new(what: &str, host_error: impl Into<HostError>) -> Self {
        let HostError { reason, may_pass } = host_error.into();
        Self { text: format!("{what}: {reason}"), may_pass }
    }
}

impl From<ConnectError> for StorageError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.text)
    }
}

/// Why one server cannot be used.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage) struct HostError {
    pub(in crate::storage) reason: String,
    pub(in crate::storage) may_pass: bool,
}

impl From<String> for HostError {
    fn from(reason: String) -> Self {
        Self { reason, may_pass: false }
    }
}

impl From<&SqlxError> for HostError {
    fn from(error: &SqlxError) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        // 57P03: the server is starting up. 53300: all connections are taken. 57014: it took longer than
        // the statement timeout of the new session, so it is busy.
        let may_pass = matches!(error, SqlxError::Io(_))
            || matches!(code.as_deref(), Some("57P03" | "53300" | "57014"));
        Self { reason: reason(error), may_pass }
    }
}

/// The file of a SQLite database cannot be opened.
pub(in crate::storage) fn cannot_open(
    file: &Path,
    host_error: impl Into<HostError>,
) -> ConnectError {
    ConnectError::new(&format!("cannot open the database file {}", file.display()), host_error)
}

/// The text of the server or the operating system, never with the URL.
pub(in crate::storage) fn reason(error: &SqlxError) -> String {
    match error {
        SqlxError::Database(error) => match error.try_downcast_ref() {
            Some(error) => postgres_words(error),
            None => error.message().to_owned(),
        },
        SqlxError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".to_owned()
        }
        SqlxError::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}
