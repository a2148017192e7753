//! SQLite's write lock: whether this process has it, and whether anybody does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::sqlx::{self, SqliteConnection, SqlitePool};
use tokio::{sync::Mutex, time::Instant};

use crate::storage::{StorageError, connect::sqlite_file::DatabaseFile};

/// The pauses between two probes of the lock: a transaction takes milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// SQLite does not say who has the write lock. If no transaction of this process is open and the
/// lock's owner has not committed for this long, the lock is another program's, and no read waits
/// for it. A transaction of another Passbook process on the same file takes milliseconds.
const FOREIGN_LOCK_AFTER: Duration = Duration::from_secs(1);
/// No transaction of Passbook lasts this long.
pub const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(60);

/// The transaction of this process that has SQLite's write lock, or may still have it.
#[derive(Clone, Default)]
pub struct WriteFlag(Arc<AtomicU64>);

/// Zero stands for no transaction.
static NEXT_TRANSACTION: AtomicU64 = AtomicU64::new(1);

impl WriteFlag {
    /// Marks a transaction as open and returns its number.
    pub fn raise(&self) -> u64 {
        let number = NEXT_TRANSACTION.fetch_add(1, Ordering::Relaxed);
        self.0.store(number, Ordering::SeqCst);
        number
    }

    /// Marks the transaction as ended, unless another one has begun since. A transaction that was
    /// dropped is never marked: nobody knows when it ends.
    pub fn lower(&self, number: u64) {
        let _ = self.0.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// Finds out when SQLite's write lock was free.
pub struct WriteLockProbe {
    /// One connection, made when it is needed.
    pool: SqlitePool,
    file: Arc<DatabaseFile>,
    flag: WriteFlag,
    /// When the latest successful probe began: it serves all who had asked before.
    last: Arc<Mutex<Option<Instant>>>,
}

impl WriteLockProbe {
    /// Makes no connection yet. `flag` is that of the process's writers.
    pub fn new(pool: SqlitePool, file: Arc<DatabaseFile>, flag: WriteFlag) -> Self {
        Self { pool, file, flag, last: Arc::default() }
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Waits until the transaction that has the write lock, if there is one, has ended.
    pub async fn wait_until_free(&self) -> Result<(), StorageError> {
        if self.file.check().is_err() {
            // A file that is not at its path gets no changes, and the one that is there stays shut.
            return Ok(());
        }
        let asked_at = Instant::now();
        let mut last = self.last.clone().lock_owned().await;
        if last.is_some_and(|began_at| began_at > asked_at) {
            return Ok(());
        }
        // A task of its own: the caller may be dropped in the middle, and must not leave an open
        // transaction or a busy connection behind.
        let (pool, flag) = (self.pool.clone(), self.flag.clone());
        let probing = tokio::spawn(async move {
            let began_at = Instant::now();
            probe(pool, flag).await?;
            *last = Some(began_at);
            Ok(())
        });
        probing.await.map_err(|error| StorageError::Unavailable(error.to_string()))?
    }
}

/// Returns when the write lock was free once or a commit was seen: the transaction that was open
/// at the beginning has ended.
async fn probe(pool: SqlitePool, flag: WriteFlag) -> Result<(), StorageError> {
    // One connection for all probes: `data_version` shows it commits on other connections.
    let mut connection = pool.acquire().await?;
    let probed = probe_on(&mut connection, &flag).await;
    if probed.is_err() {
        // The connection may still have the lock; closing it gives the lock back.
        connection.close().await?;
    }
    probed
}

async fn probe_on(connection: &mut SqliteConnection, flag: &WriteFlag) -> Result<(), StorageError> {
    let version = data_version(connection).await?;
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        if is_free(connection, flag).await? || data_version(connection).await? != version {
            return Ok(());
        }
        let is_foreign = !flag.is_raised() && began.elapsed() > FOREIGN_LOCK_AFTER;
        if is_foreign || began.elapsed() > TRANSACTION_TIME_MAX {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StorageError> {
    Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await?)
}

async fn is_free(
    connection: &mut SqliteConnection,
    flag: &WriteFlag,
) -> Result<bool, StorageError> {
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await;
    match begun.map_err(StorageError::from) {
        Ok(_) => {
            // No other transaction is open, so a raised flag is out of date.
            flag.0.store(0, Ordering::SeqCst);
            sqlx::query("ROLLBACK").execute(connection).await?;
            Ok(true)
        }
        Err(StorageError::LockTimeout(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
