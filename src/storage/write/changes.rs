//! The changes of one unit of work, sorted by what is written of them, and their JSON.

use std::collections::HashMap;

use sea_orm::QueryResult;
use serde_json::json;

use crate::{
    domain::{
        account::{Account, AccountChange, Attributes, Labels},
        hold::Hold,
        ids::{AccountId, RequestKey, TransactionId},
        transaction::Entry,
        unit_of_work::{Effects, NewRequestRecord, UnitOfWork},
    },
    storage::{
        StorageError,
        entity::{
            account_changes::StoredAttributes, accounts::StoredOpening, commits::columns_of,
            details::StoredDetails, holds::StoredTerms, requests::entry_keys_text,
        },
    },
};

/// The keys of accounts.
pub type AccountKeys = HashMap<AccountId, i64>;

/// A new account, as it is after the batch, and its attributes at its opening.
pub struct OpenedAccount {
    pub account: Account,
    pub opening: Attributes,
}

impl AsRef<Account> for OpenedAccount {
    fn as_ref(&self) -> &Account {
        &self.account
    }
}

impl AsRef<Account> for Account {
    fn as_ref(&self) -> &Account {
        self
    }
}

/// A new entry, and the key of its account.
pub struct NewEntry {
    pub account_key: i64,
    pub entry: Entry,
}

/// A new record of a request, and the keys of its entries.
pub struct NewRequest {
    pub new: NewRequestRecord,
    pub entry_keys: String,
}

/// A hold, and the key of its account.
pub struct HoldOfAccount {
    pub account_key: i64,
    pub hold: Hold,
}

/// What a unit of work has done, in order.
pub struct NewCommit {
    pub create_time_us: i64,
    pub transaction_ids: Vec<u8>,
    pub other_events: Option<String>,
}

/// The changes of a unit of work, without its new accounts.
pub struct Changes<'a> {
    /// Accounts of which only the columns of a balance have changed, in order of their ids.
    pub balance_updates: Vec<&'a Account>,
    /// Accounts of which any column may have changed, in order of their ids.
    pub account_updates: Vec<&'a Account>,
    pub account_changes: Vec<&'a AccountChange>,
    /// At most one.
    pub new_commits: Vec<NewCommit>,
    /// In order of their keys.
    pub new_requests: Vec<NewRequest>,
    pub new_entries: Vec<NewEntry>,
    /// In order of their ids.
    pub new_holds: Vec<HoldOfAccount>,
    /// In order of their ids.
    pub changed_holds: Vec<HoldOfAccount>,
}

impl<'a> Changes<'a> {
    /// Sorts the changes. `new_accounts` has the keys of the accounts that the work has opened.
    pub fn of(work: &'a UnitOfWork, new_accounts: &'a AccountKeys) -> Result<Self, StorageError> {
        let stored = work.accounts().map(|account| (&account.account_id, account.account_key));
        let mut account_keys: HashMap<&AccountId, i64> = stored.collect();
        account_keys.extend(new_accounts.iter().map(|(account_id, key)| (account_id, *key)));
        let key_of = |account_id: &AccountId| {
            let missing = || StorageError::Corrupt(format!("account {account_id} has no key"));
            account_keys.get(account_id).copied().ok_or_else(missing)
        };
        let of_account = |hold: &Hold| {
            Ok(HoldOfAccount { account_key: key_of(&hold.account_id)?, hold: hold.clone() })
        };
        let mut new_requests = Vec::with_capacity(work.new_records().len());
        let mut new_entries = Vec::with_capacity(work.new_records().len());
        for new in work.new_records() {
            let first = new_entries.len();
            for entry in entries(new) {
                let account_key = key_of(&entry.account_id)?;
                new_entries.push(NewEntry { account_key, entry: entry.clone() });
            }
            let keys = new_entries[first..].iter().map(|it| (it.account_key, it.entry.sequence));
            new_requests.push(NewRequest { entry_keys: entry_keys_text(keys), new: new.clone() });
        }
        new_requests.sort_by(|left, right| left.key().cmp(right.key()));
        let account_changes: Vec<_> = work.account_changes().iter().collect();
        let has_change =
            |it: &&Account| account_changes.iter().any(|change| change.account_id == it.account_id);
        let (account_updates, balance_updates) =
            work.changed().partition(|it| has_change(it) || work.is_marked(&it.account_id));
        let (transaction_ids, other_events) = columns_of(work.events());
        let create_time_us = work.now_us();
        let new_commit = NewCommit { create_time_us, transaction_ids, other_events };
        Ok(Self {
            balance_updates,
            account_updates,
            new_requests,
            new_entries,
            new_holds: work.placed().map(of_account).collect::<Result<_, StorageError>>()?,
            changed_holds: work
                .changed_holds()
                .map(of_account)
                .collect::<Result<_, StorageError>>()?,
            account_changes,
            new_commits: (!work.events().is_empty()).then_some(new_commit).into_iter().collect(),
        })
    }
}

impl NewRequest {
    /// Whether the request was applied.
    pub fn is_applied(&self) -> bool {
        self.new.record.result.is_ok()
    }

    fn key(&self) -> &RequestKey {
        &self.new.request.key
    }
}

fn entries(new: &NewRequestRecord) -> &[Entry] {
    let transaction = effects(new).and_then(|effects| effects.transaction.as_ref());
    transaction.map_or(&[], |transaction| &transaction.entries)
}

fn effects(new: &NewRequestRecord) -> Option<&Effects> {
    new.record.result.as_ref().ok()
}

/// The rejection as it is stored; None if the request was applied.
pub fn rejection_json(new: &NewRequestRecord) -> Option<String> {
    let rejection = new.record.result.as_ref().err()?;
    Some(json!(rejection).to_string())
}

/// The id of the hold that the request placed, changed or ended.
pub fn hold_id(new: &NewRequestRecord) -> Option<String> {
    effects(new)?.hold.as_ref().map(|hold| hold.hold_id.to_string())
}

/// The id of the transaction that the request reversed.
pub fn reverses(new: &NewRequestRecord) -> Option<TransactionId> {
    effects(new)?.transaction.as_ref()?.reverses.map(|(reversed, _)| reversed)
}

/// What only few requests have, as it is stored; None if the request has nothing of it.
pub fn details_json(new: &NewRequestRecord) -> Option<String> {
    let details = StoredDetails::of(new);
    (details != StoredDetails::default()).then(|| json!(details).to_string())
}

/// The attributes of an account as they are stored.
pub fn attributes_json(attributes: &Attributes) -> String {
    json!(StoredAttributes::from(attributes)).to_string()
}

/// The attributes of an account at its opening as they are stored.
pub fn opening_json(opening: &Attributes) -> String {
    json!(StoredOpening::from(opening)).to_string()
}

/// How a hold was placed, as it is stored; None if that has not changed.
pub fn placed_json(hold: &Hold) -> Option<String> {
    hold.placed.map(|placed| json!(StoredTerms::from(placed)).to_string())
}

/// Labels as they are stored.
pub fn labels_json(labels: &Labels) -> String {
    // The usual case of every change.
    if labels.is_empty() { "{}".to_owned() } else { json!(labels).to_string() }
}

/// The keys in the rows of an INSERT of accounts.
pub fn account_keys(rows: &[QueryResult]) -> Result<AccountKeys, StorageError> {
    let key = |row: &QueryResult| {
        let account_id: String = row.try_get("", "account_id")?;
        Ok((AccountId::from_stored(&account_id), row.try_get("", "account_key")?))
    };
    rows.iter().map(key).collect()
}

/// Fewer rows were written than sent if another transaction has committed a key since its look-up.
pub fn expect_all(what: &str, written: u64, expected: usize) -> Result<(), StorageError> {
    if written == expected as u64 {
        return Ok(());
    }
    Err(StorageError::Aborted(format!(
        "{written} of {expected} rows written: another transaction has taken the {what}"
    )))
}
