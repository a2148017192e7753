//! Checks of stored data: one account, and the ledger as a whole.

mod account;
#[cfg(test)]
mod tests;
mod totals;

pub use account::{AccountVerifier, Fault, FaultKind, StoredAccount, VerifiedAccount};
pub use totals::{CurrencyTotals, LedgerFault, LedgerTotals};
