//! The whole ledger as of one instant, on several connections, beside running servers.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseTransaction, SqliteTransactionMode};

use crate::storage::{
    StorageError, Store, connect::session::Role, dialect::DatabaseKind, write::transaction,
};

/// A snapshot is read by key, page after page. Scanning the index is right for that, whatever the
/// size of the tables.
const POSTGRES_SETTINGS: &str = "\
    SELECT set_config('enable_seqscan', 'off', true), \
        set_config('enable_bitmapscan', 'off', true), \
        set_config('enable_hashjoin', 'off', true), \
        set_config('enable_mergejoin', 'off', true)";

/// 64 MiB of cache: entries are looked up by name all over the file.
const SQLITE_SETTINGS: &str = "PRAGMA cache_size = -65536";

/// A read-only view of one instant, released when dropped.
pub struct Snapshot {
    /// At least one, each on its own connection; all see the same rows.
    connections: Vec<Arc<DatabaseTransaction>>,
}

impl Store {
    /// Takes a snapshot of the ledger on this many connections.
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

    async fn begin_reading(&self) -> Result<DatabaseTransaction, StorageError> {
        let connection = self.open(Role::Snapshot).await?;
        transaction::begin_in(&connection, SqliteTransactionMode::Deferred).await
    }

    /// The first transaction exports its snapshot, and the others import it.
    async fn postgres_snapshot(
        &self,
        connections: usize,
    ) -> Result<Vec<DatabaseTransaction>, StorageError> {
        let first = self.begin_reading().await?;
        let export = DatabaseKind::Postgres.statement("SELECT pg_export_snapshot()", []);
        let Some(row) = first.query_one_raw(export).await? else {
            return Err(StorageError::Unavailable("the database exported no snapshot".to_owned()));
        };
        let name: String = row.try_get_by_index(0)?;
        let mut all = vec![first];
        while all.len() < connections {
            let next = self.begin_reading().await?;
            // The server made the name, of hexadecimal digits and hyphens.
            next.execute_unprepared(&format!("SET TRANSACTION SNAPSHOT '{name}'")).await?;
            all.push(next);
        }
        for transaction in &all {
            look_up_by_index(transaction).await?;
        }
        Ok(all)
    }

    /// All transactions take the same snapshot, since the write lock is held meanwhile.
    async fn sqlite_snapshot(
        &self,
        connections: usize,
    ) -> Result<Vec<DatabaseTransaction>, StorageError> {
        // A read-only file has no write lock to take: one connection sees one instant.
        let (lock, connections) = match self.is_read_only() {
            true => (None, 1),
            false => {
                (Some(transaction::begin(&self.open(Role::Maintenance).await?).await?), connections)
            }
        };
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            let next = self.begin_reading().await?;
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
    /// The transactions; at least one.
    pub(super) fn connections(&self) -> &[Arc<DatabaseTransaction>] {
        &self.connections
    }
}

/// On PostgreSQL, makes a transaction read along indexes, page by page.
pub async fn look_up_by_index(transaction: &DatabaseTransaction) -> Result<(), StorageError> {
    if DatabaseKind::of(transaction) == DatabaseKind::Postgres {
        transaction.execute_unprepared(POSTGRES_SETTINGS).await?;
    }
    Ok(())
}
