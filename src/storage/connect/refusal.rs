//! Why a database cannot be used, and whether that may pass.

use std::path::Path;

use sea_orm::SqlxError;

use crate::storage::{StorageError, error::postgres_words};

/// Why no server can be used: one line, with addresses, without the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConnectError {
    text: String,
    /// It may be there in a moment: it is starting, or its name is not known yet.
    may_pass: bool,
}

impl ConnectError {
    /// Whether it is worth to try again in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// What cannot be done, and why.
    pub(in crate::storage) fn new(what: &str, refusal: impl Into<Refusal>) -> Self {
        let Refusal { reason, may_pass } = refusal.into();
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
pub(in crate::storage) struct Refusal {
    pub(in crate::storage) reason: String,
    pub(in crate::storage) may_pass: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, may_pass: false }
    }
}

impl From<&SqlxError> for Refusal {
    fn from(error: &SqlxError) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        // 57P03: it starts up. 53300: others have all connections for now.
        let may_pass =
            matches!(error, SqlxError::Io(_)) || matches!(code.as_deref(), Some("57P03" | "53300"));
        Self { reason: reason(error), may_pass }
    }
}

/// The file of a SQLite database cannot be opened.
pub(in crate::storage) fn cannot_open(file: &Path, refusal: impl Into<Refusal>) -> ConnectError {
    ConnectError::new(&format!("cannot open the database file {}", file.display()), refusal)
}

/// In the server's own words, or the system's; never with the URL.
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
