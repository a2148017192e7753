//! Whether each of our connections keeps a session of its own.
//!
//! A pooler in transaction mode (PgBouncer's `pool_mode = transaction` or `statement`) hands every
//! transaction to whichever session is free: settings and prepared statements would belong to
//! somebody else. To look whether a setting is still there would tell by chance only, since the
//! same session is often free again. But PostgreSQL tells a session that LISTENs of what another
//! one notifies it of, while it has nothing to do: the message arrives if, and only if, the session
//! is still this connection's.

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

use crate::storage::connect::{refusal::reason, target::PROBE_TIME_MAX};

/// How long the message may take, which comes within milliseconds: only a pooler that never
/// passes it on is waited for as long as this.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(5);
/// feature_not_supported, of a database that is not PostgreSQL.
const NOT_SUPPORTED: &str = "0A000";

/// Checks it, with two connections.
///
/// # Errors
/// They do not keep their sessions, or they fail.
pub(in crate::storage) async fn check(options: &PgConnectOptions) -> Result<(), String> {
    match keeps_sessions(options).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("a pooler gives each transaction another session: Passbook needs one \
             that keeps sessions (PgBouncer's pool_mode = session)"
            .to_owned()),
        Err(error) if is_not_supported(&error) => {
            tracing::warn!("cannot tell whether a pooler is between: the database has no LISTEN");
            Ok(())
        }
        Err(error) => Err(reason(&error)),
    }
}

/// Whether a message for a session that has nothing to do arrives where it belongs.
async fn keeps_sessions(options: &PgConnectOptions) -> Result<bool, SqlxError> {
    let channel = format!("passbook_{}", Uuid::now_v7().simple());
    let mut listener = connect(options).await?;
    listener.listen(&channel).await?;
    // It listens to nothing itself, but is given the other one's message if it was given the other
    // one's session.
    let mut notifier = connect(options).await?;
    let notify = sqlx::raw_sql(AssertSqlSafe(format!("NOTIFY {channel}")));
    notify.execute(&mut notifier).await?;
    tokio::select! {
        message = listener.recv() => message.map(|_| true),
        message = notifier.recv() => message.map(|_| false),
        () = tokio::time::sleep(MESSAGE_TIME_MAX) => Ok(false),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgListener, SqlxError> {
    let pool = PoolOptions::new().max_connections(1).acquire_timeout(PROBE_TIME_MAX);
    PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await
}

fn is_not_supported(error: &SqlxError) -> bool {
    error.as_database_error().and_then(|it| it.code()).as_deref() == Some(NOT_SUPPORTED)
}
