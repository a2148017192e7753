//! The whole ledger as of one instant, on several connections, beside servers that go on.

use std::sync::Arc;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

use crate::storage::{StorageError, Store, dialect::DatabaseKind, write::transaction};

/// What is read of a snapshot is found by its keys, page after page, for which one plan is right
/// whatever the size of the tables: along the index.
const POSTGRES_SETTINGS: &str = "\
    SELECT set_config('enable_seqscan', 'off', true), \
        set_config('enable_bitmapscan', 'off', true), \
        set_config('enable_hashjoin', 'off', true), \
        set_config('enable_mergejoin', 'off', true)";

/// 64 MiB for pages: entries are found by name all over the file.
const SQLITE_SETTINGS: &str = "PRAGMA cache_size = -65536";

/// One instant. Reads only; given up when dropped.
pub struct Snapshot {
    /// Each on a connection of its own; all see the same.
    connections: Vec<Arc<DatabaseTransaction>>,
}

impl Store {
    /// The ledger as it is now, on this many connections.
    ///
    /// # Errors
    /// The database does not answer; on SQLite also if others kept its write lock for ten
    /// seconds.
    pub async fn snapshot(&self, connections: usize) -> Result<Snapshot, StorageError> {
        let connections = match self.kind() {
            DatabaseKind::Sqlite => self.sqlite_snapshot(connections).await?,
            DatabaseKind::Postgres => self.postgres_snapshot(connections).await?,
        };
        Ok(Snapshot { connections: connections.into_iter().map(Arc::new).collect() })
    }

    /// The first transaction exports its snapshot, the others take it.
    async fn postgres_snapshot(
        &self,
        connections: usize,
    ) -> Result<Vec<DatabaseTransaction>, StorageError> {
        let first = begin_reading(&self.snapshot_connection().await?).await?;
        let export = DatabaseKind::Postgres.statement("SELECT pg_export_snapshot()", []);
        let Some(row) = first.query_one_raw(export).await? else {
            return Err(StorageError::Unavailable("no snapshot was exported".to_owned()));
        };
        let name: String = row.try_get_by_index(0)?;
        let mut all = vec![first];
        while all.len() < connections {
            let next = begin_reading(&self.snapshot_connection().await?).await?;
            // The name is the server's own, of hexadecimal digits and hyphens.
            next.execute_unprepared(&format!("SET TRANSACTION SNAPSHOT '{name}'")).await?;
            all.push(next);
        }
        for transaction in &all {
            look_up_by_index(transaction).await?;
        }
        Ok(all)
    }

    /// Nobody writes while the transactions take their snapshots, so they take the same.
    async fn sqlite_snapshot(
        &self,
        connections: usize,
    ) -> Result<Vec<DatabaseTransaction>, StorageError> {
        // Who may only read cannot keep others from writing: one connection sees one instant.
        let (lock, connections) = match self.is_read_only() {
            true => (None, 1),
            false => (
                Some(transaction::begin(&self.maintenance_connection().await?).await?),
                connections,
            ),
        };
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            let next = begin_reading(&self.snapshot_connection().await?).await?;
            next.execute_unprepared(SQLITE_SETTINGS).await?;
            // The snapshot is taken by the first read, not by BEGIN.
            next.execute_unprepared("SELECT 1 FROM sqlite_schema LIMIT 1").await?;
            all.push(next);
        }
        if let Some(lock) = lock {
            lock.rollback().await?;
        }
        Ok(all)
    }
}

impl Snapshot {
    /// The connections; there is at least one.
    pub(super) fn connections(&self) -> &[Arc<DatabaseTransaction>] {
        &self.connections
    }
}

async fn begin_reading(
    connection: &DatabaseConnection,
) -> Result<DatabaseTransaction, StorageError> {
    let is_sqlite = DatabaseKind::of(connection) == DatabaseKind::Sqlite;
    let options = TransactionOptions {
        sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Deferred),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

/// Sets what a transaction that reads the whole ledger page by page needs on PostgreSQL.
pub async fn look_up_by_index(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    if DatabaseKind::of(transaction) == DatabaseKind::Postgres {
        transaction.execute_unprepared(POSTGRES_SETTINGS).await?;
    }
    Ok(())
}
