//! SQLite's write lock: whether this process has it, and whether anybody does.
//!
//! SQLite does not say who has the lock. So a process of Passbook that has it marks this by a lock of
//! another kind on the write-ahead log: a shared one (`flock`), which the operating system removes when
//! the process ends. SQLite itself locks the log in no way.

use std::{
    fs::{File, TryLockError},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::sqlx::{self, SqliteConnection, SqlitePool};
use tokio::time::Instant;

use crate::{
    lock::lock,
    storage::{StorageError, connect::sqlite_file::DatabaseFile},
};

/// The pauses between two probes of the lock: a transaction takes milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// If no process of Passbook has marked the write lock and its owner has not committed for this long,
/// the lock is another program's, and no read waits for it. A transaction without a mark, as of an
/// older version, or where the file system has no such locks, takes milliseconds.
const FOREIGN_LOCK_AFTER: Duration = Duration::from_secs(1);
/// No transaction of Passbook lasts this long, unless its process is stopped or the disk does not answer.
pub const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(60);

/// The transaction of this process that has SQLite's write lock, or may still have it.
#[derive(Clone, Default)]
pub struct WriteFlag(Arc<Mutex<Mark>>);

#[derive(Default)]
struct Mark {
    /// The number of the transaction. Zero stands for none.
    transaction: u64,
    /// The write-ahead log, locked while there is a transaction. None on PostgreSQL.
    log: Option<File>,
}

static NEXT_TRANSACTION: AtomicU64 = AtomicU64::new(1);

impl WriteFlag {
    /// A flag that other processes see by a lock on the log. Without a log they do not see it.
    pub fn on(log: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(Mark { transaction: 0, log })))
    }

    /// Marks a transaction as open and returns its number. The transaction must have the write lock, and
    /// take its time afterwards.
    pub async fn raise(&self) -> u64 {
        loop {
            if let Some(number) = self.try_raise() {
                return number;
            }
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }

    /// None while another process looks for marks, which takes microseconds.
    fn try_raise(&self) -> Option<u64> {
        let mut mark = lock(&self.0);
        let locked = mark.log.as_ref().map(File::try_lock_shared);
        if matches!(locked, Some(Err(TryLockError::WouldBlock))) {
            return None;
        }
        mark.transaction = NEXT_TRANSACTION.fetch_add(1, Ordering::Relaxed);
        Some(mark.transaction)
    }

    /// Marks the transaction as ended, unless another one has begun since. A transaction that was
    /// dropped is never marked: nobody knows when it ends.
    pub fn lower(&self, number: u64) {
        let mut mark = lock(&self.0);
        if mark.transaction == number {
            mark.remove();
        }
    }

    /// Marks that no transaction of this process is open.
    fn clear(&self) {
        lock(&self.0).remove();
    }

    /// Whether this process or another one of Passbook has marked the write lock.
    fn is_raised_anywhere(&self) -> bool {
        let mark = lock(&self.0);
        if mark.transaction != 0 {
            return true;
        }
        match mark.log.as_ref().map(File::try_lock) {
            Some(Err(TryLockError::WouldBlock)) => true,
            Some(Ok(())) => {
                mark.unlock();
                false
            }
            // The file system has no such locks.
            Some(Err(TryLockError::Error(_))) | None => false,
        }
    }
}

impl Mark {
    fn remove(&mut self) {
        self.transaction = 0;
        self.unlock();
    }

    fn unlock(&self) {
        // Fails only where locking fails.
        let _ = self.log.as_ref().map(File::unlock);
    }
}

/// Finds out when SQLite's write lock was free.
pub struct WriteLockProbe {
    /// One connection, made when it is needed.
    pool: SqlitePool,
    file: Arc<DatabaseFile>,
    flag: WriteFlag,
    /// When the latest successful probe began: it serves all who had asked before.
    last: Arc<tokio::sync::Mutex<Option<Instant>>>,
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

    /// Whether a transaction of Passbook may be open. It has taken its mark before its time.
    pub fn is_marked(&self) -> bool {
        self.flag.is_raised_anywhere()
    }

    /// Waits until the transaction that has the write lock, if there is one, has ended.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if a transaction of Passbook does not end.
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
    let probed = probe_on(&mut connection, &flag, TRANSACTION_TIME_MAX).await;
    if probed.is_err() {
        // The connection may still have the lock; closing it gives the lock back.
        connection.close().await?;
    }
    probed
}

async fn probe_on(
    connection: &mut SqliteConnection,
    flag: &WriteFlag,
    time_max: Duration,
) -> Result<(), StorageError> {
    let version = data_version(connection).await?;
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        if is_free(connection, flag).await? || data_version(connection).await? != version {
            return Ok(());
        }
        let waited = began.elapsed();
        if waited > FOREIGN_LOCK_AFTER && !flag.is_raised_anywhere() {
            return Ok(());
        }
        if waited > time_max {
            // It may still commit changes of the time that is asked about.
            let seconds = time_max.as_secs();
            return Err(StorageError::Unavailable(format!(
                "a server has SQLite's write lock for more than {seconds} s: it is stopped, or its disk \
                 does not answer"
            )));
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
            flag.clear();
            sqlx::query("ROLLBACK").execute(connection).await?;
            Ok(true)
        }
        Err(StorageError::LockTimeout(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::{NamedTempFile, TempDir};

    use super::*;
    use crate::storage::{
        DatabaseUrl, Store,
        connect::{session::Role, store::Backend},
    };

    #[test]
    fn a_transaction_of_another_process_is_seen_until_it_ends() {
        let log = NamedTempFile::new().unwrap();
        // Two processes have opened the file, each for itself.
        let [ours, of_peer] = [(); 2].map(|()| WriteFlag::on(File::open(log.path()).ok()));
        assert!(!ours.is_raised_anywhere());
        let of_peer_number = of_peer.try_raise().unwrap();
        assert!(ours.is_raised_anywhere());

        // The peer has committed, and has not removed its mark yet.
        let number = ours.try_raise().unwrap();
        ours.lower(number);
        assert!(ours.is_raised_anywhere());
        of_peer.lower(of_peer_number);
        assert!(!ours.is_raised_anywhere() && !of_peer.is_raised_anywhere());

        // A transaction that was dropped keeps the mark, and the next one takes it over.
        of_peer.try_raise().unwrap();
        let last = of_peer.try_raise().unwrap();
        of_peer.lower(of_peer_number);
        assert!(ours.is_raised_anywhere(), "the last one is open");
        of_peer.lower(last);
        assert!(!ours.is_raised_anywhere());
        of_peer.try_raise().unwrap();
        drop(of_peer);
        assert!(!ours.is_raised_anywhere(), "the process has ended");
    }

    /// The transaction of a process that is stopped ends when the process goes on, or never.
    #[tokio::test]
    async fn an_old_time_is_not_settled_while_a_transaction_of_a_peer_is_open() {
        let folder = TempDir::new().unwrap();
        let ours = Store::for_tests(&folder).await;
        let url = format!("sqlite://{}", folder.path().join("passbook.db").display());
        let peer = Store::connect(DatabaseUrl::parse(&url).unwrap(), None).await.unwrap();
        let an_hour_after_1970_us = 3_600_000_000;
        ours.settle(an_hour_after_1970_us).await.unwrap();

        let open = peer.writer().await.unwrap().begin().await.unwrap();
        let settled = {
            let waiting = ours.settle(an_hour_after_1970_us);
            tokio::time::timeout(FOREIGN_LOCK_AFTER * 2, waiting).await
        };
        assert!(settled.is_err(), "the transaction is open");
        let Backend::Sqlite { file, flag, .. } = &*ours.backend else { panic!("not SQLite") };
        let pool = SqlitePool::connect_with(file.options(Role::Probe)).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        let probed = probe_on(&mut connection, flag, Duration::from_millis(10)).await;
        assert!(matches!(probed, Err(StorageError::Unavailable(_))), "{probed:?}");

        open.roll_back().await.unwrap();
        ours.settle(an_hour_after_1970_us).await.unwrap();
        probe_on(&mut connection, flag, Duration::from_millis(10)).await.unwrap();
    }
}
