//! Times that are settled: no change can come any more that was made then or before.
//!
//! A change takes its time from the database's clock after it has locked its accounts, and is
//! seen a moment later, when it has committed; or much later, if its COMMIT waits for a standby.
//! Whoever reads in between what was at that time would say something that becomes untrue. So
//! such a reader waits for the changes that are under way, and only for these: a change that
//! locks its accounts afterwards takes a later time, and another program that has locked a row
//! changes nothing that has a time.
//!
//! Readers of the present need none of this, and writers do nothing for it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sea_orm::{
    ConnectionTrait, DbBackend, Statement,
    sqlx::{self, SqliteConnection, SqlitePool},
};
use tokio::{sync::Mutex, time::Instant};

use crate::storage::{
    StorageError, Store, file::DatabaseFile, requests::clock, session::APPLICATION_NAME,
};

/// A time that lies so far ahead by the database's clock is waited for: the caller's own clock
/// may be a little ahead of it, and SQLite's has milliseconds.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// The pauses between two looks at what is under way: a transaction takes milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// On SQLite nobody can say whose the write lock is. If no change of this process is under way,
/// and whoever has the lock has not committed for so long, it is another program's, which no read
/// waits for. A transaction of another Passbook process on the same file takes milliseconds.
const SQLITE_STRANGER_AFTER: Duration = Duration::from_secs(1);
/// On SQLite a time that is so long past is settled without a look: no transaction takes so long.
const SQLITE_SETTLED_AFTER: Duration = Duration::from_secs(60);

/// The transactions of Passbook servers that have locked a row, or written one, and began before
/// this time. Who only waits for its first lock has no transaction id yet, and will take a later
/// time. When the lock of the id is gone, what it committed is seen by the next statement. The
/// start of another role's transaction may be hidden: it counts.
const UNDER_WAY: &str = "\
    SELECT held.transactionid::text AS transaction_id \
    FROM pg_locks held JOIN pg_stat_activity holder ON holder.pid = held.pid \
    WHERE held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted \
        AND holder.datname = current_database() AND holder.application_name = $1 \
        AND (holder.xact_start IS NULL \
            OR holder.xact_start <= to_timestamp(0) + $2 * interval '1 microsecond')";

/// The transaction of this process that has SQLite's write lock, or may have it still.
#[derive(Clone, Default)]
pub(super) struct WriteFlag(Arc<AtomicU64>);

/// Zero is for none.
static NEXT_TRANSACTION: AtomicU64 = AtomicU64::new(1);

impl WriteFlag {
    /// A transaction has begun; returns its number.
    pub(super) fn raise(&self) -> u64 {
        let number = NEXT_TRANSACTION.fetch_add(1, Ordering::Relaxed);
        self.0.store(number, Ordering::SeqCst);
        number
    }

    /// It has ended; another one may have begun since. (Of one that was dropped nobody knows when
    /// it ends.)
    pub(super) fn lower(&self, number: u64) {
        let _ = self.0.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// What looks whether SQLite's write lock is free.
pub(super) struct Probe {
    /// One connection, made when it is needed.
    pool: SqlitePool,
    file: Arc<DatabaseFile>,
    flag: WriteFlag,
    /// When the latest look that found out began: it serves all who had asked before.
    last: Mutex<Option<Instant>>,
}

impl Store {
    /// Waits until this time, in microseconds since the Unix epoch, is settled: a statement that
    /// begins afterwards sees all changes that are ever made at this time or before. A time to
    /// come, by more than a second, is not waited for.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn settle(&self, time_us: i64) -> Result<(), StorageError> {
        match self.probe() {
            Some(_) if is_before(time_us, SQLITE_SETTLED_AFTER) => Ok(()),
            Some(probe) => {
                self.wait_for_clock(time_us).await?;
                probe.settle().await
            }
            None => {
                self.wait_for_clock(time_us).await?;
                self.settle_postgres(time_us).await
            }
        }
    }

    async fn settle_postgres(&self, time_us: i64) -> Result<(), StorageError> {
        let mut under_way = self.under_way(time_us).await?;
        let mut pause = PAUSE_MIN;
        while !under_way.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let still = self.under_way(time_us).await?;
            under_way.retain(|id| still.contains(id));
        }
        Ok(())
    }

    async fn under_way(&self, time_us: i64) -> Result<HashSet<String>, StorageError> {
        let values = [APPLICATION_NAME.into(), time_us.into()];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, UNDER_WAY, values);
        let rows = self.readers.query_all_raw(statement).await?;
        let ids = rows.iter().map(|row| row.try_get("", "transaction_id"));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Waits until the database's clock is past this time, unless that takes long.
    async fn wait_for_clock(&self, time_us: i64) -> Result<(), StorageError> {
        // Our own clock, which may be another machine's, says of most times that they are past.
        if is_before(time_us, AHEAD_MAX * 10) {
            return Ok(());
        }
        let backend = self.readers.get_database_backend();
        loop {
            let sql = format!("SELECT {} AS now_us", clock(backend));
            let row = self.readers.query_one_raw(Statement::from_string(backend, sql)).await?;
            let now_us: i64 = row.map_or(Ok(i64::MAX), |row| row.try_get("", "now_us"))?;
            let ahead_us = time_us.saturating_sub(now_us).saturating_add(1);
            let ahead = Duration::from_micros(ahead_us.try_into().unwrap_or(0));
            if ahead.is_zero() || ahead > AHEAD_MAX {
                return Ok(());
            }
            tokio::time::sleep(ahead).await;
        }
    }
}

/// Whether this time is longer ago than that, by this machine's clock.
fn is_before(time_us: i64, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = now.saturating_sub(age).as_micros();
    i128::from(time_us) < i128::try_from(limit).unwrap_or(i128::MAX)
}

impl Probe {
    /// No connection is made yet. The flag is that of the process's writers.
    pub(super) fn new(pool: SqlitePool, file: Arc<DatabaseFile>, flag: WriteFlag) -> Self {
        Self { pool, file, flag, last: Mutex::default() }
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Waits until the transaction that has the write lock, if there is one, has ended.
    async fn settle(&self) -> Result<(), StorageError> {
        if self.file.check().is_err() {
            // No change is made to a file that is not at its path, and what is there is not opened.
            return Ok(());
        }
        let asked_at = Instant::now();
        let mut last = self.last.lock().await;
        if last.is_some_and(|began_at| began_at > asked_at) {
            return Ok(());
        }
        let began_at = Instant::now();
        // A task of its own: whoever waits may go away in the middle, and must not leave a
        // transaction behind.
        let look = tokio::spawn(look(self.pool.clone(), self.flag.clone()));
        look.await.map_err(|error| StorageError::Unavailable(error.to_string()))??;
        *last = Some(began_at);
        Ok(())
    }
}

/// Returns when the write lock was free once, or a commit was seen: no other transaction can have
/// come between.
async fn look(pool: SqlitePool, flag: WriteFlag) -> Result<(), StorageError> {
    // One connection for all looks: `data_version` tells it of others' commits.
    let mut connection = pool.acquire().await?;
    let version = data_version(&mut connection).await?;
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        if is_free(&mut connection, &flag).await? || data_version(&mut connection).await? != version
        {
            return Ok(());
        }
        let is_strangers = !flag.is_raised() && began.elapsed() > SQLITE_STRANGER_AFTER;
        if is_strangers || began.elapsed() > SQLITE_SETTLED_AFTER {
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
            // Nobody else can have begun, so it is raised for nobody.
            flag.0.store(0, Ordering::SeqCst);
            sqlx::query("ROLLBACK").execute(connection).await?;
            Ok(true)
        }
        Err(StorageError::LockTimeout(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
