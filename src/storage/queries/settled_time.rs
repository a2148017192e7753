//! Settled times: all changes up to a settled time are committed and visible.
//!
//! A change takes its time from the database's clock after it has locked its accounts, and becomes
//! visible when it has committed: a moment later, or much later if its COMMIT waits for a standby.
//! A read about that time in between would give an answer that becomes untrue. So it first waits
//! for the changes in progress, and only for these: a change that locks its accounts afterwards
//! takes a later time, and rows locked by another program get no change that has a time. On
//! PostgreSQL a change is in progress from when it has a transaction id. If it locks no row, such as
//! when it opens accounts, it takes an id before its time (`requests::RECORDS`).
//!
//! Reads of the present and writers do nothing for this.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sea_orm::ConnectionTrait;

use crate::storage::{
    StorageError, Store,
    connect::{
        active_transactions::ActiveTransactions, store::Backend, write_lock::TRANSACTION_TIME_MAX,
    },
    dialect::DatabaseKind,
};

/// How far ahead of the database's clock a time may be to be waited for: the caller's own clock may
/// be a little ahead, and SQLite's has milliseconds.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// The pauses between two lists of open transactions: a transaction takes milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl Store {
    /// Waits until this time, in microseconds since the Unix epoch, is settled: a statement that
    /// begins afterwards sees all changes that are ever made at this time or before. Does not wait
    /// for a time that is more than a second ahead.
    ///
    /// # Errors
    /// The database does not answer, or, on SQLite, the transaction of a server does not end.
    pub async fn settle(&self, time_us: i64) -> Result<(), StorageError> {
        match &*self.backend {
            Backend::Sqlite { write_lock, .. }
                if is_before(time_us, TRANSACTION_TIME_MAX) && !write_lock.is_marked() =>
            {
                Ok(())
            }
            Backend::Sqlite { write_lock, .. } => {
                self.wait_for_clock(time_us).await?;
                write_lock.wait_until_free().await
            }
            Backend::Postgres { active_transactions, .. } => {
                self.wait_for_transactions(active_transactions, time_us).await
            }
        }
    }

    /// The ids of the transactions of Passbook servers that have written or locked something, and have
    /// not ended. Once an id is gone, the next statement sees what the transaction committed. None on
    /// SQLite, which has one transaction at a time.
    pub async fn open_transactions(&self) -> Result<HashSet<String>, StorageError> {
        let Backend::Postgres { active_transactions, .. } = &*self.backend else {
            return Ok(HashSet::new());
        };
        let list = active_transactions.list(&self.readers).await?;
        Ok(list.transactions.into_iter().map(|(id, _)| id).collect())
    }

    /// On PostgreSQL: waits until the clock is past this time and the transactions that began
    /// before have ended.
    async fn wait_for_transactions(
        &self,
        active: &ActiveTransactions,
        time_us: i64,
    ) -> Result<(), StorageError> {
        let mut first = active.list(&self.readers).await?;
        while let Some(ahead) = ahead(time_us, first.now_us) {
            tokio::time::sleep(ahead).await;
            first = active.list(&self.readers).await?;
        }
        let is_earlier = |(id, start_us): (String, Option<i64>)| {
            start_us.is_none_or(|start_us| start_us <= time_us).then_some(id)
        };
        let mut pending: HashSet<_> =
            first.transactions.into_iter().filter_map(is_earlier).collect();
        let mut pause = PAUSE_MIN;
        while !pending.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let open = self.open_transactions().await?;
            pending.retain(|id| open.contains(id));
        }
        Ok(())
    }

    /// On SQLite: waits until the clock is past this time, unless that takes long.
    async fn wait_for_clock(&self, time_us: i64) -> Result<(), StorageError> {
        loop {
            let sql = format!("SELECT {} AS now_us", DatabaseKind::Sqlite.clock());
            let statement = DatabaseKind::Sqlite.statement(sql, []);
            let row = self.readers.query_one_raw(statement).await?;
            let now_us: i64 = row.map_or(Ok(i64::MAX), |row| row.try_get("", "now_us"))?;
            let Some(ahead) = ahead(time_us, now_us) else { return Ok(()) };
            tokio::time::sleep(ahead).await;
        }
    }
}

/// How long until a time has passed that is a little ahead of the clock.
fn ahead(time_us: i64, now_us: i64) -> Option<Duration> {
    let ahead_us = time_us.saturating_sub(now_us).saturating_add(1);
    let ahead = Duration::from_micros(ahead_us.try_into().unwrap_or(0));
    (!ahead.is_zero() && ahead <= AHEAD_MAX).then_some(ahead)
}

/// Whether this time is longer ago than `age`, by this machine's clock.
fn is_before(time_us: i64, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = now.saturating_sub(age).as_micros();
    i128::from(time_us) < i128::try_from(limit).unwrap_or(i128::MAX)
}
