//! The handle to a database.

use std::sync::{Arc, Mutex};

use sea_orm::{
    DatabaseConnection, SqlxError,
    sqlx::{Database, Pool, postgres::PgPool},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::lock::lock;
use crate::storage::{
    StorageError,
    connect::{
        active_transactions::ActiveTransactions,
        connect_error::ConnectError,
        connection_counts::{
            CONNECTIONS_MAX_DEFAULT, ConnectionCounts, OpenConnections, ReadPermits,
        },
        hosts::Hosts,
        pool::{open_file, open_postgres, open_sqlite, pool_options, postgres_readers},
        session::{self, Role},
        sqlite_file::DatabaseFile,
        target::{COMMAND_CONNECT_TIME_MAX, CONNECT_TIME_MAX, TargetSession},
        url::{DatabaseUrl, Options},
        write_lock::{WriteFlag, WriteLockProbe},
    },
    dialect::DatabaseKind,
};

/// A database, and the connections that reads share.
pub struct Store {
    pub(in crate::storage) backend: Arc<Backend>,
    pub(in crate::storage) readers: DatabaseConnection,
    read_permits: ReadPermits,
    connection_counts: ConnectionCounts,
}

/// The file or the servers behind a [`Store`].
pub(in crate::storage) enum Backend {
    Sqlite {
        file: Arc<DatabaseFile>,
        /// Whether a transaction of this process has the write lock.
        flag: WriteFlag,
        write_lock: WriteLockProbe,
    },
    Postgres {
        hosts: Arc<Hosts>,
        /// The pools of readers, which follow the primary: that of callers first.
        pools: Mutex<Vec<PgPool>>,
        active_transactions: ActiveTransactions,
    },
}

impl Store {
    /// Connects to a database that takes changes. Does not look at the schema. A server opens at
    /// most `connections_max` connections, and no more than its role, the database and PostgreSQL
    /// allow. A command has no maximum, and waits longer for a connection.
    ///
    /// # Errors
    /// It cannot be reached or opened, it is a standby, or it allows too few connections.
    pub async fn connect(
        url: DatabaseUrl,
        connections_max: Option<u32>,
    ) -> Result<Self, ConnectError> {
        Self::connect_to(url, TargetSession::Primary, connections_max).await
    }

    /// How the connections are divided.
    #[must_use]
    pub fn connection_counts(&self) -> ConnectionCounts {
        self.connection_counts
    }

    /// A handle to the same database, with connections reserved for what the service itself reads.
    pub async fn reserve(&self) -> Result<Self, StorageError> {
        let size = self.connection_counts.reserved;
        let readers = match &*self.backend {
            Backend::Sqlite { file, .. } => open_sqlite(file, Role::Reader, size).await?,
            Backend::Postgres { hosts, pools, .. } => {
                let options = session::start_up(hosts.current().clone());
                let pool = postgres_readers(hosts, size).connect_lazy_with(options);
                lock(pools).push(pool.clone());
                pool.into()
            }
        };
        let read_permits = ReadPermits::new(size);
        let (backend, connection_counts) = (self.backend.clone(), self.connection_counts);
        Ok(Self { backend, readers, read_permits, connection_counts })
    }

    /// Connects for reads only: to the primary, or to a standby if no primary answers. All later
    /// connections are to the same host.
    pub async fn connect_to_read(url: DatabaseUrl) -> Result<Self, ConnectError> {
        Self::connect_to(url, TargetSession::PreferPrimary, None).await
    }

    async fn connect_to(
        url: DatabaseUrl,
        target: TargetSession,
        connections_max: Option<u32>,
    ) -> Result<Self, ConnectError> {
        let (backend, readers, connection_counts) = match url.0 {
            Options::Sqlite(mut options) => {
                let counts = ConnectionCounts::new(CONNECTIONS_MAX_DEFAULT);
                if target == TargetSession::PreferPrimary {
                    *options = options.create_if_missing(false);
                }
                let file = DatabaseFile::new(*options, target)?;
                let (file, readers) = open_file(file, target, counts.readers).await?;
                let flag = WriteFlag::on(file.open_log());
                let file = Arc::new(file);
                let pool = pool_options(Role::Probe, 1);
                let pool = pool.connect_lazy_with(file.options(Role::Probe));
                let write_lock = WriteLockProbe::new(pool, file.clone(), flag.clone());
                (Backend::Sqlite { file, flag, write_lock }, readers, counts)
            }
            Options::Postgres(all) => {
                let connect_time_max = match connections_max {
                    Some(_) => CONNECT_TIME_MAX,
                    None => COMMAND_CONNECT_TIME_MAX,
                };
                let hosts = Arc::new(Hosts::new(all, target, connect_time_max));
                // A pool would not say why it has no connection.
                hosts.select_server().await?;
                let overridden = session::overridden(hosts.current());
                if !overridden.is_empty() {
                    let settings = overridden.join(", ");
                    tracing::warn!(settings, "the database's URL overrides settings");
                }
                let counts = ConnectionCounts::new(match connections_max {
                    Some(connections_max) => hosts.connections_allowed(connections_max).await?,
                    None => CONNECTIONS_MAX_DEFAULT,
                });
                let options = session::start_up(hosts.current().clone());
                let pool = postgres_readers(&hosts, counts.readers).connect_lazy_with(options);
                let pools = Mutex::new(vec![pool.clone()]);
                let active_transactions = ActiveTransactions::default();
                (Backend::Postgres { hosts, pools, active_transactions }, pool.into(), counts)
            }
        };
        let read_permits = ReadPermits::new(connection_counts.readers);
        Ok(Self { backend: Arc::new(backend), readers, read_permits, connection_counts })
    }

    /// The kind of database.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        match &*self.backend {
            Backend::Sqlite { .. } => DatabaseKind::Sqlite,
            Backend::Postgres { .. } => DatabaseKind::Postgres,
        }
    }

    /// A permit to read, in the order in which permits are asked for.
    pub async fn read_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.read_permits.permits.clone().acquire_owned().await.ok()
    }

    /// A permit to scan many rows; its holder asks for a permit to read besides.
    pub async fn scan_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.read_permits.scans.clone().acquire_owned().await.ok()
    }

    /// The connections that reads share.
    #[must_use]
    pub fn reader_connections(&self) -> OpenConnections {
        match self.kind() {
            DatabaseKind::Postgres => count(self.readers.get_postgres_connection_pool()),
            DatabaseKind::Sqlite => count(self.readers.get_sqlite_connection_pool()),
        }
    }

    /// Marks all connections that are open now as stale: after one of them was lost without an error,
    /// because otherwise each would be waited for until its own timeout, and after a migration.
    pub fn invalidate_connections(&self) {
        if let Backend::Postgres { hosts, .. } = &*self.backend {
            hosts.invalidate_connections();
        }
    }

    /// How often a standby has taken the place of the primary, as far as this process has noticed. It
    /// may have lost the newest changes. A read that ends while the number is the same had the same
    /// primary. Always zero on SQLite.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        match &*self.backend {
            Backend::Sqlite { .. } => 0,
            Backend::Postgres { hosts, .. } => hosts.failovers(),
        }
    }

    /// Whether the database is a file that is open for reading only.
    pub(in crate::storage) fn is_read_only(&self) -> bool {
        matches!(&*self.backend, Backend::Sqlite { file, .. } if file.is_read_only())
    }

    /// Opens a pool of one connection. SeaORM gets a finished pool: its own `connect` would log the
    /// URL at trace.
    pub(in crate::storage) async fn open(
        &self,
        role: Role,
    ) -> Result<DatabaseConnection, StorageError> {
        match &*self.backend {
            Backend::Sqlite { file, .. } => {
                file.check().map_err(StorageError::Unavailable)?;
                Ok(open_sqlite(file, role, 1).await?)
            }
            Backend::Postgres { hosts, .. } => {
                // Without another host there is nothing to select: the new session checks its server.
                if hosts.may_switch() {
                    self.select_server().await?;
                }
                let room = self.read_permits.make_room(self.readers.get_postgres_connection_pool());
                let opened = tokio::select! {
                    biased;
                    opened = open_postgres(hosts, role) => opened,
                    // Writes go before reads.
                    () = room => Err(SqlxError::PoolClosed.into()),
                };
                Ok(opened?.into())
            }
        }
    }

    /// Selects the server to use and points the readers at it. Does nothing on SQLite.
    pub async fn select_server(&self) -> Result<(), ConnectError> {
        let Backend::Postgres { hosts, pools, .. } = &*self.backend else { return Ok(()) };
        hosts.select_server().await?;
        if hosts.may_switch() {
            for pool in lock(pools).iter() {
                pool.set_connect_options(session::start_up(hosts.current().clone()));
            }
        }
        Ok(())
    }
}

fn count<DB: Database>(pool: &Pool<DB>) -> OpenConnections {
    let (all, idle) = (pool.size() as usize, pool.num_idle());
    // The two are not read in one step.
    OpenConnections { idle, in_use: all.saturating_sub(idle) }
}

#[cfg(test)]
impl Store {
    /// A new ledger on SQLite, in this folder.
    pub(crate) async fn for_tests(folder: &tempfile::TempDir) -> Self {
        let path = folder.path().join("passbook.db");
        let url = DatabaseUrl::parse(&format!("sqlite://{}?mode=rwc", path.display())).unwrap();
        let store = Self::connect(url, None).await.unwrap();
        store.migrate_up().await.unwrap();
        store
    }
}
