//! Accounts.

use std::collections::BTreeMap;

use crate::domain::{
    ids::AccountId,
    money::{Amount, Currency},
};

/// The caller's own key-value pairs, sorted.
pub type Labels = BTreeMap<String, String>;

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// Everything.
    Open,
    /// Money may come in, none may go out.
    Frozen,
    /// Nothing.
    Closed,
}

impl AccountState {
    const ALL: [Self; 3] = [Self::Open, Self::Frozen, Self::Closed];

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One account, as its row was read under its lock (or, for a read, as it was committed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Unique, never reused.
    pub account_id: AccountId,
    /// Of every amount here.
    pub currency: Currency,
    /// The sum of the entries.
    pub balance: Amount,
    /// The sum of the open holds.
    pub held: Amount,
    /// How far below zero the balance may go.
    pub overdraft_limit: Amount,
    /// No limit on how far below zero.
    pub unlimited_overdraft: bool,
    /// What it may do.
    pub state: AccountState,
    /// The number of entries.
    pub sequence: i64,
    /// The number of changes of any kind, the opening being the first.
    pub version: i64,
    /// The hash of the latest entry; zeros before the first.
    pub last_hash: [u8; 32],
    /// The caller's labels.
    pub labels: Labels,
    /// Microseconds since the Unix epoch, by the database's clock.
    pub create_time_us: i64,
    /// Microseconds since the Unix epoch; never goes back.
    pub update_time_us: i64,
}

/// The attributes of an account to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Unique, never reused.
    pub account_id: AccountId,
    /// Never changes.
    pub currency: Currency,
    /// Not negative.
    pub overdraft_limit: Amount,
    /// No limit on how far below zero.
    pub unlimited_overdraft: bool,
    /// The caller's labels.
    pub labels: Labels,
}

impl Account {
    /// Opens an account.
    #[must_use]
    pub fn open(new: &NewAccount, now_us: i64) -> Self {
        Self {
            account_id: new.account_id.clone(),
            currency: new.currency.clone(),
            balance: new.currency.zero(),
            held: new.currency.zero(),
            overdraft_limit: new.overdraft_limit,
            unlimited_overdraft: new.unlimited_overdraft,
            state: AccountState::Open,
            sequence: 0,
            version: 1,
            last_hash: [0; 32],
            labels: new.labels.clone(),
            create_time_us: now_us,
            update_time_us: now_us,
        }
    }

    /// What can be spent: balance - held + overdraft limit.
    #[must_use]
    pub fn available(&self) -> Amount {
        self.available_at(self.balance)
    }

    /// What could be spent if the balance were this.
    #[must_use]
    pub fn available_at(&self, balance: Amount) -> Amount {
        balance.plus(-self.held).plus(self.overdraft_limit)
    }

    /// Whether a request to open an account asks for exactly this one.
    #[must_use]
    pub fn has_attributes(&self, new: &NewAccount) -> bool {
        self.currency == new.currency
            && self.overdraft_limit == new.overdraft_limit
            && self.unlimited_overdraft == new.unlimited_overdraft
            && self.labels == new.labels
    }
}
