//! The database: everything that knows SeaORM, SQL, or which of the two databases it is.
//!
//! Functions here that take a `&DatabaseTransaction` join their caller's transaction; only
//! [`crate::ledger`] begins and commits, through [`Writer`] and [`WriteTransaction`].
//! Entities and `DbErr` never leave this module.

mod archive;
mod connect;
mod dialect;
mod entity;
mod error;
mod queries;
mod schema;
mod snapshot;
#[cfg(test)]
mod statement_texts;
mod tables;
mod verify;
mod write;

pub use archive::{ExportError, ImportError, ImportProgress};
pub use connect::{
    budget::{Budget, CONNECTIONS_MAX_DEFAULT, CONNECTIONS_MIN, Connections},
    refusal::ConnectError,
    store::Store,
    url::{DatabaseUrl, DatabaseUrlError},
};
pub use dialect::DatabaseKind;
pub use error::{CommitError, StorageError};
pub use queries::{
    currencies::CurrencyConflict,
    holds::EXPIRED_PER_TRANSACTION_MAX,
    new_entries::WatchedAccount,
    page::{EXAMINED_MAX, Examined, Expiring},
    transactions::TransactionPage,
};
pub use schema::{SchemaStatus, schema_version};
pub use snapshot::Snapshot;
pub use verify::{VerifyError, VerifyProgress};
pub use write::transaction::{LockMode, LockedAccounts, WriteTransaction, Writer};
