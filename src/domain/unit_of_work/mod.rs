//! Applies commands in turn to locked accounts, in memory.
//!
//! Every attempt at a database transaction builds a [`UnitOfWork`] from rows that it has read under
//! their locks, and drops it at its end. The transaction writes what the unit of work has changed
//! after all commands, in a constant number of statements.
//!
//! One file a kind of rule: `posting` (balances), `holds`, `attributes`.

mod attributes;
#[cfg(test)]
mod attributes_tests;
mod holds;
#[cfg(test)]
mod holds_tests;
mod posting;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::domain::{
    account::{Account, AccountChange, Attributes, NewAccount},
    command::{Action, Command, Request},
    hold::Hold,
    ids::{AccountId, HoldId, RequestKey, TransactionId, is_same_attempt},
    rejection::Rejection,
    transaction::Transaction,
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
    /// Of the transactions to reverse, those reversed before, with their reversals.
    pub reversed_by: HashMap<TransactionId, TransactionId>,
    /// Of the accounts to open that exist already, those whose attributes have changed since, with
    /// the attributes that they were opened with.
    pub openings: HashMap<AccountId, Attributes>,
    /// The time by the database's clock, in microseconds since the Unix epoch.
    pub now_us: i64,
}

/// The accounts, holds and requests that a batch of commands touches, and what it changes in
/// them.
pub struct UnitOfWork {
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<HoldId, Hold>,
    records: HashMap<RequestKey, RequestRecord>,
    reversed_by: HashMap<TransactionId, TransactionId>,
    openings: HashMap<AccountId, Attributes>,
    now_us: i64,
    created: BTreeSet<AccountId>,
    changed: BTreeSet<AccountId>,
    placed: BTreeSet<HoldId>,
    ended: BTreeSet<HoldId>,
    account_changes: Vec<AccountChange>,
    new_records: Vec<NewRequestRecord>,
}

/// The permanent record of a request: repeats are answered with it.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// SHA-256 of the request's body.
    pub fingerprint: [u8; 32],
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
    /// The hold that was placed or ended, as it was right after.
    pub hold: Option<Arc<Hold>>,
}

/// A record that this batch adds.
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
    /// Of CreateAccount and UpdateAccount: the account afterwards.
    Account(Account),
    /// Of a request that moves or holds money.
    Request(RequestResult),
    /// Of a fence: the record under the request id, which is the fence itself if there was none.
    Record(RequestRecord),
}

impl UnitOfWork {
    /// Starts from the locked rows, and expires the holds whose time has passed.
    #[must_use]
    pub fn new(locked: LockedState) -> Self {
        let LockedState { accounts, holds, records, reversed_by, openings, now_us } = locked;
        let mut work = Self {
            accounts: accounts.into_iter().map(|it| (it.account_id.clone(), it)).collect(),
            holds: holds.into_iter().map(|it| (it.hold_id.clone(), it)).collect(),
            records,
            reversed_by,
            openings,
            now_us,
            created: BTreeSet::new(),
            changed: BTreeSet::new(),
            placed: BTreeSet::new(),
            ended: BTreeSet::new(),
            account_changes: Vec::new(),
            new_records: Vec::new(),
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
            Command::CreateAccount(new) => self.create_account(new).map(CommandResult::Account),
            Command::UpdateAccount(update) => {
                self.update_account(update).map(CommandResult::Account)
            }
            Command::Request(request) => self.request(request),
        }
    }

    /// The accounts that this batch opened, in order of their ids.
    pub fn created(&self) -> impl Iterator<Item = &Account> {
        self.created.iter().filter_map(|id| self.accounts.get(id))
    }

    /// The accounts that were there before and have changed, in order of their ids.
    pub fn changed(&self) -> impl Iterator<Item = &Account> {
        self.changed.difference(&self.created).filter_map(|id| self.accounts.get(id))
    }

    /// The holds that this batch placed, in order of their ids.
    pub fn placed(&self) -> impl Iterator<Item = &Hold> {
        self.placed.iter().filter_map(|id| self.holds.get(id))
    }

    /// The holds that were open before this batch and have ended in it, in order of their ids.
    pub fn ended(&self) -> impl Iterator<Item = &Hold> {
        self.ended.difference(&self.placed).filter_map(|id| self.holds.get(id))
    }

    /// The changes of accounts' attributes, in the order in which they were applied.
    #[must_use]
    pub fn account_changes(&self) -> &[AccountChange] {
        &self.account_changes
    }

    /// The records that this batch adds, in the order of its commands.
    #[must_use]
    pub fn new_records(&self) -> &[NewRequestRecord] {
        &self.new_records
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
        self.accounts.insert(account.account_id.clone(), account.clone());
        Ok(account)
    }

    fn opening(&self, account: &Account) -> Attributes {
        let found = self.openings.get(&account.account_id);
        let first = || self.account_changes.iter().find(|it| it.account_id == account.account_id);
        found
            .or_else(|| first().map(|change| &change.before))
            .cloned()
            .unwrap_or_else(|| account.attributes())
    }

    fn request(&mut self, request: &Arc<Request>) -> Result<CommandResult, Rejection> {
        let fingerprint = request.fingerprint();
        let is_fence = matches!(request.action, Action::Fence);
        if let Some(record) = self.records.get(&request.key) {
            return match is_fence {
                true => Ok(CommandResult::Record(record.clone())),
                false => replay(record, request, &fingerprint).map(CommandResult::Request),
            };
        }
        let result = match &request.action {
            Action::Post(kind, legs) => {
                let planned = self.evaluate(legs, None);
                if request.validate_only {
                    let transaction = Some(Arc::new(planned?.into_preview(request, *kind)));
                    let effects = Effects { transaction, hold: None };
                    return Ok(CommandResult::Request(RequestResult { effects, replayed: false }));
                }
                planned.map(|planned| Effects {
                    transaction: Some(Arc::new(self.post(request, *kind, planned))),
                    hold: None,
                })
            }
            Action::PlaceHold(new) => self.place_hold(request, new),
            Action::CaptureHold(capture) => self.capture_hold(request, capture),
            Action::ReleaseHold(hold) => self.release_hold(request, hold),
            Action::Reverse(transaction) => self.reverse(request, transaction),
            Action::Fence => {
                Err(Rejection::RequestFenced { request_id: request.key.request_id.clone() })
            }
        };
        let transaction = result.as_ref().ok().and_then(|effects| effects.transaction.as_ref());
        let transaction_id = transaction.and_then(|transaction| transaction.transaction_id);
        let transaction_id = transaction_id.unwrap_or(request.transaction_id);
        let create_time_us = transaction.map_or(self.now_us, |it| it.create_time_us);
        let record = RequestRecord { fingerprint, transaction_id, result };
        self.records.insert(request.key.clone(), record.clone());
        self.new_records.push(NewRequestRecord {
            request: request.clone(),
            create_time_us,
            record: record.clone(),
        });
        if is_fence {
            return Ok(CommandResult::Record(record));
        }
        let effects = record.result?;
        Ok(CommandResult::Request(RequestResult { effects, replayed: false }))
    }

    /// Changes an account: its next version, at the time of this batch.
    fn change(&mut self, account_id: &AccountId, act: impl FnOnce(&mut Account)) {
        // The account is here: its rules were checked a moment ago.
        if let Some(account) = self.accounts.get_mut(account_id) {
            act(account);
            account.version += 1;
            account.update_time_us = account.update_time_us.max(self.now_us);
            self.changed.insert(account_id.clone());
        }
    }

    fn account(&self, account_id: &AccountId) -> Result<&Account, Rejection> {
        let missing = || Rejection::AccountNotFound { account_id: account_id.clone() };
        self.accounts.get(account_id).ok_or_else(missing)
    }
}

/// Answers a repeated request with its record. Another body under the same id is rejected; so is
/// every body under a fence.
fn replay(
    record: &RequestRecord,
    request: &Request,
    fingerprint: &[u8; 32],
) -> Result<RequestResult, Rejection> {
    if let Err(fenced @ Rejection::RequestFenced { .. }) = &record.result {
        return Err(fenced.clone());
    }
    if record.fingerprint != *fingerprint {
        return Err(Rejection::RequestIdReused { request_id: request.key.request_id.clone() });
    }
    let effects = record.result.clone()?;
    // An earlier attempt at this same request, whose commit was in doubt, is no replay.
    let replayed = !is_same_attempt(record.transaction_id, request.transaction_id);
    Ok(RequestResult { effects, replayed })
}
