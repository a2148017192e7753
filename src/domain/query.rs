//! Filters and ranges of lists.

use crate::domain::{
    account::{AccountState, Labels},
    effective_time::EffectivePosition,
    hold::HoldState,
    ids::{AccountId, HoldId},
    transaction::TransactionKind,
};

/// The ids of accounts from `start` on, before `end`, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRange {
    /// In the range, if it is an id.
    pub start: String,
    /// Not in the range.
    pub end: String,
}

impl AccountRange {
    /// Ids that begin with this prefix. `{` sorts behind every character of an id.
    pub fn of_prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: format!("{prefix}{{") }
    }

    /// One id. `!` sorts before every character of an id.
    pub fn of_one(account_id: &AccountId) -> Self {
        Self { start: account_id.to_string(), end: format!("{account_id}!") }
    }

    /// Whether an id is in the range.
    pub fn contains(&self, account_id: &AccountId) -> bool {
        (self.start.as_str()..self.end.as_str()).contains(&account_id.as_str())
    }

    /// The ids in both ranges. None if there are none.
    #[must_use]
    pub fn and(self, other: &Self) -> Option<Self> {
        let start = Ord::max(&self.start, &other.start).clone();
        let end = Ord::min(&self.end, &other.end).clone();
        (start < end).then_some(Self { start, end })
    }

    /// What is left of the range: the parts before and behind `other`.
    pub fn without(self, other: &Self) -> impl Iterator<Item = Self> + use<> {
        let before =
            Self { start: self.start.clone(), end: Ord::min(&self.end, &other.start).clone() };
        let behind = Self { start: Ord::max(self.start, other.end.clone()), end: self.end };
        [before, behind].into_iter().filter(|part| part.start < part.end)
    }
}

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

/// Selects entries of an account by the times at which they take effect.
#[derive(Clone, Copy, Debug)]
pub struct EffectiveRange {
    /// Lower bound, exclusive.
    pub after: EffectivePosition,
    /// Upper bound, exclusive.
    pub before: EffectivePosition,
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
