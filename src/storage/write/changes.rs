//! The changes of one unit of work, sorted by what is written of them, and their JSON.

use serde_json::json;

use crate::{
    domain::{
        account::{Account, AccountChange, Attributes, Labels},
        hold::Hold,
        ids::TransactionId,
        transaction::Entry,
        unit_of_work::{Effects, NewRequestRecord, UnitOfWork},
    },
    storage::{StorageError, entity::account_changes::StoredAttributes},
};

/// The changes of a unit of work.
pub struct Changes<'a> {
    /// In order of their ids.
    pub new_accounts: Vec<&'a Account>,
    /// Accounts of which only the columns of a balance have changed, in order of their ids.
    pub balance_updates: Vec<&'a Account>,
    /// Accounts of which any column may have changed, in order of their ids.
    pub account_updates: Vec<&'a Account>,
    pub account_changes: Vec<&'a AccountChange>,
    /// In order of their keys.
    pub new_requests: Vec<&'a NewRequestRecord>,
    pub new_entries: Vec<&'a Entry>,
    /// In order of their ids.
    pub new_holds: Vec<&'a Hold>,
    /// In order of their ids.
    pub closed_holds: Vec<&'a Hold>,
}

impl<'a> Changes<'a> {
    /// Sorts the changes.
    pub fn of(work: &'a UnitOfWork) -> Self {
        let mut new_requests: Vec<_> = work.new_records().iter().collect();
        new_requests.sort_by(|left, right| left.request.key.cmp(&right.request.key));
        let transactions =
            work.new_records().iter().filter_map(|new| effects(new)?.transaction.as_ref());
        let account_changes: Vec<_> = work.account_changes().iter().collect();
        let has_change =
            |it: &&Account| account_changes.iter().any(|change| change.account_id == it.account_id);
        let (account_updates, balance_updates) = work.changed().partition(has_change);
        Self {
            new_accounts: work.created().collect(),
            balance_updates,
            account_updates,
            new_requests,
            new_entries: transactions.flat_map(|transaction| &transaction.entries).collect(),
            new_holds: work.placed().collect(),
            closed_holds: work.ended().collect(),
            account_changes,
        }
    }
}

fn effects(new: &NewRequestRecord) -> Option<&Effects> {
    new.record.result.as_ref().ok()
}

/// The rejection as it is stored; None if the request was applied.
pub fn rejection_json(new: &NewRequestRecord) -> Option<String> {
    let rejection = new.record.result.as_ref().err()?;
    Some(json!(rejection).to_string())
}

/// The names of the request's entries as they are stored.
pub fn entry_names_json(new: &NewRequestRecord) -> String {
    let transaction = effects(new).and_then(|effects| effects.transaction.as_ref());
    let entries = transaction.map_or(&[][..], |transaction| &transaction.entries);
    let names = entries.iter().map(|it| (&it.account_id, it.sequence));
    json!(names.collect::<Vec<_>>()).to_string()
}

/// The id of the hold that the request placed or closed.
pub fn hold_id(new: &NewRequestRecord) -> Option<String> {
    effects(new)?.hold.as_ref().map(|hold| hold.hold_id.to_string())
}

/// The id of the transaction that the request reversed.
pub fn reverses(new: &NewRequestRecord) -> Option<TransactionId> {
    effects(new)?.transaction.as_ref()?.reverses_transaction_id
}

/// The attributes of an account as they are stored.
pub fn attributes_json(attributes: &Attributes) -> String {
    json!(StoredAttributes::from(attributes)).to_string()
}

/// Labels as they are stored.
pub fn labels_json(labels: &Labels) -> String {
    // The usual case of every change.
    if labels.is_empty() { "{}".to_owned() } else { json!(labels).to_string() }
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
