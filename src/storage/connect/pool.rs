//! Pools of connections, and when a pool drops a connection.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    DatabaseConnection, SqlxError,
    sqlx::{
        self, ConnectOptions, Connection,
        pool::{PoolConnectionMetadata, PoolOptions},
        postgres::{PgConnection, PgPool, Postgres},
        sqlite::{SqliteConnection, SqlitePool},
    },
};
use tokio::sync::mpsc;

use crate::storage::{
    StorageError,
    connect::{
        connect_error::{ConnectError, cannot_open, reason},
        hosts::Hosts,
        session::{self, Role},
        sqlite_file::DatabaseFile,
        target::{CONNECT_TIME_MAX, TargetSession},
    },
};

/// How long a connection may be idle before it is tested at its next use.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(5);
/// Time limit of that test, which sqlx does not have. Well below [`CONNECT_TIME_MAX`], so that there
/// is time left for a new connection.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Opens a file for reads with all connections at once: later, another file could be at the path.
pub async fn open_file(
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

/// Makes a pool of `size` connections, which are opened now and kept.
pub async fn open_sqlite(
    file: &DatabaseFile,
    role: Role,
    size: u32,
) -> Result<DatabaseConnection, SqlxError> {
    // Readers make neither the file nor its log: one connection does before they are opened, with
    // its first statement.
    let first = match role {
        Role::Reader => {
            let mut first = file.options(Role::Maintenance).connect().await?;
            sqlx::raw_sql("SELECT 1 FROM sqlite_schema LIMIT 1").execute(&mut first).await?;
            if !file.is_read_only() {
                require_log(&mut first).await?;
            }
            Some(first)
        }
        _ => None,
    };
    let known = file.clone();
    let pool = pool_options(role, size)
        .min_connections(size)
        .idle_timeout(None)
        .max_lifetime(None)
        // A connection that replaces a broken one may find another file at the path.
        .after_connect(move |_, _| {
            let checked = known.check();
            Box::pin(async move { checked.map_err(SqlxError::Protocol) })
        });
    let options = file.options(role).create_if_missing(false);
    let pool: SqlitePool = pool.connect_with(options).await?;
    if let Some(first) = first {
        first.close().await?;
    }
    Ok(pool.into())
}

/// Checks that a database has a write-ahead log: where SQLite cannot make one it goes on without.
async fn require_log(connection: &mut SqliteConnection) -> Result<(), SqlxError> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(connection).await?;
    match mode.as_str() {
        "wal" => Ok(()),
        _ => Err(SqlxError::Protocol(format!(
            "its journal mode is {mode} and must be wal, which needs memory that processes share"
        ))),
    }
}

/// Makes a pool of one connection, with the session of this role.
pub async fn open_postgres(hosts: &Arc<Hosts>, role: Role) -> Result<PgPool, StorageError> {
    let (session, preparing) = (Arc::new(hosts.session(role)), hosts.clone());
    // The pool itself would retry until its timeout, and not say why.
    let (report, mut refused) = mpsc::channel(1);
    let pool = pool_options::<Postgres>(role, 1).acquire_timeout(hosts.connect_time_max());
    let pool = pool.after_connect(move |connection, _| {
        let (hosts, session, report) = (preparing.clone(), session.clone(), report.clone());
        Box::pin(async move {
            let prepared = hosts.prepare(&session, connection).await;
            prepared.map_err(|reason| {
                // A full channel has a reason already.
                let _ = report.try_send(reason.clone());
                SqlxError::Protocol(reason)
            })
        })
    });
    let options = session::start_up(hosts.current().clone());
    tokio::select! {
        connected = pool.connect_with(options) => match connected {
            Ok(pool) => Ok(pool),
            Err(SqlxError::PoolTimedOut) => {
                // The pool retried and does not say why; a probe of the host does.
                hosts.select_server().await?;
                Err(SqlxError::PoolTimedOut.into())
            }
            Err(error) => Err(match StorageError::from(error) {
                StorageError::Unavailable(reason) => hosts.refused(reason).into(),
                other => other,
            }),
        },
        Some(reason) = refused.recv() => Err(hosts.refused(reason).into()),
    }
}

/// Options of a pool of readers on PostgreSQL. It drops connections that are older than the latest
/// failover: a standby may lack changes that were acknowledged.
pub fn postgres_readers(hosts: &Arc<Hosts>, size: u32) -> PoolOptions<Postgres> {
    let (session, preparing) = (Arc::new(hosts.session(Role::Reader)), hosts.clone());
    let (hosts, cut) = (hosts.clone(), hosts.clone());
    pool_options(Role::Reader, size)
        .acquire_timeout(hosts.connect_time_max())
        .after_release(move |connection: &mut PgConnection, _| {
            let hosts = cut.clone();
            Box::pin(async move {
                let answer = ping(connection).await;
                if let Some(Err(_)) = answer {
                    // A restart has cut all of them: one read fails, not one for each.
                    hosts.invalidate_connections();
                }
                alive(answer)
            })
        })
        .after_connect(move |connection, _| {
            let (hosts, session) = (preparing.clone(), session.clone());
            Box::pin(async move {
                hosts.prepare(&session, connection).await.map_err(SqlxError::Protocol)
            })
        })
        .before_acquire(move |connection, metadata| {
            let is_stale = hosts.is_stale(metadata.age);
            Box::pin(async move {
                if is_stale { Err(connection_lost()) } else { is_alive(connection, metadata).await }
            })
        })
}

/// Options of a pool on either database, with a server's time limit for a connection.
pub fn pool_options<DB: sqlx::Database>(role: Role, size: u32) -> PoolOptions<DB> {
    let options = PoolOptions::new()
        .max_connections(size)
        .acquire_timeout(CONNECT_TIME_MAX)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| Box::pin(is_alive(connection, metadata)));
    if role != Role::Reader {
        return options;
    }
    // A read that was dropped may leave a connection to a dead peer behind. A writer's pool is
    // dropped as a whole instead.
    options.after_release(|connection, _| Box::pin(async move { alive(ping(connection).await) }))
}

async fn is_alive<C: Connection>(
    connection: &mut C,
    metadata: PoolConnectionMetadata,
) -> Result<bool, SqlxError> {
    let is_fresh = metadata.idle_for < TEST_AFTER_IDLE;
    if is_fresh { Ok(true) } else { alive(ping(connection).await) }
}

/// The error with which a pool closes a connection without another message to the peer.
fn connection_lost() -> SqlxError {
    SqlxError::Io(std::io::ErrorKind::TimedOut.into())
}

/// None: no answer in time.
async fn ping<C: Connection>(connection: &mut C) -> Option<Result<(), SqlxError>> {
    tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await.ok()
}

/// What a hook of a pool returns after a test.
fn alive(answer: Option<Result<(), SqlxError>>) -> Result<bool, SqlxError> {
    if let Some(Ok(())) = answer { Ok(true) } else { Err(connection_lost()) }
}
