//! The one way to change anything: a worker's own connection, and its transaction.
//!
//! PostgreSQL plans each statement once a connection, perhaps while the tables are empty. So no
//! statement leaves the planner a choice that is right for small tables only: rows are found by
//! `= ANY` of a list, or by LATERAL with a LIMIT, with one search by key for each;
//! and where a column is in two indexes, only one can be chosen or both are right. The test
//! `query_plans` checks that with large tables.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

use crate::{
    domain::{ids::AccountId, unit_of_work::UnitOfWork},
    storage::{
        CommitError, StorageError, Store,
        connect::{
            session::{APPLICATION_NAME, Role, WRITER_LOCK_TIMEOUT},
            sqlite_file::DatabaseFile,
            store::Backend,
            write_lock::WriteFlag,
        },
        dialect::DatabaseKind,
        queries::accounts::{self, LockMode, LockedAccounts},
        write,
        write::turn,
    },
};

/// Sessions whose COMMIT has waited for a synchronous standby for longer than a healthy one takes.
const WAITING_FOR_STANDBY: &str = "\
    SELECT count(*) AS waiting FROM pg_stat_activity \
    WHERE application_name = $1 AND datname = current_database() AND wait_event = 'SyncRep' \
        AND clock_timestamp() - state_change > interval '2 s'";

/// A commit that changes nothing, and is on the disk, and at a synchronous standby, when it is confirmed.
const COMMIT_OF_NOTHING_POSTGRES: &str = "SELECT pg_logical_emit_message(true, 'passbook', '')";
/// The number that every file has.
const COMMIT_OF_NOTHING_SQLITE: &str = "PRAGMA user_version = 0";

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
    pub(in crate::storage) transaction: DatabaseTransaction,
    flag: WriteFlag,
    /// Its number in the flag.
    number: u64,
}

impl Store {
    /// Opens a connection for one worker, in a pool of one: what a panic or a timeout leaves on the
    /// connection is dropped with it and never reaches another worker.
    pub async fn writer(&self) -> Result<Writer, StorageError> {
        // Before it is opened: a failover that is noticed meanwhile makes it stale.
        let made = Instant::now();
        let connection = self.open(Role::Writer).await?;
        let (file, flag) = match &*self.backend {
            Backend::Sqlite { file, flag, .. } => (Some(file.clone()), flag.clone()),
            Backend::Postgres { .. } => (None, WriteFlag::default()),
        };
        Ok(Writer { connection, file, made, flag })
    }

    /// Whether a writer must not be used again: a failover has happened since it was opened, or a
    /// connection of that time was lost.
    #[must_use]
    pub fn is_stale(&self, writer: &Writer) -> bool {
        match &*self.backend {
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
        let number = self.flag.raise().await;
        Ok(WriteTransaction { transaction, flag: self.flag.clone(), number })
    }

    /// Checks that no COMMIT waits for a synchronous standby. PostgreSQL keeps such a session even without
    /// its client, so each writer that gives up and comes back would be one session more.
    ///
    /// # Errors
    /// One waits, or the database does not answer.
    pub async fn check_standby(&self) -> Result<(), StorageError> {
        let kind = DatabaseKind::of(&self.connection);
        if kind == DatabaseKind::Sqlite {
            return Ok(());
        }
        let statement = kind.statement(WAITING_FOR_STANDBY, [APPLICATION_NAME.into()]);
        let row = self.connection.query_one_raw(statement).await?;
        let waiting: i64 = row.map_or(Ok(0), |row| row.try_get("", "waiting"))?;
        if waiting == 0 {
            return Ok(());
        }
        let reason = format!("{waiting} commits wait for a synchronous standby of the database");
        Err(StorageError::Unavailable(reason))
    }

    /// Checks that a commit is made.
    ///
    /// # Errors
    /// The reason why it is not.
    pub async fn check_commit(&self) -> Result<(), StorageError> {
        self.check_standby().await?;
        let nothing = match DatabaseKind::of(&self.connection) {
            DatabaseKind::Sqlite => COMMIT_OF_NOTHING_SQLITE,
            DatabaseKind::Postgres => COMMIT_OF_NOTHING_POSTGRES,
        };
        self.connection.execute_unprepared(nothing).await?;
        Ok(())
    }
}

/// Begins a transaction that will write.
pub(in crate::storage) async fn begin(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, StorageError> {
    // A deferred transaction that reads before it writes can fail with BUSY_SNAPSHOT.
    begin_in(connection, SqliteTransactionMode::Immediate).await
}

/// Begins a transaction, on SQLite in this mode.
pub(in crate::storage) async fn begin_in(
    connection: &DatabaseConnection,
    mode: SqliteTransactionMode,
) -> Result<DatabaseTransaction, StorageError> {
    let is_sqlite = DatabaseKind::of(connection) == DatabaseKind::Sqlite;
    let options = TransactionOptions {
        sqlite_transaction_mode: is_sqlite.then_some(mode),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

impl WriteTransaction {
    /// Waits for the turn (see `turns` in the ledger) and keeps it until the transaction ends.
    /// Raises the lock timeout to that of a turn. Does nothing on SQLite, where BEGIN takes the turn.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if the turn was not granted in time.
    pub async fn take_turn(&self) -> Result<(), StorageError> {
        match DatabaseKind::of(&self.transaction) {
            DatabaseKind::Sqlite => Ok(()),
            DatabaseKind::Postgres => turn::take(&self.transaction).await,
        }
    }

    /// Locks the rows of these accounts and reads them.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if a row was not granted in time.
    pub async fn lock(
        &self,
        account_ids: &BTreeSet<AccountId>,
        mode: LockMode,
    ) -> Result<LockedAccounts, StorageError> {
        if account_ids.is_empty() {
            return Ok(LockedAccounts::default());
        }
        let mut locked = accounts::lock(&self.transaction, account_ids, mode).await?;
        if mode == LockMode::Wait {
            return Ok(locked);
        }
        let mut missing = account_ids.clone();
        for account in &locked.accounts {
            missing.remove(&account.account_id);
        }
        let (peers, elsewhere) = accounts::lock_holders(&self.transaction, &missing).await?;
        locked.locked_by_peers = peers;
        if elsewhere.is_empty() {
            return Ok(locked);
        }
        // A row whose lock has ended meanwhile can be locked now, or a peer has locked it since.
        let freed = accounts::lock(&self.transaction, &elsewhere, mode).await?;
        missing = elsewhere;
        for account in &freed.accounts {
            missing.remove(&account.account_id);
        }
        locked.accounts.extend(freed.accounts);
        locked.now_us = locked.now_us.max(freed.now_us);
        let (mut peers, elsewhere) = accounts::lock_holders(&self.transaction, &missing).await?;
        locked.locked_by_peers.append(&mut peers);
        locked.locked_elsewhere = elsewhere;
        Ok(locked)
    }

    /// Waits for one account's row, for at most this long. The transaction must hold no other lock,
    /// so that nobody waits for it meanwhile and it can be in no deadlock.
    ///
    /// # Errors
    /// [`StorageError::LockTimeout`] if the row was not granted in time.
    pub async fn wait_for(
        &self,
        account_id: &AccountId,
        lock_timeout: Duration,
    ) -> Result<(), StorageError> {
        // Zero stands for no limit.
        self.set_lock_timeout(&lock_timeout.as_millis().max(1).to_string()).await?;
        let account_id = BTreeSet::from([account_id.clone()]);
        accounts::lock(&self.transaction, &account_id, LockMode::Wait).await?;
        // From now on the transaction holds a lock and must not wait for long.
        self.set_lock_timeout(WRITER_LOCK_TIMEOUT).await
    }

    /// On PostgreSQL, sets the lock timeout until the transaction ends.
    async fn set_lock_timeout(&self, value: &str) -> Result<(), StorageError> {
        if DatabaseKind::of(&self.transaction) == DatabaseKind::Postgres {
            let sql = format!("SET LOCAL lock_timeout = '{value}'");
            self.transaction.execute_unprepared(&sql).await?;
        }
        Ok(())
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
