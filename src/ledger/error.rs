//! Why a call got no result, and why changes cannot be applied.

use std::time::Duration;

use crate::{
    budget::Exhausted,
    domain::{authorization::PermissionDenied, rejection::Rejection},
    storage::StorageError,
};

/// The outcome of a change that got no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The change was not applied, and this attempt never will be.
    NotApplied,
    /// The change may have been applied. The record of its request id says which.
    Unknown,
}

impl Outcome {
    /// The name in errors and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a call failed. Only [`Error::Rejected`] is a result that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The state of the ledger rejects the request.
    Rejected(Rejection),
    /// The caller lacks the right.
    PermissionDenied(PermissionDenied),
    /// Another transaction kept a row locked until the deadline.
    LockTimeout,
    /// The database aborted the transaction repeatedly, or what the request names, or its record, is not
    /// as its look-up has found it.
    Contention,
    /// The deadline passed. A read has no outcome.
    DeadlineExceeded(Option<Outcome>),
    /// A budget has no room for it.
    Overloaded(Exhausted),
    /// A watcher did not read a message in time.
    WatcherTooSlow {
        /// The time that it had.
        limit: Duration,
    },
    /// A watch was to start after an entry that the account does not have.
    SequenceNotReached {
        /// The sequence of the account's last entry.
        sequence: i64,
    },
    /// A watch was to resume after an event that the ledger does not have.
    EventTokenUnknown,
    /// A sum would examine more accounts than this.
    TooManyAccounts {
        /// The most that a sum may examine.
        max: u64,
    },
    /// A balance would examine more entries than this.
    TooManyEntries {
        /// The most that a balance may examine.
        max: u64,
    },
    /// The database cannot be reached or written. A read has no outcome.
    DatabaseUnavailable(Option<Outcome>),
    /// The schema does not match this program. A read has no outcome.
    SchemaNotMigrated(Option<Outcome>),
    /// The audit log is required, and no line can be written. The change was not begun.
    AuditUnavailable,
    /// The server is shutting down.
    ShuttingDown,
    /// A defect, which is logged where it occurs. A read has no outcome.
    Internal(Option<Outcome>),
}

/// Why changes cannot be applied now. The text is for the log: it can have the names of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The schema is not that of this program.
    #[error("{0}")]
    Schema(String),
    /// The database lacks a key or a guard, or may hide or lose rows.
    #[error("{0}")]
    Unsafe(String),
    /// The database cannot be reached or written.
    #[error("{0}")]
    Database(String),
}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        Self::Overloaded(exhausted)
    }
}

impl From<PermissionDenied> for Error {
    fn from(denied: PermissionDenied) -> Self {
        Self::PermissionDenied(denied)
    }
}

impl Error {
    /// The error of a read that a change needed: the change was not applied.
    pub(super) fn not_applied(self) -> Self {
        let outcome = Some(Outcome::NotApplied);
        match self {
            Self::DeadlineExceeded(_) => Self::DeadlineExceeded(outcome),
            Self::DatabaseUnavailable(_) => Self::DatabaseUnavailable(outcome),
            Self::SchemaNotMigrated(_) => Self::SchemaNotMigrated(outcome),
            Self::Internal(_) => Self::Internal(outcome),
            Self::Rejected(_)
            | Self::PermissionDenied(_)
            | Self::LockTimeout
            | Self::Contention
            | Self::Overloaded(_)
            | Self::WatcherTooSlow { .. }
            | Self::SequenceNotReached { .. }
            | Self::EventTokenUnknown
            | Self::TooManyAccounts { .. }
            | Self::TooManyEntries { .. }
            | Self::AuditUnavailable
            | Self::ShuttingDown => self,
        }
    }

    /// The error of a read. Logs the details, which the caller does not get.
    pub(super) fn from_read(error: StorageError) -> Self {
        match &error {
            StorageError::Unavailable(_)
            | StorageError::LockTimeout(_)
            | StorageError::Aborted(_)
            | StorageError::RepeatedRequest(_) => tracing::warn!(%error, "read failed"),
            StorageError::Forbidden(_) | StorageError::SchemaNotMigrated(_) => {
                tracing::error!(%error, "read failed");
            }
            StorageError::Data(_) | StorageError::Corrupt(_) => {
                tracing::error!(error = error.summary(), "read failed");
                tracing::debug!(%error, "details of the failed read");
            }
        }
        match error {
            StorageError::SchemaNotMigrated(_) => Self::SchemaNotMigrated(None),
            StorageError::Data(_) | StorageError::Corrupt(_) => Self::Internal(None),
            StorageError::Unavailable(_)
            | StorageError::LockTimeout(_)
            | StorageError::Aborted(_)
            | StorageError::RepeatedRequest(_)
            | StorageError::Forbidden(_) => Self::DatabaseUnavailable(None),
        }
    }
}
