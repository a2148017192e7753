//! Connections, and what is set on each of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, SqlxError,
    sqlx::{
        self, Connection,
        pool::{PoolConnectionMetadata, PoolOptions},
        postgres::{PgConnectOptions, PgPool, Postgres},
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous},
    },
};

use crate::storage::{
    ConnectError, DatabaseKind, DatabaseUrl, StorageError, Writer,
    connections::{Budget, CONNECTIONS_MAX_DEFAULT, ReadPermits},
    hosts::{self, Hosts, Wanted},
    settled::{Probe, WriteFlag},
    url::Options,
};

/// The name of every connection: by it a server tells its peers' locks from a stranger's.
pub(super) const APPLICATION_NAME: &str = "passbook";
/// How long a transaction that has no turn waits for a lock. A wait that is longer means that
/// other servers change the same accounts: then they take turns, rather than that each holds some
/// rows while it waits for others. Too short, and a collision that would be over in a moment costs
/// a transaction; too long, and servers collide for long before they take turns.
const POSTGRES_LOCK_TIMEOUT: &str = "2ms";
/// A writer's statement that runs longer is broken off: far above any healthy one, and below the
/// time of an attempt. (COMMIT is not subject to it, and must not be: one that waits for a
/// synchronous standby would be made without it.)
const POSTGRES_STATEMENT_TIMEOUT: &str = "4s";
/// A read that takes longer is broken off.
const POSTGRES_READ_TIMEOUT: &str = "6s";
/// A transaction that nobody drives any more is ended after this; an import reads its input in
/// between.
const POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT: &str = "10s";
/// The same for a writer's, which holds locks: between two of its statements lie milliseconds.
/// Below the time of an attempt, so that who tries again finds the rows free.
const POSTGRES_IDLE_WRITER_TIMEOUT: &str = "5s";
/// How soon a backend that waits for a lock notices that its server process was killed.
const POSTGRES_CONNECTION_CHECK: &str = "2s";
/// The database's system asks a silent peer for a sign of life after this many seconds, and again
/// this many times, a second apart; then it ends the session. Without it, one whose packets were
/// lost in the middle of a message would keep its locks for hours: no time-out of the database
/// counts while it waits for the rest.
const POSTGRES_KEEPALIVES_IDLE: &str = "4";
const POSTGRES_KEEPALIVES_INTERVAL: &str = "1";
const POSTGRES_KEEPALIVES_COUNT: &str = "4";
/// How long SQLite itself waits for the write lock before the worker looks up and tries again.
/// Short, because SQLite polls with growing pauses, and two busy processes are served more
/// evenly by frequent tries.
const SQLITE_WRITER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);
/// Readers and migrations meet a lock only in rare moments (recovery, another migration).
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of 4 KiB in the write-ahead log before they are moved into the database's file. A page
/// that changes often is moved once for many changes; the log takes 64 MiB on the disk.
const SQLITE_CHECKPOINT_PAGES: &str = "16384";
/// What the writer keeps in memory of the database, in KiB (SQLite takes a negative number for
/// that): the pages that a batch changes, or they go to the disk before the commit.
const SQLITE_CACHE_SIZE: &str = "-16384";
/// How long to wait for a connection: longer means that the database is not well.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for this long is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// How long that test may take; sqlx itself would wait for a dead peer for ever. Well below
/// [`ACQUIRE_TIMEOUT`], so that there is time left for a new connection.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);

/// A database, and the connections that reads share.
pub struct Store {
    place: Arc<Place>,
    pub(super) readers: DatabaseConnection,
    pub(super) read_permits: ReadPermits,
    budget: Budget,
}

/// Where it is.
enum Place {
    Sqlite {
        options: Box<SqliteConnectOptions>,
        /// Whether a transaction of this process has the write lock.
        flag: WriteFlag,
        probe: Probe,
    },
    Postgres {
        hosts: Arc<Hosts>,
        /// The pools of readers, which follow the primary: that of callers first.
        pools: Mutex<Vec<PgPool>>,
    },
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Reader,
    Writer,
    /// Looks whether SQLite's write lock is free, and never waits for it.
    Probe,
    /// Migrations: waits for locks, and is not cut off by a statement timeout.
    Admin,
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
            Place::Sqlite { options, .. } => open_sqlite(options, Role::Reader, size).await?,
            Place::Postgres { hosts, pools } => {
                let options = postgres(hosts.current().clone(), Role::Reader);
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
                let file = options.get_filename().display().to_string();
                let readers = open_sqlite(&options, Role::Reader, budget.readers).await;
                let readers = readers.map_err(|error| hosts::cannot_open(&file, &error))?;
                let flag = WriteFlag::default();
                let pool = pool_options(Role::Probe, 1);
                let pool = pool.connect_lazy_with(sqlite((*options).clone(), Role::Probe));
                let probe = Probe::new(pool, flag.clone());
                (Place::Sqlite { options, flag, probe }, readers, budget)
            }
            Options::Postgres(all) => {
                let hosts = Arc::new(Hosts::new(all, wanted));
                // The pool would not say why it has no connection.
                hosts.find().await?;
                let budget = Budget::new(match connections_max {
                    Some(connections_max) => hosts.connections_allowed(connections_max).await?,
                    None => CONNECTIONS_MAX_DEFAULT,
                });
                let options = postgres(hosts.current().clone(), Role::Reader);
                let pool = postgres_readers(&hosts, budget.readers).connect_lazy_with(options);
                let pools = Mutex::new(vec![pool.clone()]);
                (Place::Postgres { hosts, pools }, pool.into(), budget)
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
        self.close_readers().await?;
        if let Some(probe) = self.probe() {
            probe.close().await;
            let admin = self.admin().await?;
            // Another process that is reading has the log moved by itself, sooner or later.
            admin.execute_unprepared("PRAGMA busy_timeout = 500").await?;
            admin.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
            admin.close().await?;
        }
        Ok(())
    }

    /// A connection of its own for one worker, in a pool of one: what is left on it after a
    /// panic or a time-out is dropped with it and never reaches anyone else.
    ///
    /// # Errors
    /// The database cannot be reached or opened.
    pub async fn writer(&self) -> Result<Writer, StorageError> {
        let connection = self.open(Role::Writer).await?;
        let flag = match &*self.place {
            Place::Sqlite { flag, .. } => flag.clone(),
            Place::Postgres { .. } => WriteFlag::default(),
        };
        Ok(Writer { connection, made: Instant::now(), flag })
    }

    /// What looks whether the write lock is free. None on PostgreSQL.
    pub(super) fn probe(&self) -> Option<&Probe> {
        match &*self.place {
            Place::Sqlite { probe, .. } => Some(probe),
            Place::Postgres { .. } => None,
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

    pub(super) async fn admin(&self) -> Result<DatabaseConnection, StorageError> {
        self.open(Role::Admin).await
    }

    /// A pool of one. It is made here and handed to SeaORM, whose own way would log the URL at
    /// trace.
    async fn open(&self, role: Role) -> Result<DatabaseConnection, StorageError> {
        match &*self.place {
            Place::Sqlite { options, .. } => Ok(open_sqlite(options, role, 1).await?),
            Place::Postgres { hosts, .. } => {
                if hosts.are_several() {
                    self.find().await?;
                }
                let options = postgres(hosts.current().clone(), role);
                let pool = self.connect_one(options, role).await;
                if matches!(pool, Err(SqlxError::PoolTimedOut)) {
                    // The pool does not say why; whoever asks directly is told.
                    hosts.find().await?;
                }
                Ok(pool?.into())
            }
        }
    }

    /// Whoever writes goes before those who read.
    async fn connect_one(
        &self,
        options: PgConnectOptions,
        role: Role,
    ) -> Result<PgPool, SqlxError> {
        let connecting = pool_options(role, 1).connect_with(options);
        tokio::select! {
            biased;
            connected = connecting => connected,
            () = self.read_permits.make_room(self.readers.get_postgres_connection_pool()) => {
                Err(SqlxError::PoolClosed)
            }
        }
    }

    /// Looks for the server that is to be used, and has the readers use it. There is nothing to
    /// look for on SQLite.
    ///
    /// # Errors
    /// There is none, and why.
    pub async fn find(&self) -> Result<(), ConnectError> {
        let Place::Postgres { hosts, pools } = &*self.place else { return Ok(()) };
        hosts.find().await?;
        if hosts.are_several() {
            for pool in lock(pools).iter() {
                pool.set_connect_options(postgres(hosts.current().clone(), Role::Reader));
            }
        }
        Ok(())
    }
}

fn lock(pools: &Mutex<Vec<PgPool>>) -> MutexGuard<'_, Vec<PgPool>> {
    pools.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open_sqlite(
    options: &SqliteConnectOptions,
    role: Role,
    size: u32,
) -> Result<DatabaseConnection, SqlxError> {
    let options = sqlite(options.clone(), role);
    let pool: SqlitePool = pool_options(role, size).connect_with(options).await?;
    Ok(pool.into())
}

/// What is read at a standby may lack what was acknowledged.
fn postgres_readers(hosts: &Arc<Hosts>, size: u32) -> PoolOptions<Postgres> {
    let (of_new, of_old) = (hosts.clone(), hosts.clone());
    pool_options(Role::Reader, size)
        .after_connect(move |connection, _| {
            let hosts = of_new.clone();
            Box::pin(async move { hosts.check(connection).await.map_err(SqlxError::Protocol) })
        })
        .before_acquire(move |connection, metadata| {
            let is_outdated = of_old.is_outdated(metadata.age);
            Box::pin(async move {
                if is_outdated { Err(dead()) } else { is_alive(connection, metadata).await }
            })
        })
}

fn pool_options<DB: sqlx::Database>(role: Role, size: u32) -> PoolOptions<DB> {
    let options = PoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| Box::pin(is_alive(connection, metadata)));
    if role != Role::Reader {
        return options;
    }
    // A read whose caller has gone may leave a connection to a dead peer behind. A writer's pool
    // is thrown away as a whole.
    options.after_release(|connection, _| {
        Box::pin(async move { answers(connection).await.then_some(true).ok_or_else(dead) })
    })
}

async fn is_alive<C: Connection>(
    connection: &mut C,
    metadata: PoolConnectionMetadata,
) -> Result<bool, SqlxError> {
    let is_fresh = metadata.idle_for < TEST_AFTER_IDLE;
    (is_fresh || answers(connection).await).then_some(true).ok_or_else(dead)
}

/// As an error it closes the connection without a word more to the peer.
fn dead() -> SqlxError {
    SqlxError::Io(std::io::ErrorKind::TimedOut.into())
}

async fn answers<C: Connection>(connection: &mut C) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

fn postgres(options: PgConnectOptions, role: Role) -> PgConnectOptions {
    let options = options.application_name(APPLICATION_NAME).options([
        ("default_transaction_isolation", "read committed"),
        ("idle_in_transaction_session_timeout", POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT),
        ("client_connection_check_interval", POSTGRES_CONNECTION_CHECK),
        ("tcp_keepalives_idle", POSTGRES_KEEPALIVES_IDLE),
        ("tcp_keepalives_interval", POSTGRES_KEEPALIVES_INTERVAL),
        ("tcp_keepalives_count", POSTGRES_KEEPALIVES_COUNT),
        // An acknowledged change is on disk, whatever the server's default is.
        ("synchronous_commit", "on"),
        // Compiling these short statements costs more than running them.
        ("jit", "off"),
    ]);
    match role {
        Role::Reader => options.options([
            ("statement_timeout", POSTGRES_READ_TIMEOUT),
            // A generic plan made while a table was empty scans it when it is large.
            ("plan_cache_mode", "force_custom_plan"),
        ]),
        Role::Writer => options.options([
            ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT),
            ("lock_timeout", POSTGRES_LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", POSTGRES_IDLE_WRITER_TIMEOUT),
            // All that a writer does is to find rows by their keys, for which one plan is right
            // whatever the size of the tables: an index look-up for each. So each statement is
            // planned once a connection, and without the choices that would be right only for
            // the size of the moment.
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]),
        Role::Admin | Role::Probe => options,
    }
}

fn sqlite(options: SqliteConnectOptions, role: Role) -> SqliteConnectOptions {
    let busy_timeout = match role {
        Role::Writer => SQLITE_WRITER_BUSY_TIMEOUT,
        Role::Probe => Duration::ZERO,
        Role::Reader | Role::Admin => SQLITE_BUSY_TIMEOUT,
    };
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose acknowledged changes when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout);
    match role {
        Role::Reader => options.pragma("query_only", "on"),
        Role::Writer => options
            .pragma("wal_autocheckpoint", SQLITE_CHECKPOINT_PAGES)
            .pragma("cache_size", SQLITE_CACHE_SIZE),
        Role::Admin | Role::Probe => options,
    }
}
