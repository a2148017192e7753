//! The database: everything that knows SeaORM, SQL, or which of the two databases it is.
//!
//! Functions here that take a `&DatabaseTransaction` join their caller's transaction; only
//! [`crate::ledger`] begins and commits, through [`Writer`] and [`WriteTransaction`].
//! Entities and `DbErr` never leave this module.

mod accounts;
mod applied;
mod archive;
mod callers;
mod connect;
mod connections;
mod currencies;
mod entity;
mod entries;
mod error;
mod file;
mod history;
mod holds;
mod hosts;
mod openings;
mod pool;
mod pooler;
mod refusal;
mod requests;
mod room;
mod schema;
mod session;
mod settled;
mod snapshot;
mod turn;
mod url;
mod verify;
mod watched;
mod write;
mod writer;

pub use accounts::AccountFilter;
pub use archive::{ExportError, ImportError, ImportProgress};
pub use connect::Store;
pub use connections::{Budget, CONNECTIONS_MAX_DEFAULT, CONNECTIONS_MIN, Connections};
pub use currencies::CurrencyConflict;
pub use entries::{EntryRange, Order};
pub use error::{CommitError, StorageError};
pub use history::{TransactionFilter, TransactionPage};
pub use holds::{EXAMINED_MAX, Examined, HoldFilter, LAPSED_MAX, Lapsing};
pub use refusal::ConnectError;
pub use schema::{SchemaStatus, schema_version};
pub use snapshot::Snapshot;
pub use url::{DatabaseKind, DatabaseUrl, DatabaseUrlError};
pub use verify::{VerifiedAccount, VerifyError, VerifyProgress};
pub use watched::WatchedAccount;
pub use writer::{LockMode, LockedAccounts, WriteTransaction, Writer};
