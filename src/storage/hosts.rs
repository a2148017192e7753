//! The PostgreSQL servers of a URL: which of them is the primary, and why none can be used.
//!
//! sqlx knows one host. Where there are several, whoever needs a connection that writes asks all
//! of them at once who is the primary, and connects to that one; so does the readers' pool, since
//! a standby may not have yet what was acknowledged. With one host nothing is asked: what writes
//! finds out by itself (25006), and readers ask once a connection.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use sea_orm::{
    SqlxError,
    sqlx::{self, ConnectOptions, Connection, postgres::PgConnectOptions, postgres::PgConnection},
};

use crate::storage::{CONNECTIONS_MIN, StorageError, error::postgres_words};

/// How long one server may take to say what it is: as long as a connection may take at all.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// Servers in one URL: a primary and its standbys. All are asked at the same time.
pub(super) const HOSTS_MAX: usize = 16;

/// Why no server can be used: one line, with addresses, without the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub(super) String);

impl From<ConnectError> for StorageError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.0)
    }
}

/// What a server must be to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that takes changes, and so has all of them.
    Primary,
    /// Any that answers: for those who only read, and say at which they look.
    Any,
}

/// The servers of one URL, and which of them it was that was found last.
pub(super) struct Hosts {
    all: Vec<PgConnectOptions>,
    wanted: Wanted,
    current: Mutex<Current>,
    /// What was found last, and when. Held while the servers are asked: those who come meanwhile
    /// take the same answer.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), ConnectError>)>>,
}

#[derive(Clone, Copy)]
struct Current {
    host: usize,
    /// Connections that are older are not to be used any more.
    trusted_since: Instant,
}

impl Hosts {
    /// Of at least one; nothing is connected to yet.
    pub(super) fn new(all: Vec<PgConnectOptions>, wanted: Wanted) -> Self {
        let current = Mutex::new(Current { host: 0, trusted_since: Instant::now() });
        Self { all, wanted, current, last: tokio::sync::Mutex::default() }
    }

    /// Whether there are several.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The one that was found last.
    pub(super) fn current(&self) -> &PgConnectOptions {
        // The index is always one of a host's.
        &self.all[self.lock().host]
    }

    /// Whether a connection of this age was made before the primary moved, or before another one
    /// was found dead.
    pub(super) fn is_outdated(&self, age: Duration) -> bool {
        self.lock().trusted_since.elapsed() < age
    }

    /// A connection was found dead in silence: so may be all that there are now.
    pub(super) fn distrust_connections(&self) {
        self.lock().trusted_since = Instant::now();
    }

    /// Whether what is at the other end of this new connection is what is wanted; if not, why.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), String> {
        match self.wanted {
            Wanted::Primary => is_primary(connection).await,
            Wanted::Any => Ok(()),
        }
    }

    /// Asks which one is wanted, and remembers it.
    ///
    /// # Errors
    /// None of them is, and why.
    pub(super) async fn find(&self) -> Result<(), ConnectError> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && *at > asked
        {
            return result.clone();
        }
        let result = self.ask_all().await;
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// How many connections the role may have to the database that was found, up to `max`.
    ///
    /// # Errors
    /// It does not answer, or these are too few.
    pub(super) async fn connections_allowed(&self, max: u32) -> Result<u32, ConnectError> {
        let options = self.current();
        let failed = |error: SqlxError| {
            let (address, reason) = (address(options), reason(&error));
            ConnectError(format!("cannot connect to the database at {address}: {reason}"))
        };
        let mut connection = options.connect().await.map_err(failed)?;
        let allowed = sqlx::query_scalar(CONNECTIONS_ALLOWED).fetch_one(&mut connection).await;
        let allowed: i32 = allowed.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        match u32::try_from(allowed) {
            Ok(allowed) if allowed >= CONNECTIONS_MIN => Ok(allowed.min(max)),
            _ => Err(ConnectError(format!(
                "the database at {} allows {allowed} connections (by its own limit, or that of the \
                 role or of the server): at least {CONNECTIONS_MIN} are needed",
                address(options)
            ))),
        }
    }

    /// All at once, so that a host that is not there costs no time. The first that is wanted it is.
    async fn ask_all(&self) -> Result<(), ConnectError> {
        let mut asked: FuturesUnordered<_> = (0..self.all.len())
            .map(|host| async move { (host, self.ask(&self.all[host]).await) })
            .collect();
        let mut reasons = Vec::new();
        while let Some((host, answer)) = asked.next().await {
            match answer {
                Ok(()) => {
                    self.take(host);
                    return Ok(());
                }
                Err(reason) => reasons.push((host, reason)),
            }
        }
        reasons.sort_unstable();
        let reason =
            |(host, reason): &(usize, String)| format!("{}: {reason}", address(&self.all[*host]));
        let reasons: Vec<_> = reasons.iter().map(reason).collect();
        Err(ConnectError(match &reasons[..] {
            [reason] => format!("cannot connect to the database at {reason}"),
            _ => format!("none of the databases can be used: {}", reasons.join("; ")),
        }))
    }

    /// Whether this server is what is wanted; if not, why.
    async fn ask(&self, options: &PgConnectOptions) -> Result<(), String> {
        let asking = async {
            let mut connection = options.connect().await.map_err(|error| reason(&error))?;
            let answer = self.check(&mut connection).await;
            // Whatever becomes of this connection now, it has told what it was made for.
            let _ = connection.close().await;
            answer
        };
        let late = |_| format!("no answer within {} s", ASK_TIME_MAX.as_secs());
        tokio::time::timeout(ASK_TIME_MAX, asking).await.map_err(late)?
    }

    fn take(&self, host: usize) {
        let mut current = self.lock();
        if current.host == host {
            return;
        }
        let (from, to) = (address(&self.all[current.host]), address(&self.all[host]));
        tracing::warn!(%from, %to, "the primary is another server");
        *current = Current { host, trusted_since: Instant::now() };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// -1 is for no limit.
const CONNECTIONS_ALLOWED: &str = "\
    SELECT least(nullif(role.rolconnlimit, -1), nullif(database.datconnlimit, -1), \
        current_setting('max_connections')::integer \
        - current_setting('superuser_reserved_connections')::integer) \
    FROM pg_roles role, pg_database database \
    WHERE role.rolname = current_user AND database.datname = current_database()";

/// Whether the server at the other end takes changes; if not, why.
async fn is_primary(connection: &mut PgConnection) -> Result<(), String> {
    let sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let answer: Result<(bool, bool), _> = sqlx::query_as(sql).fetch_one(connection).await;
    match answer.map_err(|error| reason(&error))? {
        (true, _) => Err("is a standby".to_owned()),
        (false, true) => Err("is read-only".to_owned()),
        (false, false) => Ok(()),
    }
}

/// The same for a database that is a file.
pub(super) fn cannot_open(file: &str, error: &SqlxError) -> ConnectError {
    ConnectError(format!("cannot open the database file {file}: {}", reason(error)))
}

/// In the server's own words, or the system's; never with the URL.
fn reason(error: &SqlxError) -> String {
    match error {
        SqlxError::Database(error) => match error.try_downcast_ref() {
            Some(error) => postgres_words(error),
            None => error.message().to_owned(),
        },
        SqlxError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".to_owned()
        }
        SqlxError::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(path) => path.display().to_string(),
        None if options.get_host().contains(':') => {
            format!("[{}]:{}", options.get_host(), options.get_port())
        }
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}
