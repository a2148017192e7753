//! The PostgreSQL servers of a URL: finds the primary among them, or says why none can be used.
//!
//! sqlx knows one host. With several, a new connection for changes first probes all of them at once
//! and goes to the primary; so do readers, since a standby may lack changes that were acknowledged.
//! Two primaries are two ledgers: then no server is used. Neither is one of another cluster, or of
//! an earlier timeline, than was used before. Each new session checks that for itself, since the
//! name of a host may move, also back to a primary that was replaced.
//!
//! A command that only reads also goes to the primary. If no primary answers, it goes to a standby.
//! It stays with the host that it chose, and its sessions check the same.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use sea_orm::{
    SqlxError,
    sqlx::{
        self, ConnectOptions, Connection,
        postgres::{PgConnectOptions, PgConnection},
    },
};
use tokio::time::timeout_at;

use crate::domain::event::CommitId;
use crate::lock::lock;
use crate::storage::connect::{
    connect_error::{ConnectError, HostError},
    connection_counts::CONNECTIONS_MIN,
    pooler,
    server_identity::{ServerIdentity, ServerState, require_commit},
    session::{self, Role, Session},
    target::{CONNECT_TIME_MAX, TargetSession},
};

/// How long a second primary may take to answer after the first one has.
const SECOND_PRIMARY_TIME_MAX: Duration = Duration::from_millis(500);
/// How often it is looked whether there is another primary while all is well.
const HOSTS_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The servers of one URL, and the one in use.
pub struct Hosts {
    all: Vec<PgConnectOptions>,
    target: TargetSession,
    /// How long a new session may take to start.
    connect_time_max: Duration,
    current: Mutex<Current>,
    /// Counts the promotions that sessions have met.
    failovers: AtomicU64,
    /// The result of the latest probe, and when it ended. Locked while a probe runs: callers who
    /// come meanwhile take its result.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), ConnectError>)>>,
    /// For each host, whether connections to it were seen to keep their sessions.
    keeps_sessions: Vec<AtomicBool>,
}

struct Current {
    host: usize,
    /// The server of the latest session that may be used. No later session is with another cluster,
    /// or on an earlier timeline.
    server: Option<ServerIdentity>,
    /// The newest commit that was read.
    newest_commit: Option<CommitId>,
    /// The reason against a server that was logged last.
    reported: String,
    /// Connections that are older are stale.
    trusted_since: Instant,
}

impl Hosts {
    /// Takes at least one host, and how long a new session may take to start. Connects to none yet.
    pub fn new(
        all: Vec<PgConnectOptions>,
        target: TargetSession,
        connect_time_max: Duration,
    ) -> Self {
        let current = Mutex::new(Current {
            host: 0,
            server: None,
            newest_commit: None,
            reported: String::new(),
            trusted_since: Instant::now(),
        });
        let keeps_sessions = all.iter().map(|_| AtomicBool::new(false)).collect();
        let (failovers, last) = (AtomicU64::new(0), tokio::sync::Mutex::default());
        Self { all, target, connect_time_max, current, failovers, last, keeps_sessions }
    }

    /// Whether another host of the URL may be the one to use later.
    pub fn may_switch(&self) -> bool {
        self.all.len() > 1 && self.target == TargetSession::Primary
    }

    /// The host in use.
    pub fn current(&self) -> &PgConnectOptions {
        // `switch_to` is the only place that sets the index, to that of a host.
        &self.all[self.lock().host]
    }

    /// How long a new session may take to start.
    pub fn connect_time_max(&self) -> Duration {
        self.connect_time_max
    }

    /// Whether a connection of this age is from before the latest failover or loss of a connection.
    pub fn is_stale(&self, age: Duration) -> bool {
        self.lock().trusted_since.elapsed() < age
    }

    /// Marks all connections that are open now as stale.
    pub fn invalidate_connections(&self) {
        self.lock().trusted_since = Instant::now();
    }

    /// How often a server was used that had been promoted after the one before. It has grown before the
    /// first answer of that server.
    pub fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Acquire)
    }

    /// The session of this role: all hosts have the parameters of the one URL.
    pub fn session(&self, role: Role) -> Session {
        Session::new(self.current(), role, self.target)
    }

    /// Sets up a new connection, or says why it cannot be used: for its settings, or for the server
    /// to which it leads.
    pub async fn prepare(
        &self,
        session: &Session,
        connection: &mut PgConnection,
    ) -> Result<(), String> {
        let server = session.prepare(connection).await?;
        let host = self.lock().host;
        let has_commit = match self.commit_to_find(&server) {
            Some(commit) => require_commit(connection, commit).await,
            None => Ok(()),
        };
        let admitted = has_commit.and_then(|()| self.admit(&server));
        admitted.inspect_err(|reason| self.report(host, reason))
    }

    /// Remembers the newest commit, unless connections have become stale since it was asked for.
    pub fn note_commit(&self, commit: CommitId, asked_at: Instant) {
        let mut current = self.lock();
        if current.trusted_since < asked_at {
            current.newest_commit = Some(commit);
        }
    }

    /// The commit that this server must have.
    fn commit_to_find(&self, server: &ServerIdentity) -> Option<CommitId> {
        let current = self.lock();
        let is_other = current.server.as_ref().is_some_and(|known| server.may_be_a_twin_of(known));
        current.newest_commit.filter(|_| is_other)
    }

    /// Checks the server of a new session against those of earlier ones, and remembers it.
    fn admit(&self, server: &ServerIdentity) -> Result<(), String> {
        let mut current = self.lock();
        if let Some(known) = &current.server {
            server.check_after(known)?;
            if known.is_later_than(server) {
                // A standby, whose timeline is unknown.
                return Ok(());
            }
            if server.is_later_than(known) {
                // Other connections may still lead to the primary before, whose commits this one may lack.
                current.trusted_since = Instant::now();
                current.newest_commit = None;
                self.failovers.fetch_add(1, Ordering::Release);
            }
        }
        let mut server = server.clone();
        server.schema = server.schema.or_else(|| current.server.take()?.schema);
        current.server = Some(server);
        Ok(())
    }

    /// Why the host in use cannot be used.
    pub fn refused(&self, host_error: impl Into<HostError>) -> ConnectError {
        cannot_connect(self.current(), host_error)
    }

    /// Probes the hosts and selects the one to use.
    ///
    /// # Errors
    /// None of them is, and why.
    pub async fn select_server(&self) -> Result<(), ConnectError> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((at, result)) = &*last
            && *at > asked
        {
            return result.clone();
        }
        let result = match self.probe_all().await {
            Ok(()) => self.check_pooler().await,
            Err(error) => Err(error),
        };
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// How many connections the role may open to the database, up to `max`.
    pub async fn connections_allowed(&self, max: u32) -> Result<u32, ConnectError> {
        let options = session::start_up(self.current().clone());
        let failed = |error: SqlxError| cannot_connect(self.current(), &error);
        let mut connection = options.connect().await.map_err(failed)?;
        // The database may compile statements by default, and limit them to less time than that takes.
        let prepared = self.prepare(&self.session(Role::Reader), &mut connection).await;
        // A probe has found no lasting reason against this host.
        let may_pass = |reason| HostError { reason, may_pass: true };
        prepared.map_err(|reason| cannot_connect(self.current(), may_pass(reason)))?;
        let allowed = sqlx::query_scalar(CONNECTIONS_ALLOWED).fetch_one(&mut connection).await;
        let allowed: i32 = allowed.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        match u32::try_from(allowed) {
            Ok(allowed) if allowed >= CONNECTIONS_MIN => Ok(allowed.min(max)),
            _ => {
                let what = format!(
                    "the database at {} allows {allowed} connections (by its own limit, or that \
                     of the role or of the server)",
                    address(&options)
                );
                Err(ConnectError::new(&what, format!("at least {CONNECTIONS_MIN} are needed")))
            }
        }
    }

    /// Probes several hosts again if the latest probe is old or failed, to notice a second primary.
    ///
    /// # Errors
    /// None can be used, or two could be.
    pub async fn probe_if_due(&self) -> Result<(), ConnectError> {
        let is_due = match &*self.last.lock().await {
            Some((at, Ok(()))) => at.elapsed() > HOSTS_PROBE_INTERVAL,
            Some((_, Err(_))) | None => true,
        };
        if self.may_switch() && is_due { self.select_server().await } else { Ok(()) }
    }

    /// Checks once for each host that connections keep their sessions. A standby has no NOTIFY; it
    /// is only read from.
    async fn check_pooler(&self) -> Result<(), ConnectError> {
        let known = &self.keeps_sessions[self.lock().host];
        if self.target == TargetSession::Primary && !known.load(Ordering::Relaxed) {
            let options = session::start_up(self.current().clone());
            let checked = pooler::check(&options, self.connect_time_max).await;
            checked.map_err(|reason| self.refused(reason))?;
            known.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Probes all hosts at once, so that one that is down costs no time.
    async fn probe_all(&self) -> Result<(), ConnectError> {
        let chosen = self.chosen_to_read();
        let hosts = chosen.map_or(0..self.all.len(), |host| host..host + 1);
        let mut probes: FuturesUnordered<_> =
            hosts.map(|host| async move { (host, self.probe(&self.all[host]).await) }).collect();
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        let mut end = Instant::now() + self.connect_time_max * 2;
        while let Ok(Some((host, answer))) = timeout_at(end.into(), probes.next()).await {
            match answer {
                Ok(server) => {
                    // If no primary has answered, one may still do so.
                    if server.state == ServerState::Primary {
                        // The next probe notices later ones. The first probe waits longer for all.
                        let is_first = self.lock().server.is_none();
                        let others =
                            if is_first { CONNECT_TIME_MAX } else { SECOND_PRIMARY_TIME_MAX };
                        end = end.min(Instant::now() + others);
                    }
                    found.push((host, server));
                }
                Err(reason) => reasons.push((host, reason)),
            }
        }
        found.sort_unstable_by_key(|(host, _)| *host);
        match self.choose(&found) {
            Ok(Some((host, state))) => {
                self.switch_to(host);
                if state != ServerState::Primary && self.all.len() > 1 && chosen.is_none() {
                    tracing::warn!(
                        host = self.name(host),
                        others = self.joined(&reasons),
                        "no primary answers: the command reads from another server, which may lack \
                         the latest changes"
                    );
                }
                return Ok(());
            }
            Ok(None) => {}
            Err((host, reason)) => {
                self.report(host, &reason);
                reasons.push((host, reason.into()));
            }
        }
        reasons.sort_unstable();
        if reasons.len() == 1
            && let Some((host, host_error)) = reasons.pop()
        {
            return Err(cannot_connect(&self.all[host], host_error));
        }
        let may_pass = reasons.iter().any(|(_, host_error)| host_error.may_pass);
        let reason = self.joined(&reasons);
        Err(ConnectError::new("no database server can be used", HostError { reason, may_pass }))
    }

    /// The reasons against hosts, in one line.
    fn joined(&self, reasons: &[(usize, HostError)]) -> String {
        let reason = |(host, host_error): &(usize, HostError)| {
            format!("{}: {}", self.name(*host), host_error.reason)
        };
        reasons.iter().map(reason).collect::<Vec<_>>().join("; ")
    }

    /// The host from which a command that only reads has begun to read.
    fn chosen_to_read(&self) -> Option<usize> {
        let current = self.lock();
        let has_begun = self.target == TargetSession::PreferPrimary && current.server.is_some();
        has_begun.then_some(current.host)
    }

    /// Chooses among the hosts that can be used: those in the best state, and of these the one in use,
    /// if it is among them.
    fn choose(
        &self,
        found: &[(usize, ServerIdentity)],
    ) -> Result<Option<(usize, ServerState)>, (usize, String)> {
        let Some(state) = found.iter().map(|(_, server)| server.state).min() else {
            return Ok(None);
        };
        let best = || found.iter().filter(move |(_, server)| server.state == state);
        let current = self.lock().host;
        let known = self.lock().server.clone();
        let is_current = |(host, _): &&(usize, ServerIdentity)| *host == current;
        let Some((host, server)) = best().find(is_current).or(best().next()) else {
            return Ok(None);
        };
        let other = best().find(|(_, other)| other != server);
        if let (Some((other_host, other)), false) = (other, state == ServerState::Standby) {
            // Changes at the wrong one would be lost: none is made until one of them is stopped.
            self.invalidate_connections();
            let advice = match self.target {
                TargetSession::Primary => "stop one of them; nothing is changed until then",
                TargetSession::PreferPrimary => "name the one to read in database_url",
            };
            let reason = format!(
                "is a primary ({server}), and so is {} ({other}): {advice}",
                self.name(*other_host)
            );
            return Err((*host, reason));
        }
        let admitted = match known {
            // Each new session looks for the newest commit.
            Some(known) if server.may_be_a_twin_of(&known) => server.check_after(&known),
            _ => self.admit(server),
        };
        admitted.map(|()| Some((*host, state))).map_err(|reason| (*host, reason))
    }

    /// Logs why a server must not be used, once until the reason changes. At the start the reason
    /// is returned as an error instead.
    fn report(&self, host: usize, reason: &str) {
        let mut current = self.lock();
        if current.server.is_some() && current.reported != reason {
            tracing::error!(host = self.name(host), reason, "a database server must not be used");
            reason.clone_into(&mut current.reported);
        }
    }

    fn name(&self, host: usize) -> String {
        address(&self.all[host])
    }

    /// Identifies a server, or says why it cannot be used.
    async fn probe(&self, options: &PgConnectOptions) -> Result<ServerIdentity, HostError> {
        // The role that needs most.
        let session = self.session(match self.target {
            TargetSession::Primary => Role::Writer,
            TargetSession::PreferPrimary => Role::Snapshot,
        });
        let probing = async {
            let connecting = session::start_up(options.clone());
            let mut connection =
                connecting.connect().await.map_err(|error| HostError::from(&error))?;
            let answer = session.prepare(&mut connection).await.map_err(HostError::from);
            // Whatever becomes of this connection now, it has reported what it was made for.
            let _ = connection.close().await;
            answer
        };
        let late = |_| HostError {
            reason: format!("no answer within {} s", self.connect_time_max.as_secs()),
            may_pass: true,
        };
        tokio::time::timeout(self.connect_time_max, probing).await.map_err(late)?
    }

    fn switch_to(&self, host: usize) {
        let mut current = self.lock();
        current.reported.clear();
        if current.host == host {
            return;
        }
        if self.target == TargetSession::Primary {
            let (from, to) = (self.name(current.host), self.name(host));
            tracing::warn!(%from, %to, "switched to another primary");
        }
        current.host = host;
        current.trusted_since = Instant::now();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// -1 stands for no limit.
const CONNECTIONS_ALLOWED: &str = "\
    SELECT least(nullif(role.rolconnlimit, -1), nullif(database.datconnlimit, -1), \
        current_setting('max_connections')::integer \
        - current_setting('superuser_reserved_connections')::integer \
        - coalesce(current_setting('reserved_connections', true)::integer, 0)) \
    FROM pg_roles role, pg_database database \
    WHERE role.rolname = current_user AND database.datname = current_database()";

fn cannot_connect(options: &PgConnectOptions, host_error: impl Into<HostError>) -> ConnectError {
    let what = format!("cannot connect to the database at {}", address(options));
    ConnectError::new(&what, host_error)
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

#[cfg(test)]
mod tests;
