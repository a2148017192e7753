//! The database: everything that knows SeaORM, SQL, or which of the two databases it is.
//!
//! Functions here that take a `&DatabaseTransaction` join their caller's transaction; only
//! [`crate::ledger`] begins and commits, through [`Writer`] and [`WriteTransaction`].
//! Entities and `DbErr` never leave this module.

mod accounts;
mod connect;
mod currencies;
mod entity;
mod entries;
mod error;
mod requests;
mod schema;
mod watched;
mod write;
mod writer;

pub use accounts::AccountFilter;
pub use connect::{DatabaseKind, DatabaseUrl, DatabaseUrlError, Store};
pub use currencies::CurrencyConflict;
pub use entries::{EntryRange, Order};
pub use error::{CommitError, StorageError};
pub use schema::{SchemaStatus, schema_version};
pub use watched::WatchedAccount;
pub use writer::{LockWait, Locked, WriteTransaction, Writer};
