//! Detects poolers that share sessions between connections.
//!
//! A pooler in transaction mode (PgBouncer's `pool_mode = transaction` or `statement`) gives every
//! transaction any free session: settings and prepared statements would be lost. Reading a setting
//! back does not detect that reliably, since the same session is often free again. LISTEN does:
//! PostgreSQL delivers a notification to an idle session, and it arrives if, and only if, the
//! session still belongs to this connection.

use std::time::Duration;

use sea_orm::{
    SqlxError,
    sqlx::{
        self, AssertSqlSafe,
        pool::PoolOptions,
        postgres::{PgConnectOptions, PgListener},
    },
};
use uuid::Uuid;

use crate::storage::connect::connect_error::reason;

/// How long to wait for the message. It takes milliseconds, unless a pooler never passes it on.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(5);
/// SQLSTATE feature_not_supported, of a database that is not PostgreSQL.
const NOT_SUPPORTED: &str = "0A000";

/// Checks with two connections that each keeps its session. Each may take `connect_time_max` to start.
pub async fn check(options: &PgConnectOptions, connect_time_max: Duration) -> Result<(), String> {
    match keeps_sessions(options, connect_time_max).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("a connection pooler gives each transaction another session: \
             Passbook needs one that keeps sessions (PgBouncer's pool_mode = session)"
            .to_owned()),
        Err(error) if is_not_supported(&error) => {
            tracing::warn!(
                "cannot check for a connection pooler: the database does not support LISTEN"
            );
            Ok(())
        }
        Err(error) => Err(reason(&error)),
    }
}

/// Whether a notification for an idle session arrives at its connection.
async fn keeps_sessions(
    options: &PgConnectOptions,
    connect_time_max: Duration,
) -> Result<bool, SqlxError> {
    let channel = format!("passbook_{}", Uuid::now_v7().simple());
    let mut listener = connect(options, connect_time_max).await?;
    listener.listen(&channel).await?;
    // The notifier listens to nothing itself; it gets the message only if it got the listener's
    // session.
    let mut notifier = connect(options, connect_time_max).await?;
    let notify = sqlx::raw_sql(AssertSqlSafe(format!("NOTIFY {channel}")));
    notify.execute(&mut notifier).await?;
    tokio::select! {
        message = listener.recv() => message.map(|_| true),
        message = notifier.recv() => message.map(|_| false),
        () = tokio::time::sleep(MESSAGE_TIME_MAX) => Ok(false),
    }
}

async fn connect(
    options: &PgConnectOptions,
    connect_time_max: Duration,
) -> Result<PgListener, SqlxError> {
    let pool = PoolOptions::new().max_connections(1).acquire_timeout(connect_time_max);
    PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await
}

fn is_not_supported(error: &SqlxError) -> bool {
    error.as_database_error().and_then(|it| it.code()).as_deref() == Some(NOT_SUPPORTED)
}
