//! Verification of the ledger: every account against its entries and holds, every entry against its
//! request, every event against its commit, and the money of each currency against its sources.
//!
//! Reads one snapshot, in bounded pages and bounded memory; entries with effective times are grouped by
//! the database, in one statement. Independent partitions of `accounts`
//! and `requests` are spread over the connections of the snapshot. Nothing is written here, and the
//! rules are the domain's.
//!
//! Requests and entries are read once each, in the order of their keys, and compared by a
//! [`Comparison`]. Only where they differ, entries are looked up one by one, which takes many times
//! longer but finds the fault.

mod account;
mod accounts;
mod attributes;
mod commits;
mod currencies;
mod effective_times;
mod error;
mod hold_requests;
mod holds;
mod limits;
mod orphans;
mod partitions;
mod progress;
mod records;
mod requests;
mod reversals;
mod rows;

use std::{
    hash::RandomState,
    sync::{Arc, atomic::Ordering},
};

use sea_orm::DatabaseTransaction;

pub use self::{error::VerifyError, progress::VerifyProgress};
use crate::{
    domain::verification::{Comparison, LedgerTotals},
    storage::Snapshot,
};

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
    let entries = accounts::entries_counted(&connections[0]).await?;
    // Each entry is read once, and each name of an entry.
    progress.expected.store(entries.saturating_mul(2), Ordering::Relaxed);
    let comparison = Arc::new(Comparison::new(RandomState::new(), entries));
    let requests = requests::verify(connections, progress, &comparison).await;
    let (accounts, others) = tokio::join!(
        accounts::verify(connections, progress, &comparison),
        verify_others(&connections[connections.len() - 1])
    );
    // A fault of an account comes before one of a request, which may be its consequence.
    let mut totals = accounts?;
    totals.add(requests?)?;
    let is_different = comparison.finish();
    let undecided = comparison.undecided();
    if undecided > 0.0 {
        progress.expected.fetch_add((entries as f64 * undecided) as u64, Ordering::Relaxed);
        totals.add(requests::look_up(connections, progress, &comparison).await?)?;
    }
    // Every named entry was found. So there is an entry that no request names, or two transactions
    // share an id.
    if is_different {
        return Err(orphans::first(&connections[0]).await?.into());
    }
    totals.unknown_openings = others?;
    totals.check()?;
    Ok(totals)
}

/// Verifies what is no entry and no request. Returns how many accounts have no attributes of their opening.
async fn verify_others(connection: &DatabaseTransaction) -> Result<u64, VerifyError> {
    orphans::verify_transaction_ids(connection).await?;
    holds::verify(connection).await?;
    hold_requests::verify(connection).await?;
    limits::verify(connection).await?;
    reversals::verify(connection).await?;
    effective_times::verify(connection).await?;
    let unknown_openings = attributes::verify(connection).await?;
    currencies::verify(connection).await?;
    commits::verify(connection).await?;
    Ok(unknown_openings)
}
