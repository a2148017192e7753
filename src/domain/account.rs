//! Accounts: balance, limits, state, and changes of attributes.

use std::collections::BTreeMap;

use crate::domain::{
    ids::{AccountId, Identity},
    money::{Amount, Currency},
};

/// The caller's own key-value pairs, sorted.
pub type Labels = BTreeMap<String, String>;

/// The length of the keys and the values, in bytes.
pub fn label_bytes(labels: &Labels) -> usize {
    labels.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// The highest sequence and version of an account. An account that changes a million times a second
/// gets there in 146,000 years. The room above it keeps additions from overflowing.
pub const COUNT_MAX: i64 = i64::MAX / 2;

/// Whether money may move in and out of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// Money moves in and out.
    Open,
    /// Money may come in. No money may leave or be put on hold.
    Frozen,
    /// No money moves, and no attribute changes.
    Closed,
}

names!(AccountState {
    Open = "open",
    Frozen = "frozen",
    Closed = "closed",
});

/// One account, as its row was read under its lock (or, for a read, as it was committed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Unique, never reused.
    pub account_id: AccountId,
    /// The number by which the database's rows name the account; 0 until the account is stored.
    pub account_key: i64,
    /// The currency of every amount here.
    pub currency: Currency,
    /// The sum of the entries.
    pub balance: Amount,
    /// The sum of the open holds.
    pub held: Amount,
    /// How far below zero the balance may go.
    pub overdraft_limit: Amount,
    /// No limit on how far below zero.
    pub unlimited_overdraft: bool,
    /// True from the forced transaction that makes `available` negative until it is negative no longer.
    pub below_limit: bool,
    /// Whether money may move.
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
    /// The caller who opened the account; anonymous without authentication.
    pub created_by: Identity,
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
    /// The caller who opens the account.
    pub created_by: Identity,
}

/// The account that is the other side of the money of a currency that comes into the ledger or leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContraAccount {
    /// The code of the currency.
    pub currency_code: String,
    /// The account.
    pub account_id: AccountId,
}

/// A change of the attributes of an account, not of its money.
#[derive(Clone, Debug)]
pub struct AccountUpdate {
    /// The account to change.
    pub account_id: AccountId,
    /// The new attributes.
    pub change: AttributeChange,
    /// The version before the change.
    pub expected_version: Option<i64>,
    /// The reason that the caller gave, kept in the account's history.
    pub reason: String,
    /// The caller, kept in the account's history.
    pub created_by: Identity,
}

/// The attributes that change.
#[derive(Clone, Debug)]
pub enum AttributeChange {
    /// New labels or a new overdraft. None: unchanged.
    Update {
        /// Replaces all labels.
        labels: Option<Labels>,
        /// Replaces the limit.
        overdraft_limit: Option<NewLimit>,
        /// True makes the limit zero.
        unlimited_overdraft: Option<bool>,
    },
    /// To [`AccountState::Frozen`].
    Freeze,
    /// To [`AccountState::Open`].
    Unfreeze,
    /// To [`AccountState::Closed`], if balance and holds are zero.
    Close,
}

/// A new overdraft limit.
#[derive(Clone, Debug)]
pub enum NewLimit {
    /// Zero, in any currency.
    Zero,
    /// Not negative. An amount above zero ends an unlimited overdraft.
    Amount(Currency, Amount),
}

/// The attributes of an account that can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Whether money may move.
    pub state: AccountState,
    /// How far below zero the balance may go.
    pub overdraft_limit: Amount,
    /// No limit on how far below zero.
    pub unlimited_overdraft: bool,
    /// The caller's labels.
    pub labels: Labels,
}

/// An applied change of attributes, as the account's history has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// The account that changed.
    pub account_id: AccountId,
    /// Its version after the change.
    pub version: i64,
    /// The RPC that changed it.
    pub kind: AccountChangeKind,
    /// The reason that the caller gave; may be empty.
    pub reason: String,
    /// The caller; anonymous without authentication.
    pub created_by: Identity,
    /// The account's currency, in which the limits are.
    pub currency: Currency,
    /// The attributes before the change.
    pub before: Attributes,
    /// The attributes after the change.
    pub after: Attributes,
    /// Microseconds since the Unix epoch; never goes back.
    pub create_time_us: i64,
}

/// The RPC that changed an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChangeKind {
    /// UpdateAccount.
    Updated,
    /// FreezeAccount.
    Frozen,
    /// UnfreezeAccount.
    Unfrozen,
    /// CloseAccount.
    Closed,
}

names!(AccountChangeKind {
    Updated = "updated",
    Frozen = "frozen",
    Unfrozen = "unfrozen",
    Closed = "closed",
});

impl AttributeChange {
    /// The RPC of this change.
    pub fn kind(&self) -> AccountChangeKind {
        match self {
            Self::Update { .. } => AccountChangeKind::Updated,
            Self::Freeze => AccountChangeKind::Frozen,
            Self::Unfreeze => AccountChangeKind::Unfrozen,
            Self::Close => AccountChangeKind::Closed,
        }
    }
}

impl Account {
    /// The attributes, as they are now.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            state: self.state,
            overdraft_limit: self.overdraft_limit,
            unlimited_overdraft: self.unlimited_overdraft,
            labels: self.labels.clone(),
        }
    }

    /// Opens an account.
    pub fn open(new: &NewAccount, now_us: i64) -> Self {
        Self {
            account_id: new.account_id.clone(),
            account_key: 0,
            currency: new.currency.clone(),
            balance: new.currency.zero(),
            held: new.currency.zero(),
            overdraft_limit: new.overdraft_limit,
            unlimited_overdraft: new.unlimited_overdraft,
            below_limit: false,
            state: AccountState::Open,
            sequence: 0,
            version: 1,
            last_hash: [0; 32],
            labels: new.labels.clone(),
            create_time_us: now_us,
            update_time_us: now_us,
            created_by: new.created_by.clone(),
        }
    }

    /// Expires so many holds, of this amount in all, the last of them at this time. Each is one change of the
    /// account.
    pub fn expire_holds(&mut self, holds: i64, amount: Amount, expire_time_us: i64) {
        self.held = self.held.plus(-amount);
        self.version += holds;
        self.update_time_us = self.update_time_us.max(expire_time_us);
    }

    /// The amount that can be spent: balance - held + overdraft limit.
    pub fn available(&self) -> Amount {
        self.balance.plus(-self.held).plus(self.overdraft_limit)
    }

    /// Whether more was taken, or is held, than the account may spend.
    pub fn is_overspent(&self) -> bool {
        !self.unlimited_overdraft && self.available().is_negative()
    }

    /// Marks the account after a change as below its limit or not. Only a forced change can take it below.
    /// Returns whether the mark has changed.
    pub(super) fn mark_limit(&mut self, is_forced: bool) -> bool {
        let before = self.below_limit;
        self.below_limit = (before || is_forced) && self.is_overspent();
        self.below_limit != before
    }

    /// Whether `new` has the attributes with which this account was opened. Later changes do not matter: a
    /// repeated CreateAccount is the same request, whatever has changed since.
    pub fn was_opened_by(&self, opening: &Attributes, new: &NewAccount) -> bool {
        let overdraft_limit = self.currency.convert(&new.currency, new.overdraft_limit);
        overdraft_limit == Some(opening.overdraft_limit)
            && opening.unlimited_overdraft == new.unlimited_overdraft
            && opening.labels == new.labels
    }
}
