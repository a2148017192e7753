//! Writing what a work has changed: on PostgreSQL one statement for balances, and one more for
//! each of new accounts, holds, and changes of accounts if there are any, however many commands
//! the work holds; a few more on SQLite, where a statement is no round trip.

mod postgres;
mod sqlite;
pub mod transaction;
mod turn;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
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

/// All that is to be written.
struct Changes<'a> {
    /// In order of their ids.
    created: Vec<&'a Account>,
    /// Of which only the balance has changed, and what goes with it; in order of their ids.
    moved: Vec<&'a Account>,
    /// Of which anything may have changed; in order of their ids.
    updated: Vec<&'a Account>,
    account_changes: Vec<&'a AccountChange>,
    /// In order of their keys.
    new_records: Vec<&'a NewRequestRecord>,
    entries: Vec<&'a Entry>,
    /// In order of their ids.
    placed: Vec<&'a Hold>,
    /// In order of their ids.
    ended: Vec<&'a Hold>,
}

/// Writes new accounts first, then request ids, entries and balances, then holds: whoever inserts may wait
/// for another's uncommitted key, and everyone does so in this order and, within a table, in
/// the order of the keys.
pub async fn write(
    transaction: &DatabaseTransaction,
    work: &UnitOfWork,
) -> Result<(), StorageError> {
    let mut new_records: Vec<&NewRequestRecord> = work.new_records().iter().collect();
    new_records.sort_by(|left, right| left.request.key.cmp(&right.request.key));
    let entries = work
        .new_records()
        .iter()
        .filter_map(|new| effects(new)?.transaction.as_ref())
        .flat_map(|transaction| &transaction.entries);
    let account_changes: Vec<_> = work.account_changes().iter().collect();
    let is_updated =
        |it: &&Account| account_changes.iter().any(|change| change.account_id == it.account_id);
    let (updated, moved) = work.changed().partition(is_updated);
    let changes = Changes {
        created: work.created().collect(),
        moved,
        updated,
        new_records,
        entries: entries.collect(),
        placed: work.placed().collect(),
        ended: work.ended().collect(),
        account_changes,
    };
    match transaction.get_database_backend() {
        DbBackend::Sqlite => sqlite::write(transaction, &changes).await,
        _ => postgres::write(transaction, &changes).await,
    }
}

fn effects(new: &NewRequestRecord) -> Option<&Effects> {
    new.record.result.as_ref().ok()
}

/// The refusal as it is stored; None if the request was applied.
fn rejection_json(new: &NewRequestRecord) -> Option<String> {
    let rejection = new.record.result.as_ref().err()?;
    Some(json!(rejection).to_string())
}

/// The names of the request's entries as they are stored.
fn entry_names_json(new: &NewRequestRecord) -> String {
    let transaction = effects(new).and_then(|effects| effects.transaction.as_ref());
    let entries = transaction.map_or(&[][..], |transaction| &transaction.entries);
    let names = entries.iter().map(|it| (&it.account_id, it.sequence));
    json!(names.collect::<Vec<_>>()).to_string()
}

/// The id of the hold that the request placed or ended, as it is stored.
fn hold_id(new: &NewRequestRecord) -> Option<String> {
    effects(new)?.hold.as_ref().map(|hold| hold.hold_id.to_string())
}

/// The id of the transaction that the request reversed.
fn reverses(new: &NewRequestRecord) -> Option<TransactionId> {
    effects(new)?.transaction.as_ref()?.reverses_transaction_id
}

/// What an account was or became, as it is stored.
fn attributes_json(attributes: &Attributes) -> String {
    json!(StoredAttributes::from(attributes)).to_string()
}

/// Labels as they are stored.
fn labels_json(labels: &Labels) -> String {
    // Most have none, and this runs for every change.
    if labels.is_empty() { "{}".to_owned() } else { json!(labels).to_string() }
}

/// Fewer rows than were sent: somebody else committed the same key since it was looked up.
fn expect_all(what: &str, written: u64, expected: usize) -> Result<(), StorageError> {
    if written == expected as u64 {
        return Ok(());
    }
    Err(StorageError::Aborted(format!(
        "{written} of {expected} rows written: {what} taken meanwhile"
    )))
}
