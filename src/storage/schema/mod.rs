//! The version of the schema, and migrations under a lock.
//!
//! The statements of migrations stand in the crate `migration`; this module decides when they run.

mod applied;
mod preconditions;
mod usable;

use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction};

pub use self::applied::migration_names;
use crate::storage::{
    DatabaseKind, StorageError, Store,
    connect::session::Role,
    schema::applied::{applied, hand_back, take_over},
    write::transaction,
};

/// Any number that nobody else uses for advisory locks in this database: "passbook" in ASCII.
const MIGRATION_LOCK: i64 = 0x7061_7373_626f_6f6b;
/// How long one attempt of a migration waits for a table, in milliseconds. All later users of the
/// table wait behind it, while an export or a backup may hold the table for hours.
const TABLE_WAIT_MAX_MS: u32 = 500;
/// The pause between two attempts of a migration.
const MIGRATION_BACKOFF: Duration = Duration::from_secs(2);
/// The number of attempts: two to three minutes.
const MIGRATION_ATTEMPTS_MAX: u32 = 60;

/// The oldest snapshot, up to which vacuum can remove old versions of rows. Without
/// pg_read_all_stats, PostgreSQL hides the snapshots of other roles.
const OLDEST_SNAPSHOT: &str = "\
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::double precision \
        AS seconds \
    FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL";

/// How the database's schema compares with this program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStatus {
    /// No migration has been applied.
    Missing,
    /// These migrations have not been applied.
    Behind(Vec<String>),
    /// The schema is this program's.
    Current,
    /// A newer program has applied these migrations.
    Ahead(Vec<String>),
}

/// The name of the newest migration that this program knows: its schema version.
#[must_use]
pub fn schema_version() -> String {
    migration_names().into_iter().next_back().unwrap_or_default()
}

impl Store {
    /// Compares the database's schema with this program's. Changes nothing.
    pub async fn schema_status(&self) -> Result<SchemaStatus, StorageError> {
        let applied = applied(&self.readers).await?;
        let known = migration_names();
        let unknown: Vec<_> = applied.difference(&known).cloned().collect();
        let pending: Vec<_> = known.difference(&applied).cloned().collect();
        Ok(match (applied.is_empty(), unknown.is_empty(), pending.is_empty()) {
            (true, _, _) => SchemaStatus::Missing,
            (false, false, _) => SchemaStatus::Ahead(unknown),
            (false, true, false) => SchemaStatus::Behind(pending),
            (false, true, true) => SchemaStatus::Current,
        })
    }

    /// The age of the oldest snapshot of this database: vacuum has removed no version of a row
    /// since. Zero on SQLite.
    pub async fn oldest_snapshot(&self) -> Result<Duration, StorageError> {
        if self.kind() == DatabaseKind::Sqlite {
            return Ok(Duration::ZERO);
        }
        let statement = DatabaseKind::Postgres.statement(OLDEST_SNAPSHOT, []);
        let row = self.readers.query_one_raw(statement).await?;
        let seconds: f64 = row.map_or(Ok(0.0), |row| row.try_get("", "seconds"))?;
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// Every migration that this program knows, with whether it has been applied.
    pub async fn migrations(&self) -> Result<Vec<(String, bool)>, StorageError> {
        let applied = applied(&self.readers).await?;
        Ok(migration_names()
            .into_iter()
            .map(|name| (name.clone(), applied.contains(&name)))
            .collect())
    }

    /// Applies all pending migrations or none. Other processes wait meanwhile.
    ///
    /// # Errors
    /// The database does not answer or does not allow it, other tables are in the way, a table is
    /// in use for too long, or a migration failed.
    pub async fn migrate_up(&self) -> Result<(), StorageError> {
        self.migrate(async |transaction| {
            let applied = applied(transaction).await?;
            if applied == migration_names() {
                return Ok(());
            }
            preconditions::require_right(transaction).await?;
            if applied.is_empty() {
                preconditions::require_free(transaction).await?;
            }
            Ok(Migrator::up(transaction, None).await?)
        })
        .await
    }

    /// Reverts the latest migration, and drops what only its schema stores.
    ///
    /// # Errors
    /// The database does not answer, a table is in use for too long, the migration failed, or it is the
    /// first one, which made the tables, and there are accounts in them.
    pub async fn migrate_down(&self) -> Result<(), StorageError> {
        self.migrate(async |transaction| {
            if applied(transaction).await?.len() == 1 {
                preconditions::require_no_account(transaction).await?;
            }
            Ok(Migrator::down(transaction, Some(1)).await?)
        })
        .await
    }

    async fn migrate(
        &self,
        steps: impl AsyncFn(&DatabaseTransaction) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let maintenance = self.open(Role::Maintenance).await?;
        for _ in 0..MIGRATION_ATTEMPTS_MAX {
            match try_to_migrate(&maintenance, &steps).await {
                Err(StorageError::LockTimeout(_)) => {
                    tracing::warn!(
                        "a long transaction uses the tables; the migration is tried again"
                    );
                    tokio::time::sleep(MIGRATION_BACKOFF).await;
                }
                done => return done,
            }
        }
        let reason = "a long transaction, such as a backup, uses the tables; nothing was changed";
        Err(StorageError::LockTimeout(reason.to_owned()))
    }
}

async fn try_to_migrate(
    maintenance: &DatabaseConnection,
    steps: &impl AsyncFn(&DatabaseTransaction) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let transaction = transaction::begin(maintenance).await?;
    if DatabaseKind::of(maintenance) == DatabaseKind::Postgres {
        // The lock ends with the transaction, however the process ends.
        let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
        transaction.execute_unprepared(&lock).await?;
        let wait = format!("SET LOCAL lock_timeout = {TABLE_WAIT_MAX_MS}");
        transaction.execute_unprepared(&wait).await?;
    }
    let is_mirrored = take_over(&transaction).await?;
    steps(&transaction).await?;
    if is_mirrored {
        hand_back(&transaction).await?;
    }
    Ok(transaction.commit().await?)
}
