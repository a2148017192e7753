//! The one way to change anything: a worker's own connection, and its transaction.
//!
//! PostgreSQL plans each statement once a connection, perhaps while the tables are empty. So no
//! statement leaves the planner a choice that is right for small tables only: rows are found by
//! `= ANY` of a list, or by LATERAL with a LIMIT, with one search by key for each;
//! and where a column is in two indexes, only one can be chosen or both are right. The test
//! `query_plans` checks that with large tables.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

use crate::{
    domain::{
        account::{Account, Attributes},
        hold::Hold,
        ids::{AccountId, HoldId, RequestKey, TransactionId},
        unit_of_work::{RequestRecord, UnitOfWork},
    },
    storage::{
        CommitError, StorageError, Store,
        connect::{
            session::{Role, WRITER_LOCK_TIMEOUT},
            sqlite_file::DatabaseFile,
            store::Backend,
            write_lock::WriteFlag,
        },
        dialect::DatabaseKind,
        queries::{
            accounts::{self, LockedRows},
            holds, opening_attributes, requests,
        },
        write,
        write::turn,
    },
};

/// A worker's own connection.
pub struct Writer {
    connection: DatabaseConnection,
    /// The database's file, on SQLite.
    file: Option<Arc<DatabaseFile>>,
    made: Instant,
    flag: WriteFlag,
}

/// A transaction of a [`Writer`]. If it is dropped without a commit, the driver rolls it back; the
/// worker does not rely on that and drops the writer, too.
pub struct WriteTransaction {
    transaction: DatabaseTransaction,
    flag: WriteFlag,
    /// Its number in the flag.
    number: u64,
}

/// What a transaction does about a row that another transaction has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Wait for each row, in order of ids, for as long as the transaction's lock timeout says.
    Wait,
    /// Leave the row out.
    SkipLocked,
}

/// The outcome of locking rows. An id in none of the three sets does not exist.
#[derive(Default)]
pub struct LockedAccounts {
    /// The rows that are now locked by this transaction.
    pub accounts: Vec<Account>,
    /// The rows that a transaction of another Passbook server has locked. It ends soon.
    pub locked_by_peers: BTreeSet<AccountId>,
    /// The rows that another program has locked, nobody knows for how long.
    pub locked_elsewhere: BTreeSet<AccountId>,
    /// The time in microseconds since the Unix epoch by the database's clock, if there was a
    /// row to bring it.
    pub now_us: Option<i64>,
}

impl Store {
    /// Opens a connection for one worker, in a pool of one: what a panic or a timeout leaves on the
    /// connection is dropped with it and never reaches another worker.
    pub async fn writer(&self) -> Result<Writer, StorageError> {
        let connection = self.open(Role::Writer).await?;
        let (file, flag) = match self.backend() {
            Backend::Sqlite { file, flag, .. } => (Some(file.clone()), flag.clone()),
            Backend::Postgres { .. } => (None, WriteFlag::default()),
        };
        Ok(Writer { connection, file, made: Instant::now(), flag })
    }

    /// Whether a writer must not be used again: a failover has happened since it was opened, or a
    /// connection of that time was lost.
    #[must_use]
    pub fn is_stale(&self, writer: &Writer) -> bool {
        match self.backend() {
            Backend::Sqlite { .. } => false,
            Backend::Postgres { hosts, .. } => hosts.is_stale(writer.made.elapsed()),
        }
    }
}

impl Writer {
    /// Begins a transaction. On SQLite this takes the database's one write lock.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] on SQLite, or the database cannot be reached, or its file is
    /// another one.
    pub async fn begin(&self) -> Result<WriteTransaction, StorageError> {
        if let Some(file) = &self.file {
            file.check().map_err(StorageError::Unavailable)?;
        }
        let transaction = begin(&self.connection).await?;
        let number = self.flag.raise();
        Ok(WriteTransaction { transaction, flag: self.flag.clone(), number })
    }
}

/// Begins a transaction that will write.
pub(in crate::storage) async fn begin(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, StorageError> {
    let is_sqlite = DatabaseKind::of(connection) == DatabaseKind::Sqlite;
    let options = TransactionOptions {
        // A deferred transaction that reads before it writes can fail with BUSY_SNAPSHOT.
        sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

impl WriteTransaction {
    /// Waits for the turn (see `turns` in the ledger) and keeps it until the transaction ends.
    /// Returns whether it had to wait. Raises the lock timeout to that of a turn. Does nothing on
    /// SQLite, where BEGIN takes the turn.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if the turn was not had in time.
    pub async fn take_turn(&self) -> Result<bool, StorageError> {
        match DatabaseKind::of(&self.transaction) {
            DatabaseKind::Sqlite => Ok(false),
            DatabaseKind::Postgres => turn::take(&self.transaction).await,
        }
    }

    /// Locks the rows of these accounts and reads them.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if a row was not had in time.
    pub async fn lock(
        &self,
        account_ids: &BTreeSet<AccountId>,
        mode: LockMode,
    ) -> Result<LockedAccounts, StorageError> {
        if account_ids.is_empty() {
            return Ok(LockedAccounts::default());
        }
        match mode {
            LockMode::Wait => {
                let LockedRows { accounts, now_us } =
                    accounts::lock(&self.transaction, account_ids).await?;
                Ok(LockedAccounts { accounts, now_us, ..LockedAccounts::default() })
            }
            LockMode::SkipLocked => self.lock_unlocked(account_ids).await,
        }
    }

    async fn lock_unlocked(
        &self,
        account_ids: &BTreeSet<AccountId>,
    ) -> Result<LockedAccounts, StorageError> {
        let LockedRows { mut accounts, mut now_us } =
            accounts::lock_unlocked(&self.transaction, account_ids).await?;
        let mut missing = account_ids.clone();
        for account in &accounts {
            missing.remove(&account.account_id);
        }
        let (locked_by_peers, mut locked_elsewhere) =
            accounts::lock_holders(&self.transaction, &missing).await?;
        if !locked_elsewhere.is_empty() {
            // A row whose lock has ended meanwhile can be had now.
            let freed = accounts::lock_unlocked(&self.transaction, &locked_elsewhere).await?;
            for account in &freed.accounts {
                locked_elsewhere.remove(&account.account_id);
            }
            accounts.extend(freed.accounts);
            now_us = now_us.max(freed.now_us);
        }
        Ok(LockedAccounts { accounts, locked_by_peers, locked_elsewhere, now_us })
    }

    /// Waits for one account's row, for at most this long. The transaction must hold no other lock,
    /// so that nobody waits for it meanwhile and it can be in no deadlock.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if the row was not had in time.
    pub async fn wait_for(
        &self,
        account_id: &AccountId,
        lock_timeout: Duration,
    ) -> Result<(), StorageError> {
        if DatabaseKind::of(&self.transaction) == DatabaseKind::Postgres {
            // Zero stands for no limit.
            self.set_lock_timeout(&lock_timeout.as_millis().max(1).to_string()).await?;
        }
        accounts::lock(&self.transaction, &BTreeSet::from([account_id.clone()])).await?;
        if DatabaseKind::of(&self.transaction) == DatabaseKind::Postgres {
            // From now on the transaction holds a lock and must not wait for long.
            self.set_lock_timeout(WRITER_LOCK_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Sets the lock timeout until the transaction ends.
    async fn set_lock_timeout(&self, value: &str) -> Result<(), StorageError> {
        let sql = format!("SET LOCAL lock_timeout = '{value}'");
        self.transaction.execute_unprepared(&sql).await?;
        Ok(())
    }

    /// The records of these requests, and the time in microseconds since the Unix epoch by the
    /// database's clock. A statement after the lock: it sees what was committed during the wait.
    pub async fn records(
        &self,
        keys: &BTreeSet<RequestKey>,
    ) -> Result<(i64, HashMap<RequestKey, RequestRecord>), StorageError> {
        requests::records(&self.transaction, keys).await
    }

    /// The time, the holds with these ids, and the expired holds on these accounts, which must be
    /// locked.
    pub async fn holds(
        &self,
        hold_ids: &BTreeSet<HoldId>,
        account_ids: &BTreeSet<AccountId>,
    ) -> Result<(i64, Vec<Hold>), StorageError> {
        holds::by_key(&self.transaction, hold_ids, account_ids).await
    }

    /// The reversed ones among these transactions, with their reversals. A reversal locks the
    /// transaction's accounts, so a statement after the lock sees it.
    pub async fn reversed_by(
        &self,
        transaction_ids: &BTreeSet<TransactionId>,
    ) -> Result<HashMap<TransactionId, TransactionId>, StorageError> {
        requests::reversed_by(&self.transaction, transaction_ids).await
    }

    /// The accounts among these, which must be locked, whose attributes have changed, with their
    /// attributes before the first change.
    pub async fn opening_attributes(
        &self,
        accounts: impl Iterator<Item = &Account>,
    ) -> Result<HashMap<AccountId, Attributes>, StorageError> {
        opening_attributes::opening_attributes(&self.transaction, accounts).await
    }

    /// Writes all changes of a unit of work.
    ///
    /// # Errors
    /// [`StorageError::RepeatedRequest`] if a request id has a record already, which the work did not
    /// know; [`StorageError::Aborted`] if an account id was taken in the meantime.
    pub async fn write(&self, work: &UnitOfWork) -> Result<(), StorageError> {
        write::write(&self.transaction, work).await
    }

    /// Commits.
    pub async fn commit(self) -> Result<(), CommitError> {
        let committed = self.transaction.commit().await.map_err(CommitError::from);
        if !matches!(committed, Err(CommitError::Unknown(_))) {
            self.flag.lower(self.number);
        }
        committed
    }

    /// Rolls back.
    pub async fn roll_back(self) -> Result<(), StorageError> {
        self.transaction.rollback().await?;
        self.flag.lower(self.number);
        Ok(())
    }
}
