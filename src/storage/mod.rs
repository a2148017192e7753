//! The database: all that knows SeaORM, SQL, or the difference between the two databases.
//!
//! * `connect/`: URL, hosts, pools, sessions. `schema/`: migrations. `error`: by SQLSTATE.
//! * `tables`, `dialect`: what statements are built from. `entity/`: rows and domain types.
//! * `queries/`: what is read, a file a noun. `write/`: the transaction that changes anything.
//! * `snapshot`, `archive/`, `commit_pages`, `heads`, `verify/`: the whole ledger as of one instant.
//!
//! A function that takes a `&DatabaseTransaction` joins its caller's transaction; only
//! [`crate::ledger`] begins and commits, through [`Writer`] and [`WriteTransaction`]. Entities and
//! `DbErr` never leave this module. It imports nothing but the domain and the migrations.

mod archive;
mod commit_pages;
mod connect;
mod dialect;
mod entity;
mod error;
mod heads;
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
    connect_error::ConnectError,
    connection_counts::{
        CONNECTIONS_MAX_DEFAULT, CONNECTIONS_MIN, ConnectionCounts, OpenConnections,
    },
    store::Store,
    url::{DatabaseUrl, DatabaseUrlError},
};
pub use dialect::DatabaseKind;
pub use error::{CommitError, StorageError};
pub use heads::HEADS_PAGE;
pub use queries::{
    accounts::{LockMode, LockedAccounts},
    currencies::CurrencyConflict,
    effective_times::EXAMINED_FOR_BALANCE_MAX,
    events::{EventPage, NewCommits},
    new_entries::WatchedAccount,
    page::{EXAMINED_MAX, Examined, Expiring},
};
pub use schema::{SchemaStatus, migration_names, schema_version};
pub use snapshot::Snapshot;
pub use verify::{VerifyError, VerifyProgress};
pub use write::transaction::{WriteTransaction, Writer};
