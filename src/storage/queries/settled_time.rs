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
    StorageError, Store,
    connect::{session::APPLICATION_NAME, sqlite_file::DatabaseFile},
    queries::requests::clock,
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

/// The clock, and the transactions of Passbook servers that have locked a row, or written one, with
/// the times at which they began. Who only waits for its first lock has no transaction id yet, and will take a later
/// time. When the lock of the id is gone, what it committed is seen by the next statement. The
/// start of another role's transaction may be hidden: it counts.
fn under_way_sql() -> String {
    let clock = clock(DbBackend::Postgres);
    format!(
        "SELECT clock.now_us, held.transactionid::text AS transaction_id, \
             CAST(extract(epoch FROM holder.xact_start) * 1000000 AS bigint) AS start_us \
         FROM (SELECT {clock} AS now_us) clock \
         LEFT JOIN (pg_locks held JOIN pg_stat_activity holder ON holder.pid = held.pid) \
             ON held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted \
             AND holder.datname = current_database() AND holder.application_name = $1"
    )
}

/// What a look at PostgreSQL found.
#[derive(Clone)]
struct UnderWay {
    began_at: Instant,
    /// By the database's clock.
    now_us: i64,
    /// Transaction ids, and when each transaction began, if that is not hidden.
    transactions: Vec<(String, Option<i64>)>,
}

/// The latest look. It serves all who had asked before it began, so that there is one at a time
/// however many wait.
#[derive(Default)]
pub(in crate::storage) struct Looks(Mutex<Option<UnderWay>>);

/// The transaction of this process that has SQLite's write lock, or may have it still.
#[derive(Clone, Default)]
pub(in crate::storage) struct WriteFlag(Arc<AtomicU64>);

/// Zero is for none.
static NEXT_TRANSACTION: AtomicU64 = AtomicU64::new(1);

impl WriteFlag {
    /// A transaction has begun; returns its number.
    pub(in crate::storage) fn raise(&self) -> u64 {
        let number = NEXT_TRANSACTION.fetch_add(1, Ordering::Relaxed);
        self.0.store(number, Ordering::SeqCst);
        number
    }

    /// It has ended; another one may have begun since. (Of one that was dropped nobody knows when
    /// it ends.)
    pub(in crate::storage) fn lower(&self, number: u64) {
        let _ = self.0.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// How a time is settled.
pub(in crate::storage) enum Settling<'a> {
    Sqlite(&'a Probe),
    Postgres(&'a Looks),
}

/// What looks whether SQLite's write lock is free.
pub(in crate::storage) struct Probe {
    /// One connection, made when it is needed.
    pool: SqlitePool,
    file: Arc<DatabaseFile>,
    flag: WriteFlag,
    /// When the latest look that found out began: it serves all who had asked before.
    last: Arc<Mutex<Option<Instant>>>,
}

impl Store {
    /// Waits until this time, in microseconds since the Unix epoch, is settled: a statement that
    /// begins afterwards sees all changes that are ever made at this time or before. A time to
    /// come, by more than a second, is not waited for.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn settle(&self, time_us: i64) -> Result<(), StorageError> {
        match self.ways_to_settle() {
            Settling::Sqlite(_) if is_before(time_us, SQLITE_SETTLED_AFTER) => Ok(()),
            Settling::Sqlite(probe) => {
                self.wait_for_clock(time_us).await?;
                probe.settle().await
            }
            Settling::Postgres(looks) => self.settle_postgres(looks, time_us).await,
        }
    }

    async fn settle_postgres(&self, looks: &Looks, time_us: i64) -> Result<(), StorageError> {
        let mut first = self.look(looks).await?;
        while let Some(ahead) = ahead(time_us, first.now_us) {
            tokio::time::sleep(ahead).await;
            first = self.look(looks).await?;
        }
        let is_meant = |(id, start_us): (String, Option<i64>)| {
            start_us.is_none_or(|start_us| start_us <= time_us).then_some(id)
        };
        let mut under_way: HashSet<_> =
            first.transactions.into_iter().filter_map(is_meant).collect();
        let mut pause = PAUSE_MIN;
        while !under_way.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let now = self.look(looks).await?.transactions;
            let now: HashSet<_> = now.into_iter().map(|(id, _)| id).collect();
            under_way.retain(|id| now.contains(id));
        }
        Ok(())
    }

    async fn look(&self, looks: &Looks) -> Result<UnderWay, StorageError> {
        let asked_at = Instant::now();
        let mut latest = looks.0.lock().await;
        if let Some(look) = latest.as_ref().filter(|look| look.began_at > asked_at) {
            return Ok(look.clone());
        }
        let began_at = Instant::now();
        let values = [APPLICATION_NAME.into()];
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, under_way_sql(), values);
        let (mut now_us, mut transactions) = (i64::MAX, Vec::new());
        for row in self.readers.query_all_raw(statement).await? {
            now_us = row.try_get("", "now_us")?;
            if let Some(id) = row.try_get("", "transaction_id")? {
                transactions.push((id, row.try_get("", "start_us")?));
            }
        }
        let look = UnderWay { began_at, now_us, transactions };
        *latest = Some(look.clone());
        Ok(look)
    }

    /// On SQLite: waits until the clock is past this time, unless that takes long.
    async fn wait_for_clock(&self, time_us: i64) -> Result<(), StorageError> {
        let backend = self.readers.get_database_backend();
        loop {
            let sql = format!("SELECT {} AS now_us", clock(backend));
            let row = self.readers.query_one_raw(Statement::from_string(backend, sql)).await?;
            let now_us: i64 = row.map_or(Ok(i64::MAX), |row| row.try_get("", "now_us"))?;
            let Some(ahead) = ahead(time_us, now_us) else { return Ok(()) };
            tokio::time::sleep(ahead).await;
        }
    }
}

/// How long until a time is past that is a little ahead of the clock.
fn ahead(time_us: i64, now_us: i64) -> Option<Duration> {
    let ahead_us = time_us.saturating_sub(now_us).saturating_add(1);
    let ahead = Duration::from_micros(ahead_us.try_into().unwrap_or(0));
    (!ahead.is_zero() && ahead <= AHEAD_MAX).then_some(ahead)
}

/// Whether this time is longer ago than that, by this machine's clock.
fn is_before(time_us: i64, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = now.saturating_sub(age).as_micros();
    i128::from(time_us) < i128::try_from(limit).unwrap_or(i128::MAX)
}

impl Probe {
    /// No connection is made yet. The flag is that of the process's writers.
    pub(in crate::storage) fn new(
        pool: SqlitePool,
        file: Arc<DatabaseFile>,
        flag: WriteFlag,
    ) -> Self {
        Self { pool, file, flag, last: Arc::default() }
    }

    /// Closes the connection.
    pub(in crate::storage) async fn close(&self) {
        self.pool.close().await;
    }

    /// Waits until the transaction that has the write lock, if there is one, has ended.
    async fn settle(&self) -> Result<(), StorageError> {
        if self.file.check().is_err() {
            // No change is made to a file that is not at its path, and what is there is not opened.
            return Ok(());
        }
        let asked_at = Instant::now();
        let mut last = self.last.clone().lock_owned().await;
        if last.is_some_and(|began_at| began_at > asked_at) {
            return Ok(());
        }
        // A task of its own: whoever waits may go away in the middle, and must not leave a
        // transaction behind, nor a connection that is still at work to the next one.
        let (pool, flag) = (self.pool.clone(), self.flag.clone());
        let looking = tokio::spawn(async move {
            let began_at = Instant::now();
            look(pool, flag).await?;
            *last = Some(began_at);
            Ok(())
        });
        looking.await.map_err(|error| StorageError::Unavailable(error.to_string()))?
    }
}

/// Returns when the write lock was free once, or a commit was seen: no other transaction can have
/// come between.
async fn look(pool: SqlitePool, flag: WriteFlag) -> Result<(), StorageError> {
    // One connection for all looks: `data_version` tells it of others' commits.
    let mut connection = pool.acquire().await?;
    let looked = look_on(&mut connection, &flag).await;
    if looked.is_err() {
        // It may still have the lock: closed, it has not.
        connection.close().await?;
    }
    looked
}

async fn look_on(connection: &mut SqliteConnection, flag: &WriteFlag) -> Result<(), StorageError> {
    let version = data_version(connection).await?;
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        if is_free(connection, flag).await? || data_version(connection).await? != version {
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
