//! SQLite's write-ahead log: when it is moved into the database's file.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::storage::{
    StorageError,
    connect::store::{Backend, Store},
    dialect::DatabaseKind,
};

/// How long it may take to move SQLite's log into a file that is not at its path any more.
const FOLD_TIME_MAX: Duration = Duration::from_secs(1);
/// How long writers are held up for readers that keep SQLite's log from beginning anew.
const SHORTEN_WAIT_MAX_MS: u32 = 100;

impl Store {
    /// Closes the connections of reads.
    ///
    /// # Errors
    /// One cannot be closed.
    pub async fn close_readers(&self) -> Result<(), StorageError> {
        Ok(self.readers.close_by_ref().await?)
    }

    /// Closes the connections of reads. On SQLite, moves what is in the write-ahead log into the
    /// database's file, so that this alone is a whole copy.
    ///
    /// # Errors
    /// The log could not be moved, which the next server does at its start.
    pub async fn close(&self) -> Result<(), StorageError> {
        let Backend::Sqlite { file, write_lock, .. } = self.backend() else {
            return self.close_readers().await;
        };
        write_lock.close().await;
        if file.check().is_err() {
            // What is at the path now is not ours, and nothing is opened there.
            self.fold_log().await;
            return self.close_readers().await;
        }
        self.close_readers().await?;
        let admin = self.maintenance_connection().await?;
        // Another process that is reading has the log moved by itself, sooner or later.
        admin.execute_unprepared("PRAGMA busy_timeout = 500").await?;
        admin.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(admin.close().await?)
    }

    /// Whether the database is still where it was, and nowhere else: on PostgreSQL, that no second
    /// host of the URL is a primary; on SQLite, that its file is the one that is open, and can be
    /// written to. If it is another one, moves what is in the log into the file that is open, so
    /// that nothing of it is left beside a file to which it does not belong.
    ///
    /// # Errors
    /// Why changes cannot be made.
    pub async fn check_backend(&self) -> Result<(), String> {
        let file = match self.backend() {
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

    /// Moves the log into the file that is open, on a connection that is open.
    async fn fold_log(&self) {
        // With less patience than there is time.
        let fold = "PRAGMA busy_timeout = 500; PRAGMA wal_checkpoint(TRUNCATE); \
            PRAGMA busy_timeout = 10000";
        let folding = self.readers.execute_unprepared(fold);
        match tokio::time::timeout(FOLD_TIME_MAX, folding).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the log stays beside the database file"),
            Err(_) => tracing::warn!("someone reads for long: the log is moved later"),
        }
    }

    /// Has SQLite's write-ahead log begin anew if it has become long, which it does by itself only
    /// at a moment at which nobody reads. Writers wait meanwhile, for a tenth of a second
    /// at most if somebody reads for longer. Returns whether that was so.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn shorten_log(&self) -> Result<bool, StorageError> {
        let Backend::Sqlite { file, .. } = self.backend() else { return Ok(false) };
        if !file.has_long_log() {
            return Ok(false);
        }
        let admin = self.maintenance_connection().await?;
        let wait = format!("PRAGMA busy_timeout = {SHORTEN_WAIT_MAX_MS}");
        admin.execute_unprepared(&wait).await?;
        // Most of the work, while writers go on.
        admin.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        let shorten = DatabaseKind::Sqlite.statement("PRAGMA wal_checkpoint(TRUNCATE)", []);
        let row = admin.query_one_raw(shorten).await?;
        let is_busy: i32 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        admin.close().await?;
        Ok(is_busy != 0)
    }
}
