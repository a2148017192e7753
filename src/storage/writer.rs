//! The one way to change anything: a connection of a worker's own, and its transaction.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

use crate::{
    domain::{
        account::Account,
        book::{Book, Decided},
        hold::Hold,
        ids::{AccountId, HoldId, RequestKey, TransactionId},
    },
    storage::{
        CommitError, StorageError,
        accounts::{self, LockedRows},
        holds, requests, write,
    },
};

/// A worker's own connection.
pub struct Writer {
    pub(super) connection: DatabaseConnection,
    pub(super) made: Instant,
}

/// A transaction on it. Dropped without a commit, it is rolled back by whoever drops it; the
/// worker then drops the writer too, rather than trust that.
pub struct WriteTransaction {
    transaction: DatabaseTransaction,
}

/// What to do about a row that someone else has locked.
#[derive(Clone, Copy, Debug)]
pub enum LockWait {
    /// Wait for each in turn, in order of ids, as long as the connection's lock timeout says.
    Briefly,
    /// Leave it out.
    Never,
}

/// The rows that were asked for.
pub struct Locked {
    /// Those that exist and are now ours.
    pub accounts: Vec<Account>,
    /// Those that exist and are someone else's. Ids in neither list do not exist.
    pub held_elsewhere: BTreeSet<AccountId>,
    /// The time in microseconds since the Unix epoch by the database's clock, if there was a
    /// row to bring it.
    pub now_us: Option<i64>,
}

impl Writer {
    /// Begins a transaction. On SQLite this takes the database's one write lock.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] on SQLite, or the database cannot be reached.
    pub async fn begin(&self) -> Result<WriteTransaction, StorageError> {
        Ok(WriteTransaction { transaction: begin(&self.connection).await? })
    }
}

/// Begins a transaction that will write.
pub(super) async fn begin(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, StorageError> {
    let is_sqlite = connection.get_database_backend() == DbBackend::Sqlite;
    let options = TransactionOptions {
        // A deferred transaction that reads before it writes can fail with BUSY_SNAPSHOT.
        sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

impl WriteTransaction {
    /// Locks these accounts' rows and reads them.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if a row was not had in time.
    pub async fn lock(
        &self,
        account_ids: &BTreeSet<AccountId>,
        wait: LockWait,
    ) -> Result<Locked, StorageError> {
        if account_ids.is_empty() {
            let (accounts, held_elsewhere) = (Vec::new(), BTreeSet::new());
            return Ok(Locked { accounts, held_elsewhere, now_us: None });
        }
        match wait {
            LockWait::Briefly => {
                let LockedRows { accounts, now_us } =
                    accounts::lock(&self.transaction, account_ids).await?;
                Ok(Locked { accounts, held_elsewhere: BTreeSet::new(), now_us })
            }
            LockWait::Never => {
                let LockedRows { accounts, now_us } =
                    accounts::lock_free(&self.transaction, account_ids).await?;
                let mut missing = account_ids.clone();
                for account in &accounts {
                    missing.remove(&account.account_id);
                }
                let held_elsewhere = accounts::existing(&self.transaction, &missing).await?;
                Ok(Locked { accounts, held_elsewhere, now_us })
            }
        }
    }

    /// Waits for one account's row, for at most this long. The transaction must hold no other
    /// lock: so nothing that others need is held while it waits, and it can be in no deadlock.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if the row was not had in time.
    pub async fn wait_for(
        &self,
        account_id: &AccountId,
        lock_timeout: Duration,
    ) -> Result<(), StorageError> {
        if self.transaction.get_database_backend() == DbBackend::Postgres {
            // Zero would mean no limit.
            let milliseconds = lock_timeout.as_millis().max(1);
            let sql = format!("SET LOCAL lock_timeout = {milliseconds}");
            self.transaction.execute_unprepared(&sql).await?;
        }
        accounts::lock(&self.transaction, &BTreeSet::from([account_id.clone()])).await?;
        if self.transaction.get_database_backend() == DbBackend::Postgres {
            // Now it does hold a lock, and must not wait for long.
            self.transaction.execute_unprepared("SET LOCAL lock_timeout TO DEFAULT").await?;
        }
        Ok(())
    }

    /// The verdicts stored under these request ids, and the time in microseconds since the
    /// Unix epoch by the database's clock. A statement after the lock: it sees what the wait
    /// for the lock let through.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn decided(
        &self,
        keys: &BTreeSet<RequestKey>,
    ) -> Result<(i64, HashMap<RequestKey, Decided>), StorageError> {
        requests::decided(&self.transaction, keys).await
    }

    /// The holds with these ids, and all that have expired on these accounts, which are locked;
    /// and the time, as of this statement.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn holds(
        &self,
        hold_ids: &BTreeSet<HoldId>,
        account_ids: &BTreeSet<AccountId>,
    ) -> Result<(i64, Vec<Hold>), StorageError> {
        holds::found(&self.transaction, hold_ids, account_ids).await
    }

    /// Of these transactions, those that were reversed, with their reversals. Whoever reverses
    /// one locks its accounts; a statement after the lock sees what the wait for it let through.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn reversed_by(
        &self,
        transaction_ids: &BTreeSet<TransactionId>,
    ) -> Result<HashMap<TransactionId, TransactionId>, StorageError> {
        requests::reversed_by(&self.transaction, transaction_ids).await
    }

    /// Writes all that the book has changed.
    ///
    /// # Errors
    /// [`StorageError::Decided`] if a request id has a verdict already, which the book did not
    /// know; [`StorageError::Aborted`] if an account id was taken in the meantime.
    pub async fn write(&self, book: &Book) -> Result<(), StorageError> {
        write::write(&self.transaction, book).await
    }

    /// Commits.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(self) -> Result<(), CommitError> {
        Ok(self.transaction.commit().await?)
    }

    /// Rolls back.
    ///
    /// # Errors
    /// The connection is lost, and so is the transaction.
    pub async fn roll_back(self) -> Result<(), StorageError> {
        Ok(self.transaction.rollback().await?)
    }
}
