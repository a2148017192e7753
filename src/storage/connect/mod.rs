//! Connections, and what is set on each of them.

pub mod budget;
pub mod hosts;
pub mod pool;
mod pooler;
pub mod refusal;
pub mod session;
pub mod sqlite_file;
pub mod url;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, SqlxError, Statement, sqlx::postgres::PgPool,
};

use crate::lock::lock;
use crate::storage::{
    ConnectError, DatabaseKind, DatabaseUrl, StorageError, Writer,
    connect::{
        budget::{Budget, CONNECTIONS_MAX_DEFAULT, ReadPermits},
        hosts::{Hosts, Wanted},
        pool::{open_file, open_postgres, open_sqlite, pool_options, postgres_readers},
        session::Role,
        sqlite_file::DatabaseFile,
        url::Options,
    },
    queries::settled_time::{Looks, Probe, Settling, WriteFlag},
};

/// How long it may take to move SQLite's log into a file that is not at its path any more.
const FOLD_TIME_MAX: Duration = Duration::from_secs(1);
/// How long writers are held up for readers that keep SQLite's log from beginning anew.
const SHORTEN_WAIT_MAX_MS: u32 = 100;

/// A database, and the connections that reads share.
pub struct Store {
    place: Arc<Place>,
    pub(in crate::storage) readers: DatabaseConnection,
    pub(in crate::storage) read_permits: ReadPermits,
    budget: Budget,
}

/// Where it is.
enum Place {
    Sqlite {
        file: Arc<DatabaseFile>,
        /// Whether a transaction of this process has the write lock.
        flag: WriteFlag,
        probe: Probe,
    },
    Postgres {
        hosts: Arc<Hosts>,
        /// The pools of readers, which follow the primary: that of callers first.
        pools: Mutex<Vec<PgPool>>,
        looks: Looks,
    },
}

impl Store {
    /// Connects to a database that takes changes; the schema is not looked at yet.
    ///
    /// # Errors
    /// It cannot be reached or opened, or it is a standby.
    pub async fn connect(url: DatabaseUrl) -> Result<Self, ConnectError> {
        Self::connect_to(url, Wanted::Primary, None).await
    }

    /// The same for a server that opens at most this many connections; and no more than its role,
    /// the database and PostgreSQL allow.
    ///
    /// # Errors
    /// It cannot be reached or opened, it is a standby, or it allows too few connections.
    pub async fn connect_with(
        url: DatabaseUrl,
        connections_max: u32,
    ) -> Result<Self, ConnectError> {
        Self::connect_to(url, Wanted::Primary, Some(connections_max)).await
    }

    /// What the connections are for.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// The same database, with connections of its own for what the service itself reads.
    ///
    /// # Errors
    /// On SQLite, the file cannot be opened.
    pub async fn reserve(&self) -> Result<Self, StorageError> {
        let size = self.budget.reserved;
        let readers = match &*self.place {
            Place::Sqlite { file, .. } => open_sqlite(file, Role::Reader, size).await?,
            Place::Postgres { hosts, pools, .. } => {
                let options = session::start_up(hosts.current().clone());
                let pool = postgres_readers(hosts, size).connect_lazy_with(options);
                lock(pools).push(pool.clone());
                pool.into()
            }
        };
        let read_permits = ReadPermits::new(size);
        Ok(Self { place: self.place.clone(), readers, read_permits, budget: self.budget })
    }

    /// The same for who only reads: a standby is as good, with what it has by then.
    ///
    /// # Errors
    /// It cannot be reached or opened.
    pub async fn connect_to_read(url: DatabaseUrl) -> Result<Self, ConnectError> {
        Self::connect_to(url, Wanted::Any, None).await
    }

    async fn connect_to(
        url: DatabaseUrl,
        wanted: Wanted,
        connections_max: Option<u32>,
    ) -> Result<Self, ConnectError> {
        let (place, readers, budget) = match url.0 {
            Options::Sqlite(options) => {
                let budget = Budget::new(CONNECTIONS_MAX_DEFAULT);
                let file = DatabaseFile::new(*options, wanted)?;
                let (file, readers) = open_file(file, wanted, budget.readers).await?;
                let (file, flag) = (Arc::new(file), WriteFlag::default());
                let pool = pool_options(Role::Probe, 1);
                let pool = pool.connect_lazy_with(file.options(Role::Probe));
                let probe = Probe::new(pool, file.clone(), flag.clone());
                (Place::Sqlite { file, flag, probe }, readers, budget)
            }
            Options::Postgres(all) => {
                let hosts = Arc::new(Hosts::new(all, wanted));
                // The pool would not say why it has no connection.
                hosts.find().await?;
                let overridden = hosts.overridden();
                if !overridden.is_empty() {
                    tracing::warn!(settings = overridden, "the database's URL overrides settings");
                }
                let budget = Budget::new(match connections_max {
                    Some(connections_max) => hosts.connections_allowed(connections_max).await?,
                    None => CONNECTIONS_MAX_DEFAULT,
                });
                let options = session::start_up(hosts.current().clone());
                let pool = postgres_readers(&hosts, budget.readers).connect_lazy_with(options);
                let pools = Mutex::new(vec![pool.clone()]);
                let looks = Looks::default();
                (Place::Postgres { hosts, pools, looks }, pool.into(), budget)
            }
        };
        let read_permits = ReadPermits::new(budget.readers);
        Ok(Self { place: Arc::new(place), readers, read_permits, budget })
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        match &*self.place {
            Place::Sqlite { .. } => DatabaseKind::Sqlite,
            Place::Postgres { .. } => DatabaseKind::Postgres,
        }
    }

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
        let Place::Sqlite { file, probe, .. } = &*self.place else {
            return self.close_readers().await;
        };
        probe.close().await;
        if file.check().is_err() {
            // What is at the path now is not ours, and nothing is opened there.
            self.fold_log().await;
            return self.close_readers().await;
        }
        self.close_readers().await?;
        let admin = self.admin().await?;
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
    pub async fn check_place(&self) -> Result<(), String> {
        let file = match &*self.place {
            Place::Sqlite { file, .. } => file,
            Place::Postgres { hosts, .. } => {
                return hosts.look_again().await.map_err(|error| error.to_string());
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
        let Place::Sqlite { file, .. } = &*self.place else { return Ok(false) };
        if !file.has_long_log() {
            return Ok(false);
        }
        let admin = self.admin().await?;
        let wait = format!("PRAGMA busy_timeout = {SHORTEN_WAIT_MAX_MS}");
        admin.execute_unprepared(&wait).await?;
        // Most of the work, while writers go on.
        admin.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        let shorten = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
        let row = admin.query_one_raw(shorten).await?;
        let is_busy: i32 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        admin.close().await?;
        Ok(is_busy != 0)
    }

    /// A connection of its own for one worker, in a pool of one: what is left on it after a
    /// panic or a time-out is dropped with it and never reaches anyone else.
    ///
    /// # Errors
    /// The database cannot be reached or opened.
    pub async fn writer(&self) -> Result<Writer, StorageError> {
        let connection = self.open(Role::Writer).await?;
        let (file, flag) = match &*self.place {
            Place::Sqlite { file, flag, .. } => (Some(file.clone()), flag.clone()),
            Place::Postgres { .. } => (None, WriteFlag::default()),
        };
        Ok(Writer { connection, file, made: Instant::now(), flag })
    }

    /// How it is found out what is under way.
    pub(in crate::storage) fn ways_to_settle(&self) -> Settling<'_> {
        match &*self.place {
            Place::Sqlite { probe, .. } => Settling::Sqlite(probe),
            Place::Postgres { looks, .. } => Settling::Postgres(looks),
        }
    }

    /// Whether a writer is not to be used again: the primary has moved since it was made, or a
    /// connection of its time was found dead.
    #[must_use]
    pub fn is_outdated(&self, writer: &Writer) -> bool {
        match &*self.place {
            Place::Sqlite { .. } => false,
            Place::Postgres { hosts, .. } => hosts.is_outdated(writer.made.elapsed()),
        }
    }

    /// A connection was found dead in silence: the others that there are now are not used again,
    /// rather than that each is waited for as long.
    pub fn distrust_connections(&self) {
        if let Place::Postgres { hosts, .. } = &*self.place {
            hosts.distrust_connections();
        }
    }

    pub(in crate::storage) async fn admin(&self) -> Result<DatabaseConnection, StorageError> {
        self.open(Role::Admin).await
    }

    /// Whether the database is a file that is opened for reading only.
    pub(in crate::storage) fn is_read_only(&self) -> bool {
        matches!(&*self.place, Place::Sqlite { file, .. } if file.is_read_only())
    }

    /// A connection on which every transaction only reads, and reads one snapshot.
    pub(in crate::storage) async fn snapshot_connection(
        &self,
    ) -> Result<DatabaseConnection, StorageError> {
        self.open(Role::Snapshot).await
    }

    /// A pool of one. It is made here and handed to SeaORM, whose own way would log the URL at
    /// trace.
    async fn open(&self, role: Role) -> Result<DatabaseConnection, StorageError> {
        match &*self.place {
            Place::Sqlite { file, .. } => {
                file.check().map_err(StorageError::Unavailable)?;
                Ok(open_sqlite(file, role, 1).await?)
            }
            Place::Postgres { hosts, .. } => {
                if hosts.are_several() {
                    self.find().await?;
                }
                let room = self.read_permits.make_room(self.readers.get_postgres_connection_pool());
                let opened = tokio::select! {
                    biased;
                    opened = open_postgres(hosts, role) => opened,
                    // Whoever writes goes before those who read.
                    () = room => Err(SqlxError::PoolClosed.into()),
                };
                if matches!(&opened, Err(StorageError::Unavailable(_))) {
                    // The pool does not say why; whoever asks directly is told.
                    hosts.find().await?;
                }
                Ok(opened?.into())
            }
        }
    }

    /// Looks for the server that is to be used, and has the readers use it. There is nothing to
    /// look for on SQLite.
    ///
    /// # Errors
    /// There is none, and why.
    pub async fn find(&self) -> Result<(), ConnectError> {
        let Place::Postgres { hosts, pools, .. } = &*self.place else { return Ok(()) };
        hosts.find().await?;
        if hosts.are_several() {
            for pool in lock(pools).iter() {
                pool.set_connect_options(session::start_up(hosts.current().clone()));
            }
        }
        Ok(())
    }
}
