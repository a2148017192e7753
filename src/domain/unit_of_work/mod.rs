//! Applies commands in turn to locked accounts, in memory.
//!
//! Every attempt at a database transaction builds a [`UnitOfWork`] from rows that it has read under
//! their locks, and drops it at its end. The transaction writes what the unit of work has changed
//! after all commands, in a constant number of statements.
//!
//! One file a kind of rule: `requests` (what needs no account), `posting` (balances), `reversals`,
//! `holds`, `attributes`.

mod attributes;
#[cfg(test)]
mod attributes_tests;
#[cfg(test)]
mod balancing_tests;
#[cfg(test)]
mod force_tests;
mod holds;
#[cfg(test)]
mod holds_tests;
mod posting;
mod requests;
mod reversals;
#[cfg(test)]
mod reversals_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::domain::{
    account::{Account, AccountChange, Attributes, NewAccount},
    command::{Command, Request},
    fingerprint::FINGERPRINT_LENGTH,
    hold::Hold,
    ids::{AccountId, HoldId, RequestKey, TransactionId},
    rejection::Rejection,
    transaction::{Reversed, Transaction},
};

/// What a database transaction has read under its locks.
#[derive(Default)]
pub struct LockedState {
    /// The accounts that are locked.
    pub accounts: Vec<Account>,
    /// The holds that the commands name, and all that have expired on those accounts.
    pub holds: Vec<Hold>,
    /// The records that exist under the commands' request ids.
    pub records: HashMap<RequestKey, RequestRecord>,
    /// Of the transactions to reverse, those that exist.
    pub transactions: HashSet<TransactionId>,
    /// Of the transactions to reverse, those reversed before, with their latest reversals.
    pub reversed_by: HashMap<TransactionId, (TransactionId, Reversed)>,
    /// Of the accounts to open that exist already, those whose attributes have changed since, with
    /// the attributes that they were opened with.
    pub openings: HashMap<AccountId, Attributes>,
    /// The time by the database's clock, in microseconds since the Unix epoch.
    pub now_us: i64,
}

/// The accounts, holds and requests that a batch of commands touches, and what it changes in
/// them.
#[derive(Default)]
pub struct UnitOfWork {
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<HoldId, Hold>,
    records: HashMap<RequestKey, RequestRecord>,
    transactions: HashSet<TransactionId>,
    reversed_by: HashMap<TransactionId, (TransactionId, Reversed)>,
    openings: HashMap<AccountId, Attributes>,
    now_us: i64,
    created: BTreeSet<AccountId>,
    changed: BTreeSet<AccountId>,
    marked: BTreeSet<AccountId>,
    placed: BTreeSet<HoldId>,
    changed_holds: BTreeSet<HoldId>,
    account_changes: Vec<AccountChange>,
    new_records: Vec<NewRequestRecord>,
    events: Vec<EventKey>,
}

/// The permanent record of a request: repeats are answered with it.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// See [`Request::fingerprint`].
    pub fingerprint: [u8; FINGERPRINT_LENGTH],
    /// The id that the request was given on arrival; it names the transaction if there is one.
    pub transaction_id: TransactionId,
    /// What the request changed, or why it was rejected.
    pub result: Result<Effects, Rejection>,
}

/// What a request changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The transaction, if balances changed.
    pub transaction: Option<Arc<Transaction>>,
    /// The hold that was placed, changed or ended, as it was right after.
    pub hold: Option<Arc<Hold>>,
}

/// The name of an event: the key of the row that has its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKey {
    /// A request was applied; the id that it was given on arrival.
    Request(TransactionId),
    /// This hold expired.
    HoldExpired(HoldId),
    /// This account was opened.
    AccountOpened(AccountId),
    /// The attributes of this account changed; its version after the change.
    AccountChanged(AccountId, i64),
}

/// A record that this batch adds.
#[derive(Clone)]
pub struct NewRequestRecord {
    /// The request as it came in.
    pub request: Arc<Request>,
    /// Microseconds since the Unix epoch.
    pub create_time_us: i64,
    /// The record to store.
    pub record: RequestRecord,
}

/// What a request changed, now or when it was sent before.
#[derive(Clone, Debug)]
pub struct RequestResult {
    /// The transaction, the hold, or both.
    pub effects: Effects,
    /// The request had been applied before, under the same request id.
    pub replayed: bool,
}

/// The result of one command.
#[derive(Clone, Debug)]
pub enum CommandResult {
    /// Of a command for an account.
    Account {
        /// The account afterwards.
        account: Account,
        /// Whether the command opened or changed it.
        has_changed: bool,
    },
    /// Of a request that moves or holds money.
    Request(RequestResult),
    /// Of a fence: the record under the request id, which is the fence itself if there was none.
    Record(RequestRecord),
}

impl UnitOfWork {
    /// Starts from the locked rows, and expires the holds whose time has passed.
    pub fn new(locked: LockedState) -> Self {
        let LockedState { accounts, holds, records, transactions, reversed_by, openings, now_us } =
            locked;
        let mut work = Self {
            accounts: accounts.into_iter().map(|it| (it.account_id.clone(), it)).collect(),
            holds: holds.into_iter().map(|it| (it.hold_id.clone(), it)).collect(),
            records,
            transactions,
            reversed_by,
            openings,
            now_us,
            ..Self::default()
        };
        work.expire_holds();
        work
    }

    /// Applies one command to what the commands before it left.
    ///
    /// # Errors
    /// The rejection; nothing was changed.
    pub fn apply(&mut self, command: &Command) -> Result<CommandResult, Rejection> {
        match command {
            Command::CreateAccount(new) => {
                let has_changed = !self.accounts.contains_key(&new.account_id);
                self.create_account(new)
                    .map(|account| CommandResult::Account { account, has_changed })
            }
            Command::UpdateAccount(update) => {
                let before = self.account_changes.len();
                let account = self.update_account(update)?;
                let has_changed = self.account_changes.len() > before;
                Ok(CommandResult::Account { account, has_changed })
            }
            Command::Request(request) => self.request(request),
            Command::ExpireHolds(account_id) => {
                let account = self.account(account_id)?.clone();
                Ok(CommandResult::Account { account, has_changed: false })
            }
        }
    }

    /// The version of this account after the commands so far, if it exists.
    pub fn version(&self, account_id: &AccountId) -> Option<i64> {
        self.accounts.get(account_id).map(|account| account.version)
    }

    /// All accounts, in order of their ids.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// The accounts that this batch opened, in order of their ids.
    pub fn created(&self) -> impl Iterator<Item = &Account> {
        self.created.iter().filter_map(|id| self.accounts.get(id))
    }

    /// The accounts that were there before and have changed, in order of their ids.
    pub fn changed(&self) -> impl Iterator<Item = &Account> {
        self.changed.difference(&self.created).filter_map(|id| self.accounts.get(id))
    }

    /// Whether the account's mark, that it is below its limit, has changed.
    pub fn is_marked(&self, account_id: &AccountId) -> bool {
        self.marked.contains(account_id)
    }

    /// The holds that this batch placed, in order of their ids.
    pub fn placed(&self) -> impl Iterator<Item = &Hold> {
        self.placed.iter().filter_map(|id| self.holds.get(id))
    }

    /// The holds that were open before this batch and have changed or ended in it, in order of their
    /// ids.
    pub fn changed_holds(&self) -> impl Iterator<Item = &Hold> {
        self.changed_holds.difference(&self.placed).filter_map(|id| self.holds.get(id))
    }

    /// The changes of accounts' attributes, in the order in which they were applied.
    pub fn account_changes(&self) -> &[AccountChange] {
        &self.account_changes
    }

    /// The records that this batch adds, in the order of its commands.
    pub fn new_records(&self) -> &[NewRequestRecord] {
        &self.new_records
    }

    /// What happened in this batch, in order.
    pub fn events(&self) -> &[EventKey] {
        &self.events
    }

    /// The time of this batch, in microseconds since the Unix epoch.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    fn create_account(&mut self, new: &NewAccount) -> Result<Account, Rejection> {
        if let Some(account) = self.accounts.get(&new.account_id) {
            return if account.was_opened_by(&self.opening(account), new) {
                Ok(account.clone())
            } else {
                Err(Rejection::AccountExists { account_id: new.account_id.clone() })
            };
        }
        let account = Account::open(new, self.now_us);
        self.created.insert(account.account_id.clone());
        self.events.push(EventKey::AccountOpened(account.account_id.clone()));
        self.accounts.insert(account.account_id.clone(), account.clone());
        Ok(account)
    }

    /// The attributes of an account at its opening.
    pub fn opening(&self, account: &Account) -> Attributes {
        let found = self.openings.get(&account.account_id);
        let first = || self.account_changes.iter().find(|it| it.account_id == account.account_id);
        found
            .or_else(|| first().map(|change| &change.before))
            .cloned()
            .unwrap_or_else(|| account.attributes())
    }

    /// Changes an account: its next version, at the time of this batch.
    fn change(&mut self, account_id: &AccountId, act: impl FnOnce(&mut Account)) {
        // The account is here: its rules were checked a moment ago.
        if let Some(account) = self.accounts.get_mut(account_id) {
            act(account);
            account.version += 1;
            account.update_time_us = account.update_time_us.max(self.now_us);
            self.changed.insert(account_id.clone());
            mark_limit(account, false, &mut self.marked);
        }
    }

    fn account(&self, account_id: &AccountId) -> Result<&Account, Rejection> {
        let missing = || Rejection::AccountNotFound { account_id: account_id.clone() };
        self.accounts.get(account_id).ok_or_else(missing)
    }
}

/// Marks an account after a change as below its limit or not, and remembers that the mark has changed.
fn mark_limit(account: &mut Account, is_forced: bool, marked: &mut BTreeSet<AccountId>) {
    if account.mark_limit(is_forced) {
        marked.insert(account.account_id.clone());
    }
}
