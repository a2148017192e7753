//! Whether the books are right: every account against its entries and holds, every entry against
//! the request that made it, and the money of each currency against where it came from.
//!
//! Reads one snapshot, in bounded pages and constant memory. The work is cut into partitions that
//! stand alone (`accounts`, `requests`), and each connection of the snapshot takes the next one.

mod account;
mod accounts;
mod error;
mod holds;
mod orphans;
mod partitions;
mod progress;
mod requests;
mod rows;

use std::sync::{Arc, atomic::Ordering};

use sea_orm::DatabaseTransaction;

pub use self::{error::VerifyError, progress::VerifyProgress};
use crate::{domain::verification::LedgerTotals, storage::Snapshot};

impl Snapshot {
    /// Recomputes all of it.
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
    let mut totals = accounts::verify(connections, progress).await?;
    totals.add(requests::verify(connections, progress).await?)?;
    // Every name was found, and no two transactions have one id: so either all entries have been
    // named, each once, or there are others.
    if totals.entries_named() != totals.entries {
        return Err(orphans::first(&connections[0]).await?.into());
    }
    holds::verify(&connections[0]).await?;
    totals.check()?;
    Ok(totals)
}
