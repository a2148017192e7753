//! Accounts.

use std::collections::BTreeMap;

use crate::domain::{
    ids::{AccountId, Identity},
    money::{Amount, Currency},
};

/// The caller's own key-value pairs, sorted.
pub type Labels = BTreeMap<String, String>;

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// Everything.
    Open,
    /// Money may come in; none may go out or be held anew.
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
    /// Who opened it; empty without authentication.
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
    /// Who asks for it.
    pub created_by: Identity,
}

/// A change of what an account is: everything about it but its money.
#[derive(Clone, Debug)]
pub struct AccountUpdate {
    /// Which.
    pub account_id: AccountId,
    /// What is to become of it.
    pub change: AttributeChange,
    /// The version before the change.
    pub expected_version: Option<i64>,
    /// Why; kept in the account's history.
    pub reason: String,
    /// Who asked for it; kept in the account's history.
    pub created_by: Identity,
}

/// What is to become of an account.
#[derive(Clone, Debug)]
pub enum AttributeChange {
    /// Other labels, another overdraft.
    Update {
        /// Instead of those that it has.
        labels: Option<Labels>,
        /// Instead of the one that it has.
        overdraft_limit: Option<NewLimit>,
        /// True makes the limit zero.
        unlimited_overdraft: Option<bool>,
    },
    /// No money leaves it.
    Freeze,
    /// It works again.
    Unfreeze,
    /// It does nothing any more.
    Close,
}

/// How far below zero a balance is to be allowed to go.
#[derive(Clone, Debug)]
pub enum NewLimit {
    /// Not at all, whatever the account's currency is.
    Zero,
    /// So far: not negative; above zero, it ends an unlimited overdraft.
    Amount(Currency, Amount),
}

/// What can be changed of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it may do.
    pub state: AccountState,
    /// How far below zero the balance may go.
    pub overdraft_limit: Amount,
    /// No limit on how far below zero.
    pub unlimited_overdraft: bool,
    /// The caller's labels.
    pub labels: Labels,
}

/// A change of an account's attributes that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Which account.
    pub account_id: AccountId,
    /// Its version after the change.
    pub version: i64,
    /// Which RPC made it.
    pub kind: AccountChangeKind,
    /// As sent.
    pub reason: String,
    /// Who asked for it; empty without authentication.
    pub created_by: Identity,
    /// The account's currency: of the limits.
    pub currency: Currency,
    /// What it was before.
    pub before: Attributes,
    /// What it has been since.
    pub after: Attributes,
    /// Microseconds since the Unix epoch; never goes back.
    pub create_time_us: i64,
}

/// Which RPC changed an account.
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

impl AccountChangeKind {
    const ALL: [Self; 4] = [Self::Updated, Self::Frozen, Self::Unfrozen, Self::Closed];

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::Frozen => "frozen",
            Self::Unfrozen => "unfrozen",
            Self::Closed => "closed",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl AttributeChange {
    /// Which RPC it is.
    #[must_use]
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
    /// What can be changed of it.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        Attributes {
            state: self.state,
            overdraft_limit: self.overdraft_limit,
            unlimited_overdraft: self.unlimited_overdraft,
            labels: self.labels.clone(),
        }
    }

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
            created_by: new.created_by.clone(),
        }
    }

    /// A hold of this amount has expired at this time: one change of the account.
    pub fn expire_hold(&mut self, amount: Amount, expire_time_us: i64) {
        self.held = self.held.plus(-amount);
        self.version += 1;
        self.update_time_us = self.update_time_us.max(expire_time_us);
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

    /// Whether a request to open an account asks for exactly this one, as it was when it was opened:
    /// what has become of it since does not make a retry another request.
    #[must_use]
    pub fn was_opened_by(&self, opening: &Attributes, new: &NewAccount) -> bool {
        let overdraft_limit = self.currency.convert(&new.currency, new.overdraft_limit);
        overdraft_limit == Some(opening.overdraft_limit)
            && opening.unlimited_overdraft == new.unlimited_overdraft
            && opening.labels == new.labels
    }
}
