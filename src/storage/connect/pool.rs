//! Pools of connections, and when a connection in one is not to be used any more.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    DatabaseConnection, SqlxError,
    sqlx::{
        self, ConnectOptions, Connection,
        pool::{PoolConnectionMetadata, PoolOptions},
        postgres::{PgPool, Postgres},
        sqlite::SqlitePool,
    },
};
use tokio::sync::mpsc;

use crate::storage::{
    StorageError,
    connect::{
        hosts::Hosts,
        refusal::{ConnectError, cannot_open, reason},
        session::{self, Role},
        sqlite_file::DatabaseFile,
        target::TargetSession,
    },
};

/// How long to wait for a connection: longer means that the database is not well.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for this long is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// How long that test may take; sqlx itself would wait for a dead peer for ever. Well below
/// [`ACQUIRE_TIMEOUT`], so that there is time left for a new connection.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Opens it for reads, all connections at once: later, another file could be at the path.
pub(in crate::storage) async fn open_file(
    mut file: DatabaseFile,
    target: TargetSession,
    readers: u32,
) -> Result<(DatabaseFile, DatabaseConnection), ConnectError> {
    let size = if target == TargetSession::Primary { readers } else { 1 };
    let mut opened = open_sqlite(&file, Role::Reader, size).await;
    if let (Err(_), Some(immutable)) = (&opened, file.as_immutable()) {
        file = immutable;
        opened = open_sqlite(&file, Role::Reader, size).await;
    }
    let cannot = |error| cannot_open(file.path(), reason(&error));
    let readers = opened.map_err(cannot)?;
    if target == TargetSession::Primary {
        file.remember();
    }
    Ok((file, readers))
}

/// A pool of this many connections, which are made now and kept.
pub(in crate::storage) async fn open_sqlite(
    file: &DatabaseFile,
    role: Role,
    size: u32,
) -> Result<DatabaseConnection, SqlxError> {
    // Alone, since a new file is made by its first statement, and its log as well.
    let mut first = file.options(Role::Maintenance).connect().await?;
    sqlx::raw_sql("SELECT 1 FROM sqlite_schema LIMIT 1").execute(&mut first).await?;
    let known = file.clone();
    let pool = pool_options(role, size)
        .min_connections(size)
        .idle_timeout(None)
        .max_lifetime(None)
        // One that is made later, in the place of one that broke, may find another file.
        .after_connect(move |_, _| {
            let checked = known.check();
            Box::pin(async move { checked.map_err(SqlxError::Protocol) })
        });
    let options = file.options(role).create_if_missing(false);
    let pool: SqlitePool = pool.connect_with(options).await?;
    first.close().await?;
    Ok(pool.into())
}

/// A pool of one, whose sessions are what this role needs.
pub(in crate::storage) async fn open_postgres(
    hosts: &Hosts,
    role: Role,
) -> Result<PgPool, StorageError> {
    let session = Arc::new(hosts.session(role));
    // The pool itself would try again for as long as it may, and then not say why.
    let (tell, mut refused) = mpsc::channel(1);
    let pool = pool_options(role, 1).after_connect(move |connection, _| {
        let (session, tell) = (session.clone(), tell.clone());
        Box::pin(async move {
            let prepared = session.prepare(connection).await;
            prepared.map_err(|reason| {
                // Full: it is told already.
                let _ = tell.try_send(reason.clone());
                SqlxError::Protocol(reason)
            })
        })
    });
    let options = session::start_up(hosts.current().clone());
    tokio::select! {
        connected = pool.connect_with(options) => Ok(connected?),
        Some(reason) = refused.recv() => Err(hosts.refused(reason).into()),
    }
}

/// What is read at a standby may lack what was acknowledged.
pub(in crate::storage) fn postgres_readers(hosts: &Arc<Hosts>, size: u32) -> PoolOptions<Postgres> {
    let (session, hosts) = (Arc::new(hosts.session(Role::Reader)), hosts.clone());
    pool_options(Role::Reader, size)
        .after_connect(move |connection, _| {
            let session = session.clone();
            Box::pin(async move { session.prepare(connection).await.map_err(SqlxError::Protocol) })
        })
        .before_acquire(move |connection, metadata| {
            let is_stale = hosts.is_stale(metadata.age);
            Box::pin(async move {
                if is_stale { Err(connection_lost()) } else { is_alive(connection, metadata).await }
            })
        })
}

/// What pools of both databases have in common.
pub(in crate::storage) fn pool_options<DB: sqlx::Database>(
    role: Role,
    size: u32,
) -> PoolOptions<DB> {
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
        Box::pin(async move { ping(connection).await.then_some(true).ok_or_else(connection_lost) })
    })
}

async fn is_alive<C: Connection>(
    connection: &mut C,
    metadata: PoolConnectionMetadata,
) -> Result<bool, SqlxError> {
    let is_fresh = metadata.idle_for < TEST_AFTER_IDLE;
    (is_fresh || ping(connection).await).then_some(true).ok_or_else(connection_lost)
}

/// As an error it closes the connection without a word more to the peer.
fn connection_lost() -> SqlxError {
    SqlxError::Io(std::io::ErrorKind::TimedOut.into())
}

async fn ping<C: Connection>(connection: &mut C) -> bool {
    matches!(tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}
