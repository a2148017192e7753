//! Checks of stored data: one account, and the ledger as a whole.

mod account;
mod attributes;
mod captures;
mod comparison;
mod head;
mod hold_requests;
mod reversals;
#[cfg(test)]
mod tests;
mod totals;

pub use account::{AccountVerifier, Fault, FaultKind, StoredAccount, VerifiedAccount};
pub use attributes::AttributesVerifier;
pub use captures::{CapturedStep, CapturesVerifier};
pub use comparison::Comparison;
pub use head::{AccountToday, Head};
pub use hold_requests::{AppliedToHold, HoldRequest, HoldRequestsVerifier};
pub use reversals::ReversalVerifier;
pub use totals::{CurrencyTotals, LedgerFault, LedgerTotals};
