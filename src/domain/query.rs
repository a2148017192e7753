//! Filters and ranges of lists.

use crate::domain::{
    account::{AccountState, Labels},
    hold::HoldState,
    ids::HoldId,
    transaction::TransactionKind,
};

/// Selects accounts; all that is given must match.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    /// The code of their currency.
    pub currency_code: Option<String>,
    /// Their state.
    pub state: Option<AccountState>,
    /// Labels that they all have.
    pub labels: Labels,
}

impl AccountFilter {
    /// Whether every account matches.
    pub fn is_empty(&self) -> bool {
        self.currency_code.is_none() && self.state.is_none() && self.labels.is_empty()
    }
}

/// The direction in which a statement is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Selects entries of an account.
#[derive(Clone, Copy, Debug)]
pub struct EntryRange {
    /// Lower bound of the sequence, exclusive.
    pub after_sequence: i64,
    /// Upper bound of the sequence, exclusive.
    pub before_sequence: Option<i64>,
    /// Lower bound of the time, inclusive, in microseconds since the Unix epoch.
    pub start_time_us: Option<i64>,
    /// Upper bound of the time, exclusive.
    pub end_time_us: Option<i64>,
    /// The direction.
    pub order: Order,
}

/// Selects transactions; all that is given must match.
#[derive(Clone, Debug, Default)]
pub struct TransactionFilter {
    /// Their kind.
    pub kind: Option<TransactionKind>,
    /// Lower bound of the time, inclusive, in microseconds since the Unix epoch.
    pub start_time_us: Option<i64>,
    /// Upper bound of the time, exclusive.
    pub end_time_us: Option<i64>,
    /// Labels that they all have.
    pub labels: Labels,
}

impl TransactionFilter {
    /// Whether a page may examine many transactions to find few.
    pub fn is_selective(&self) -> bool {
        self.kind.is_some() || !self.labels.is_empty()
    }
}

/// Selects holds of an account.
#[derive(Clone, Debug)]
pub struct HoldFilter {
    /// Their state.
    pub state: Option<HoldState>,
    /// Lower bound of the id, exclusive.
    pub after: Option<HoldId>,
}
