//! Why a caller gets no transaction.

use std::time::Duration;

use crate::{
    domain::{authorization::PermissionDenied, rejection::Rejection},
    storage::StorageError,
};

/// What became of a change that got no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not made, and this attempt never will be.
    NotApplied,
    /// It may have been made; its request id tells.
    Unknown,
}

/// Why a caller gets no answer but an error. Only [`Error::Rejected`] is a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Refused, by state.
    Rejected(Rejection),
    /// The caller may not ask for this; nothing was done.
    PermissionDenied(PermissionDenied),
    /// Someone else held a row lock for as long as the caller could wait.
    LockTimeout,
    /// The database broke off the transaction again and again.
    Contention,
    /// The caller's deadline passed; a read has no outcome.
    DeadlineExceeded(Option<Outcome>),
    /// As many commands as are allowed wait already.
    Overloaded {
        /// How many that is.
        limit: usize,
    },
    /// As many watch already as may.
    TooManyWatchers {
        /// How many that is.
        limit: usize,
    },
    /// A message to someone who watches was not taken for too long.
    WatcherTooSlow {
        /// How long that is.
        limit: Duration,
    },
    /// Someone wants to watch from an entry on that the account does not have.
    SequenceNotReached {
        /// The account's latest one.
        sequence: i64,
    },
    /// The database cannot be reached or written; a read has no outcome.
    DatabaseUnavailable(Option<Outcome>),
    /// The schema is not this program's; a read has no outcome.
    SchemaNotMigrated(Option<Outcome>),
    /// The server is about to stop.
    ShuttingDown,
    /// A defect, logged where it was met; a read has no outcome.
    Internal(Option<Outcome>),
}

impl From<PermissionDenied> for Error {
    fn from(denied: PermissionDenied) -> Self {
        Self::PermissionDenied(denied)
    }
}

impl Error {
    /// What a failed read means to the caller of a change that was not begun for it.
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
            | Self::Overloaded { .. }
            | Self::TooManyWatchers { .. }
            | Self::WatcherTooSlow { .. }
            | Self::SequenceNotReached { .. }
            | Self::ShuttingDown => self,
        }
    }

    /// What a failed read means to its caller; the details are logged here.
    pub(super) fn from_read(error: StorageError) -> Self {
        match &error {
            StorageError::Unavailable(_)
            | StorageError::LockTimeout(_)
            | StorageError::Aborted(_)
            | StorageError::RepeatedRequest(_) => {
                tracing::warn!(%error, "read failed");
                Self::DatabaseUnavailable(None)
            }
            StorageError::Forbidden(_) => {
                tracing::error!(%error, "read failed");
                Self::DatabaseUnavailable(None)
            }
            StorageError::SchemaNotMigrated(_) => {
                tracing::error!(%error, "read failed");
                Self::SchemaNotMigrated(None)
            }
            StorageError::Data(_) | StorageError::Corrupt(_) => {
                tracing::error!(error = error.summary(), "read failed");
                tracing::debug!(%error, "what could not be read");
                Self::Internal(None)
            }
        }
    }
}
