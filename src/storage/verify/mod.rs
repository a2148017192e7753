//! Whether the books are right: every account against its entries and holds, every entry against
//! the request that made it, and the money of each currency against where it came from.
//!
//! Reads one snapshot, in bounded pages and constant memory. The work is cut into pieces that
//! stand alone (`accounts`, `requests`), and each connection of the snapshot takes the next one.

mod account;
mod accounts;
mod holds;
mod orphans;
mod partitions;
mod requests;
mod rows;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sea_orm::{DatabaseTransaction, DbBackend};

pub use self::account::VerifiedAccount;
use crate::{
    domain::verification::{Fault, LedgerFault, LedgerTotals},
    storage::{Snapshot, StorageError},
};

/// Above every id in the order of bytes: the last character of Unicode.
const LAST: &str = "\u{10ffff}";

/// How far a verification is.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// Entries that the accounts' rows count. Each is looked at twice.
    pub entries: AtomicU64,
    /// Entries that were looked at: along their accounts, and by the names that requests have
    /// for them.
    pub looked_at: AtomicU64,
}

/// Why the books are not found to be right.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// They are not.
    #[error("{0}")]
    Fault(Box<LedgerFault>),
    /// The database does not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
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

impl From<sea_orm::DbErr> for VerifyError {
    fn from(error: sea_orm::DbErr) -> Self {
        StorageError::from(error).into()
    }
}

impl Snapshot {
    /// Recomputes all of it.
    ///
    /// # Errors
    /// The first thing that is wrong, or the database does not answer.
    pub async fn verify(
        &self,
        progress: &Arc<VerifyProgress>,
    ) -> Result<LedgerTotals, VerifyError> {
        verify(self.connections(), progress).await
    }
}

/// Recomputes all that these connections, of which there is at least one, see alike.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
) -> Result<LedgerTotals, VerifyError> {
    let counted = accounts::entries_counted(&connections[0]).await?;
    progress.entries.store(counted, Ordering::Relaxed);
    let mut books = accounts::verify(connections, progress).await?;
    books.add(requests::verify(connections, progress).await?)?;
    // Every name was found, and no two transactions have one id: so either all entries have been
    // named, each once, or there are others.
    if books.entries_named() != books.entries {
        return Err(orphans::first(&connections[0]).await?.into());
    }
    holds::verify(&connections[0]).await?;
    books.check()?;
    Ok(books)
}

/// The placeholder of a statement's n-th value.
fn parameter(backend: DbBackend, number: usize) -> String {
    match backend {
        DbBackend::Sqlite => format!("?{number}"),
        _ => format!("${number}"),
    }
}

/// A statement with its placeholders written as `{1}`, `{2}`.
fn sql(backend: DbBackend, template: &str) -> String {
    (1..=4).fold(template.to_owned(), |sql, number| {
        sql.replace(&format!("{{{number}}}"), &parameter(backend, number))
    })
}
