//! SQLite's write-ahead log: when it is moved into the database's file.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::storage::{
    StorageError,
    connect::{
        pool::open_sqlite,
        session::Role,
        sqlite_file::BUSY_TIMEOUT,
        store::{Backend, Store},
    },
    dialect::DatabaseKind,
};

/// Time limit for moving the log into a file that is no longer at its path.
const FOLD_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the move waits for the locks of other connections. Below [`FOLD_TIME_MAX`].
const FOLD_WAIT_MAX: Duration = Duration::from_millis(500);
/// How long writers wait for readers that keep the log from being restarted.
const SHORTEN_WAIT_MAX: Duration = Duration::from_millis(100);

impl Store {
    /// Closes the readers' connections.
    pub async fn close_readers(&self) -> Result<(), StorageError> {
        Ok(self.readers.close_by_ref().await?)
    }

    /// Closes the readers' connections. On SQLite, moves the write-ahead log into the database's
    /// file, so that this file alone is a whole copy. If another process uses the log, warns of it.
    ///
    /// # Errors
    /// The log could not be moved, which the next server does at its start.
    pub async fn close(&self) -> Result<(), StorageError> {
        let Backend::Sqlite { file, write_lock, .. } = &*self.backend else {
            return self.close_readers().await;
        };
        write_lock.close().await;
        if file.check().is_err() {
            // The file at the path now is not ours: nothing is opened there.
            self.fold_log().await;
            return self.close_readers().await;
        }
        self.close_readers().await?;
        if !file.has_log() || file.check_alone().is_err() {
            return Ok(());
        }
        let maintenance = open_sqlite(&file.reopened(), Role::Maintenance, 1).await?;
        // If another process is reading, its own close moves the log.
        maintenance.execute_unprepared(&busy_timeout(FOLD_WAIT_MAX)).await?;
        if truncate_log(&maintenance).await? {
            tracing::warn!(
                "another process uses the database, so a part of it is still in the write-ahead log: \
                 the database file alone is no whole copy"
            );
        }
        Ok(maintenance.close().await?)
    }

    /// Checks that changes go to the right database: on PostgreSQL, that no second host of the URL
    /// is a primary; on SQLite, that the file at the path is the one that is open, and writable. If
    /// it is another file, moves the log into the open one, so that no part of the log stays beside
    /// a file to which it does not belong.
    pub async fn check_backend(&self) -> Result<(), String> {
        let file = match &*self.backend {
            Backend::Sqlite { file, .. } => file,
            Backend::Postgres { hosts, .. } => {
                return hosts.probe_if_due().await.map_err(|error| error.to_string());
            }
        };
        if file.check().is_err() {
            self.fold_log().await;
        }
        file.check_writable()
    }

    /// Moves the log into the open file, on an open connection.
    async fn fold_log(&self) {
        let (shorter, usual) = (busy_timeout(FOLD_WAIT_MAX), busy_timeout(BUSY_TIMEOUT));
        let fold = format!("{shorter}; PRAGMA wal_checkpoint(TRUNCATE); {usual}");
        let folding = self.readers.execute_unprepared(&fold);
        match tokio::time::timeout(FOLD_TIME_MAX, folding).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot move the write-ahead log into the database file");
            }
            Err(_) => tracing::warn!(
                "a long read delays the move of the write-ahead log into the database file"
            ),
        }
    }

    /// Restarts SQLite's write-ahead log if it has become long; SQLite itself does so only at a
    /// moment without readers. Writers wait meanwhile, for at most a tenth of a second. Returns
    /// whether a reader prevented it.
    pub async fn shorten_log(&self) -> Result<bool, StorageError> {
        let Backend::Sqlite { file, .. } = &*self.backend else { return Ok(false) };
        if !file.has_long_log() {
            return Ok(false);
        }
        let maintenance = self.open(Role::Maintenance).await?;
        maintenance.execute_unprepared(&busy_timeout(SHORTEN_WAIT_MAX)).await?;
        // Most of the work, beside writers.
        maintenance.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        let is_busy = truncate_log(&maintenance).await?;
        maintenance.close().await?;
        Ok(is_busy)
    }
}

/// The statement that sets how long a connection waits for the locks of others.
fn busy_timeout(wait: Duration) -> String {
    format!("PRAGMA busy_timeout = {}", wait.as_millis())
}

/// Moves the log into the database's file, and empties it. Returns whether another connection
/// prevented that, which is no error of SQLite.
async fn truncate_log(maintenance: &DatabaseConnection) -> Result<bool, StorageError> {
    let truncate = DatabaseKind::Sqlite.statement("PRAGMA wal_checkpoint(TRUNCATE)", []);
    let row = maintenance.query_one_raw(truncate).await?;
    let is_busy: i32 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
    Ok(is_busy != 0)
}
