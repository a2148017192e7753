//! What changes the ledger: the transaction, and the statements that write a unit of work.
//!
//! On PostgreSQL one statement writes requests, entries, commits and balances, and one more each for new
//! accounts, changed accounts, new holds and changed holds if there are any, however many commands
//! the unit of work holds. SQLite takes a few more, where a statement is no round trip. Nothing
//! else may write a row, but for migrations, imports and the list of currencies.

mod changes;
pub mod postgres;
pub mod rows;
mod sqlite;
pub mod statements;
pub mod transaction;
mod turn;

use sea_orm::DatabaseTransaction;

use self::{
    changes::{Changes, OpenedAccount, expect_all},
    rows::NEW_ACCOUNTS,
};
use crate::{
    domain::unit_of_work::UnitOfWork,
    storage::{StorageError, dialect::DatabaseKind},
};

/// Writes new accounts, then request ids, entries, commits and balances, then changes of accounts, then
/// holds. An insert may wait for another transaction's uncommitted key: all insert in this order and,
/// within a table, in the order of the keys, so that no two wait for each other.
pub async fn write(
    transaction: &DatabaseTransaction,
    work: &UnitOfWork,
) -> Result<(), StorageError> {
    let kind = DatabaseKind::of(transaction);
    // In order of their ids.
    let accounts: Vec<_> = work
        .created()
        .map(|it| OpenedAccount { account: it.clone(), opening: work.opening(it) })
        .collect();
    let new_accounts = match kind {
        DatabaseKind::Sqlite => sqlite::insert_accounts(transaction, &accounts).await?,
        DatabaseKind::Postgres => postgres::insert_accounts(transaction, &accounts).await?,
    };
    expect_all(NEW_ACCOUNTS.what, new_accounts.len() as u64, accounts.len())?;
    let changes = Changes::of(work, &new_accounts)?;
    match kind {
        DatabaseKind::Sqlite => sqlite::write(transaction, &changes).await,
        DatabaseKind::Postgres => postgres::write(transaction, &changes).await,
    }
}
