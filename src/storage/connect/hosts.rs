//! The PostgreSQL servers of a URL: which of them is the primary, and why none can be used.
//!
//! sqlx knows one host. Where there are several, whoever needs a connection that writes asks all
//! of them at once who is the primary, and connects to that one; so does the readers' pool, since
//! a standby may not have yet what was acknowledged. Two primaries are two ledgers: then none is
//! used, and neither is one of another cluster, or of an earlier timeline, than was used before.
//! With one host only each new connection asks.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use sea_orm::{
    SqlxError,
    sqlx::{
        self, ConnectOptions, Connection, Row,
        postgres::{PgConnectOptions, PgConnection},
    },
};
use tokio::time::timeout_at;

use crate::lock::lock;
use crate::storage::{
    CONNECTIONS_MIN,
    connect::{
        pooler,
        refusal::{ConnectError, Refusal, lasting},
        session::{self, Role, Session},
    },
};

/// How long one server may take to say what it is: as long as a connection may take at all.
pub(in crate::storage) const ASK_TIME_MAX: Duration = Duration::from_secs(2);
/// How long others may take after a primary has answered, to say that they are one, too.
const ANOTHER_TIME_MAX: Duration = Duration::from_millis(500);
/// How often it is looked whether there is another primary while all is well.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Servers in one URL: a primary and its standbys. All are asked at the same time.
pub(in crate::storage) const HOSTS_MAX: usize = 16;

/// What a server must be to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Wanted {
    /// One that takes changes, and so has all of them.
    Primary,
    /// Any that answers: for those who only read, and say at which they look.
    Any,
}

/// The servers of one URL, and which of them it was that was found last.
pub(in crate::storage) struct Hosts {
    all: Vec<PgConnectOptions>,
    wanted: Wanted,
    current: Mutex<Current>,
    /// What was found last, and when. Held while the servers are asked: those who come meanwhile
    /// take the same answer.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), ConnectError>)>>,
    /// Of each host, whether connections to it were seen to keep their sessions.
    keeps_sessions: Vec<AtomicBool>,
}

struct Current {
    host: usize,
    /// What was found there last.
    server: Option<Server>,
    /// Why one must not be used, as it was told last.
    told: String,
    /// Connections that are older are not to be used any more.
    trusted_since: Instant,
}

/// Which server it is, where there are several hosts: two addresses may be of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Server {
    /// The same for a primary and all of its standbys.
    system: String,
    /// Higher by one after each promotion.
    timeline: u32,
    /// When it was started, in microseconds since the Unix epoch.
    started_us: i64,
}

impl Server {
    /// What a primary says of itself.
    async fn look(connection: &mut PgConnection) -> Result<Self, SqlxError> {
        // A log file is named after the timeline, in hexadecimal digits.
        let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
            left(pg_walfile_name(pg_current_wal_lsn()), 8), \
            (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text";
        let row = sqlx::raw_sql(sql).fetch_one(connection).await?;
        let text = |index: usize| row.try_get::<String, _>(index);
        let protocol = |_| SqlxError::Protocol("the server's timeline is no number".to_owned());
        Ok(Self {
            system: text(0)?,
            timeline: u32::from_str_radix(&text(1)?, 16).map_err(protocol)?,
            started_us: text(2)?.parse().map_err(protocol)?,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "system identifier {}, timeline {}", self.system, self.timeline)
    }
}

impl Hosts {
    /// Of at least one; nothing is connected to yet.
    pub(in crate::storage) fn new(all: Vec<PgConnectOptions>, wanted: Wanted) -> Self {
        let current =
            Current { host: 0, server: None, told: String::new(), trusted_since: Instant::now() };
        let current = Mutex::new(current);
        let keeps_sessions = all.iter().map(|_| AtomicBool::new(false)).collect();
        Self { all, wanted, current, last: tokio::sync::Mutex::default(), keeps_sessions }
    }

    /// Whether there are several.
    pub(in crate::storage) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The one that was found last.
    pub(in crate::storage) fn current(&self) -> &PgConnectOptions {
        // The index is always one of a host's.
        &self.all[self.lock().host]
    }

    /// Whether a connection of this age was made before the primary moved, or before another one
    /// was found dead.
    pub(in crate::storage) fn is_outdated(&self, age: Duration) -> bool {
        self.lock().trusted_since.elapsed() < age
    }

    /// A connection was found dead in silence: so may be all that there are now.
    pub(in crate::storage) fn distrust_connections(&self) {
        self.lock().trusted_since = Instant::now();
    }

    /// What a session for this role must be like.
    pub(in crate::storage) fn session(&self, role: Role) -> Session {
        // All hosts have the parameters of the one URL.
        Session::new(self.current(), role, self.wanted)
    }

    /// What the URL sets of what a session is set to otherwise; empty if nothing.
    pub(in crate::storage) fn overridden(&self) -> String {
        session::overridden(self.current()).join(", ")
    }

    /// Why the current one cannot be used.
    pub(in crate::storage) fn refused(&self, reason: &str) -> ConnectError {
        cannot_connect(self.current(), reason)
    }

    /// Asks which one is wanted, and remembers it.
    ///
    /// # Errors
    /// None of them is, and why.
    pub(in crate::storage) async fn find(&self) -> Result<(), ConnectError> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && *at > asked
        {
            return result.clone();
        }
        let result = match self.ask_all().await {
            Ok(()) => self.check_pooler().await,
            Err(error) => Err(error),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// How many connections the role may have to the database that was found, up to `max`.
    ///
    /// # Errors
    /// It does not answer, or these are too few.
    pub(in crate::storage) async fn connections_allowed(
        &self,
        max: u32,
    ) -> Result<u32, ConnectError> {
        let options = session::start_up(self.current().clone());
        let failed = |error: SqlxError| {
            let Refusal { reason, may_pass } = Refusal::from(&error);
            cannot_connect(self.current(), &reason).that_may_pass(may_pass)
        };
        let mut connection = options.connect().await.map_err(failed)?;
        let allowed = sqlx::query_scalar(CONNECTIONS_ALLOWED).fetch_one(&mut connection).await;
        let allowed: i32 = allowed.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        match u32::try_from(allowed) {
            Ok(allowed) if allowed >= CONNECTIONS_MIN => Ok(allowed.min(max)),
            _ => Err(lasting(format!(
                "the database at {} allows {allowed} connections (by its own limit, or that of the \
                 role or of the server): at least {CONNECTIONS_MIN} are needed",
                address(&options)
            ))),
        }
    }

    /// The same if it was asked long ago, or in vain: where there are several hosts, a second
    /// primary is met by looking.
    ///
    /// # Errors
    /// None can be used, or two could be.
    pub(in crate::storage) async fn look_again(&self) -> Result<(), ConnectError> {
        let is_due = match &*self.last.lock().await {
            Some((at, Ok(()))) => at.elapsed() > LOOK_INTERVAL,
            Some((_, Err(_))) | None => true,
        };
        if self.are_several() && is_due { self.find().await } else { Ok(()) }
    }

    /// Whether connections to the current host keep their sessions: asked once for each. A standby
    /// cannot be asked, and who only reads there changes nothing.
    async fn check_pooler(&self) -> Result<(), ConnectError> {
        let known = &self.keeps_sessions[self.lock().host];
        if self.wanted == Wanted::Primary && !known.load(Ordering::Relaxed) {
            let options = session::start_up(self.current().clone());
            pooler::check(&options).await.map_err(|reason| self.refused(&reason))?;
            known.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// All at once, so that a host that is not there costs no time.
    async fn ask_all(&self) -> Result<(), ConnectError> {
        let mut asked: FuturesUnordered<_> = (0..self.all.len())
            .map(|host| async move { (host, self.ask(&self.all[host]).await) })
            .collect();
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        let mut end = Instant::now() + ASK_TIME_MAX * 2;
        while let Ok(Some((host, answer))) = timeout_at(end.into(), asked.next()).await {
            match answer {
                Ok(server) => {
                    found.push((host, server));
                    if self.wanted == Wanted::Any {
                        break;
                    }
                    // Later ones are met by the next look. At the start there is time for all.
                    if self.lock().server.is_some() {
                        end = end.min(Instant::now() + ANOTHER_TIME_MAX);
                    }
                }
                Err(reason) => reasons.push((host, reason)),
            }
        }
        found.sort_unstable_by_key(|(host, _)| *host);
        match self.choose(&found) {
            Ok(Some((host, server))) => {
                self.take(host, server);
                return Ok(());
            }
            Ok(None) => {}
            Err((host, reason)) => {
                self.tell(host, &reason);
                reasons.push((host, reason.into()));
            }
        }
        reasons.sort_unstable();
        let may_pass = reasons.iter().any(|(_, refusal)| refusal.may_pass);
        if let [(host, Refusal { reason, .. })] = &reasons[..] {
            let error = cannot_connect(&self.all[*host], reason);
            return Err(error.that_may_pass(may_pass));
        }
        let reason = |(host, refusal): &(usize, Refusal)| {
            format!("{}: {}", self.name(*host), refusal.reason)
        };
        let reasons: Vec<_> = reasons.iter().map(reason).collect();
        let text = format!("none of the databases can be used: {}", reasons.join("; "));
        Err(lasting(text).that_may_pass(may_pass))
    }

    /// Of those that answered as is wanted, the one to use: the current one, if it is among them.
    ///
    /// # Errors
    /// A host that must not be used, and why.
    fn choose(
        &self,
        found: &[(usize, Server)],
    ) -> Result<Option<(usize, Server)>, (usize, String)> {
        let (current, known) = {
            let current = self.lock();
            (current.host, current.server.clone())
        };
        let is_current = |(host, _): &&(usize, Server)| *host == current;
        let Some((host, server)) = found.iter().find(is_current).or(found.first()) else {
            return Ok(None);
        };
        if let Some((other_host, other)) = found.iter().find(|(_, other)| other != server) {
            // Whatever was changed at the wrong one would be lost: nothing more is.
            self.distrust_connections();
            let reason = format!(
                "is a primary ({server}), and so is {} ({other}): one of them must be stopped, and \
                 nothing is changed until then",
                self.name(*other_host)
            );
            return Err((*host, reason));
        }
        match known {
            Some(known) if known.system != server.system => Err((
                *host,
                format!("is another database cluster ({server}) than was used so far ({known})"),
            )),
            Some(known) if known.timeline > server.timeline => Err((
                *host,
                format!("is an old primary ({server}): a later one was used so far ({known})"),
            )),
            _ => Ok(Some((*host, server.clone()))),
        }
    }

    /// Once, until it is another reason or over. Who starts says it as the reason not to.
    fn tell(&self, host: usize, reason: &str) {
        let mut current = self.lock();
        if current.server.is_some() && current.told != reason {
            tracing::error!(host = self.name(host), reason, "a database must not be used");
            reason.clone_into(&mut current.told);
        }
    }

    fn name(&self, host: usize) -> String {
        address(&self.all[host])
    }

    /// Whether this server is what is wanted; if not, why.
    async fn ask(&self, options: &PgConnectOptions) -> Result<Server, Refusal> {
        // Of all roles, that which needs most.
        let session = self.session(match self.wanted {
            Wanted::Primary => Role::Writer,
            Wanted::Any => Role::Snapshot,
        });
        let asking = async {
            let connecting = session::start_up(options.clone());
            let mut connection =
                connecting.connect().await.map_err(|error| Refusal::from(&error))?;
            let answer = match session.prepare(&mut connection).await {
                Ok(()) if self.are_several() && self.wanted == Wanted::Primary => {
                    Server::look(&mut connection).await.map_err(|error| Refusal::from(&error))
                }
                prepared => prepared.map(|()| Server::default()).map_err(Refusal::from),
            };
            // Whatever becomes of this connection now, it has told what it was made for.
            let _ = connection.close().await;
            answer
        };
        let late = |_| Refusal {
            reason: format!("no answer within {} s", ASK_TIME_MAX.as_secs()),
            may_pass: true,
        };
        tokio::time::timeout(ASK_TIME_MAX, asking).await.map_err(late)?
    }

    fn take(&self, host: usize, server: Server) {
        let mut current = self.lock();
        current.server = Some(server);
        current.told.clear();
        if current.host == host {
            return;
        }
        let (from, to) = (self.name(current.host), self.name(host));
        tracing::warn!(%from, %to, "the primary is another server");
        current.host = host;
        current.trusted_since = Instant::now();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// -1 is for no limit.
const CONNECTIONS_ALLOWED: &str = "\
    SELECT least(nullif(role.rolconnlimit, -1), nullif(database.datconnlimit, -1), \
        current_setting('max_connections')::integer \
        - current_setting('superuser_reserved_connections')::integer \
        - coalesce(current_setting('reserved_connections', true)::integer, 0)) \
    FROM pg_roles role, pg_database database \
    WHERE role.rolname = current_user AND database.datname = current_database()";

fn cannot_connect(options: &PgConnectOptions, reason: &str) -> ConnectError {
    lasting(format!("cannot connect to the database at {}: {reason}", address(options)))
}

/// The same for a database that is a file.
pub(in crate::storage) fn cannot_open(file: &impl std::fmt::Display, reason: &str) -> ConnectError {
    lasting(format!("cannot open the database file {file}: {reason}"))
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
