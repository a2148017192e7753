//! Writing what a work has changed: on PostgreSQL one statement for balances, and one more for
//! each of new accounts, holds, and changes of accounts if there are any, however many commands
//! the work holds; a few more on SQLite, where a statement is no round trip.

mod changes;
pub mod postgres;
pub mod rows;
pub mod sqlite;
pub mod transaction;
mod turn;

use sea_orm::DatabaseTransaction;

use self::changes::Changes;
use crate::{
    domain::unit_of_work::UnitOfWork,
    storage::{StorageError, dialect::DatabaseKind},
};

/// Writes new accounts first, then request ids, entries and balances, then holds: whoever inserts may wait
/// for another's uncommitted key, and everyone does so in this order and, within a table, in
/// the order of the keys.
pub async fn write(
    transaction: &DatabaseTransaction,
    work: &UnitOfWork,
) -> Result<(), StorageError> {
    let changes = Changes::of(work);
    match DatabaseKind::of(transaction) {
        DatabaseKind::Sqlite => sqlite::write(transaction, &changes).await,
        DatabaseKind::Postgres => postgres::write(transaction, &changes).await,
    }
}
