//! Verification of the ledger: every account against its entries and holds, every entry against its
//! request, and the money of each currency against its sources.
//!
//! Reads one snapshot, in bounded pages and constant memory. Independent partitions of `accounts`
//! and `requests` are spread over the connections of the snapshot. Nothing is written here, and the
//! rules are the domain's.

mod account;
mod accounts;
mod attributes;
mod error;
mod holds;
mod orphans;
mod partitions;
mod progress;
mod records;
mod requests;
mod rows;

use std::sync::{Arc, atomic::Ordering};

use sea_orm::DatabaseTransaction;

pub use self::{error::VerifyError, progress::VerifyProgress};
use crate::{domain::verification::LedgerTotals, storage::Snapshot};

impl Snapshot {
    /// Verifies the whole ledger. The error is the first fault.
    pub async fn verify(
        &self,
        progress: &Arc<VerifyProgress>,
    ) -> Result<LedgerTotals, VerifyError> {
        verify(self.connections(), progress).await
    }
}

/// Verifies the ledger on these connections (at least one), which share a snapshot.
pub async fn verify(
    connections: &[Arc<DatabaseTransaction>],
    progress: &Arc<VerifyProgress>,
) -> Result<LedgerTotals, VerifyError> {
    let counted = accounts::entries_counted(&connections[0]).await?;
    progress.entries.store(counted, Ordering::Relaxed);
    let mut totals = accounts::verify(connections, progress).await?;
    totals.add(requests::verify(connections, progress).await?)?;
    // Every named entry was found, and no two transactions share an id: if the counts differ, there
    // are entries that no request names.
    if totals.entries_named() != totals.entries {
        return Err(orphans::first(&connections[0]).await?.into());
    }
    holds::verify(&connections[0]).await?;
    records::verify_holds(&connections[0]).await?;
    attributes::verify(&connections[0]).await?;
    totals.check()?;
    Ok(totals)
}
