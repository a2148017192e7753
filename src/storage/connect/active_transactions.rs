//! PostgreSQL's open transactions of Passbook servers.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use tokio::{sync::Mutex, time::Instant};

use crate::storage::{StorageError, connect::session::APPLICATION_NAME, dialect::DatabaseKind};

/// The clock, and the transactions of Passbook servers that have locked or written a row, with
/// their start times. A transaction without an id has no time yet, and will take a later one: it gets
/// the id with its first lock, or, if it locks no row, right before its time. Once the lock of an id
/// is gone, the next statement sees what the transaction committed. PostgreSQL may hide the start of
/// another role's transaction: it counts.
fn sql() -> String {
    let clock = DatabaseKind::Postgres.clock();
    format!(
        "SELECT clock.now_us, held.transactionid::text AS transaction_id, \
             CAST(extract(epoch FROM holder.xact_start) * 1000000 AS bigint) AS start_us \
         FROM (SELECT {clock} AS now_us) clock \
         LEFT JOIN (pg_locks held JOIN pg_stat_activity holder ON holder.pid = held.pid) \
             ON held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted \
             AND holder.datname = current_database() AND holder.application_name = $1"
    )
}

/// What one look found.
#[derive(Clone)]
pub struct TransactionList {
    began_at: Instant,
    /// By the database's clock.
    pub now_us: i64,
    /// Transaction ids, and when each transaction began, if that is not hidden.
    pub transactions: Vec<(String, Option<i64>)>,
}

/// The latest list. It serves all who had asked before it was begun, so that one statement runs at
/// a time, however many wait.
#[derive(Default)]
pub struct ActiveTransactions(Mutex<Option<TransactionList>>);

impl ActiveTransactions {
    /// The transactions that are open now.
    pub async fn list(
        &self,
        connection: &DatabaseConnection,
    ) -> Result<TransactionList, StorageError> {
        let asked_at = Instant::now();
        let mut latest = self.0.lock().await;
        if let Some(list) = latest.as_ref().filter(|list| list.began_at > asked_at) {
            return Ok(list.clone());
        }
        let began_at = Instant::now();
        let statement = DatabaseKind::Postgres.statement(sql(), [APPLICATION_NAME.into()]);
        let (mut now_us, mut transactions) = (i64::MAX, Vec::new());
        for row in connection.query_all_raw(statement).await? {
            now_us = row.try_get("", "now_us")?;
            if let Some(id) = row.try_get("", "transaction_id")? {
                transactions.push((id, row.try_get("", "start_us")?));
            }
        }
        let list = TransactionList { began_at, now_us, transactions };
        *latest = Some(list.clone());
        Ok(list)
    }
}
