//! Why a ledger could not be verified.

use crate::{
    domain::verification::{Fault, LedgerFault},
    storage::StorageError,
};

/// Why a ledger could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The first fault that was found.
    #[error("{0}")]
    Fault(Box<LedgerFault>),
    /// The database does not answer.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<LedgerFault> for VerifyError {
    fn from(fault: LedgerFault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<Fault> for VerifyError {
    fn from(fault: Fault) -> Self {
        LedgerFault::Account(fault).into()
    }
}

impl From<StorageError> for VerifyError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Corrupt(row) => LedgerFault::Unreadable { row }.into(),
            other => Self::Storage(other),
        }
    }
}

impl From<sea_orm::DbErr> for VerifyError {
    fn from(error: sea_orm::DbErr) -> Self {
        StorageError::from(error).into()
    }
}
