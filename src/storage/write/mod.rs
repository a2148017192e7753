//! Writing what a book has changed: two statements on PostgreSQL at most, however many commands
//! the book holds; a few more on SQLite, where a statement is no round trip.

mod postgres;
mod sqlite;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend};
use serde_json::json;

use crate::{
    domain::{
        account::{Account, Labels},
        book::{Book, Recorded},
        transaction::Entry,
    },
    storage::StorageError,
};

/// All that is to be written.
struct Changes<'a> {
    /// In order of their ids.
    created: Vec<&'a Account>,
    /// In order of their ids.
    changed: Vec<&'a Account>,
    /// In order of their keys.
    recorded: Vec<&'a Recorded>,
    entries: Vec<&'a Entry>,
}

/// Writes new accounts first, then request ids, entries and balances: whoever inserts may wait
/// for another's uncommitted key, and everyone does so in this order and, within a table, in
/// the order of the keys.
pub async fn write(transaction: &DatabaseTransaction, book: &Book) -> Result<(), StorageError> {
    let mut recorded: Vec<&Recorded> = book.recorded().iter().collect();
    recorded.sort_by(|left, right| left.posting.key.cmp(&right.posting.key));
    let entries = book
        .recorded()
        .iter()
        .filter_map(|recorded| recorded.decided.verdict.as_ref().ok())
        .flat_map(|made| &made.entries);
    let changes = Changes {
        created: book.created().collect(),
        changed: book.changed().collect(),
        recorded,
        entries: entries.collect(),
    };
    match transaction.get_database_backend() {
        DbBackend::Sqlite => sqlite::write(transaction, &changes).await,
        _ => postgres::write(transaction, &changes).await,
    }
}

/// The refusal as it is stored; None if the request was applied.
fn rejection_json(recorded: &Recorded) -> Option<String> {
    let rejection = recorded.decided.verdict.as_ref().err()?;
    Some(json!(rejection).to_string())
}

/// The names of the request's entries as they are stored.
fn entry_names_json(recorded: &Recorded) -> String {
    let entries = recorded.decided.verdict.as_ref().map(|made| made.entries.as_slice());
    let names = entries.unwrap_or_default().iter().map(|it| (&it.account_id, it.sequence));
    json!(names.collect::<Vec<_>>()).to_string()
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
