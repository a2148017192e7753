//! Open connections.
//!
//! A connection is *provisional* until a call on it has brought a valid credential. Provisional
//! connections have a small place of their own and a short age, so peers without a credential cannot
//! keep callers out: when the place is full, the oldest one of the network with the most goes.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::task::AtomicWaker;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    budget::{
        Limit,
        kept_calls::{self, CallCounts, KEPT_CALLS_MAX, KEPT_CALLS_OF_NOBODY_MAX, Keeping},
        share::{Budget, Exhausted, Maxima, Share},
    },
    domain::ids::Identity,
    lock::lock,
    network::network_of,
};

/// How old a connection may become without a credential.
const PROVISIONAL_AGE_MAX: Duration = Duration::from_secs(60);
/// The most provisional connections; at most a quarter of all.
const PROVISIONAL_MAX: usize = 512;
/// How long a connection stays after its client certificate has expired: its streams end with an error
/// of their own first. Then its caller connects again, with a certificate that was renewed.
const EXPIRED_CERTIFICATE_GRACE: Duration = Duration::from_secs(5);
/// The connections with headers in more than one frame that is not the last: what is decoded of them can take
/// half a MiB. Headers of up to 16 KiB fit into one frame.
const CONTINUED_HEADERS_MAX: usize = 64;
/// A connection is closed when a response was not read for two to three periods, so for 20 to 30 s.
const UNREAD_PERIOD: Duration = Duration::from_secs(10);
/// The periods that unread responses are counted for: the present one, the two before it, and the one that
/// comes next, so that none is counted in the place of another.
const UNREAD_SLOTS: usize = 4;
/// How long a connection stays after the last credential of its calls has expired: longer than a unary call may
/// take. Its streams have ended before, but for Watch of health, which has no other end.
const EXPIRED_CREDENTIAL_GRACE: Duration = Duration::from_secs(330);
/// How often connections are checked for what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The open connections of a server.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    provisional_max: usize,
    /// Connections after a credential was accepted. None: no credential is asked for.
    established: Option<Arc<Budget>>,
    /// By number, so the oldest come first.
    open: Mutex<BTreeMap<u64, Weak<Connection>>>,
    next: AtomicU64,
    /// The present period.
    period: AtomicU32,
    continued_headers: Arc<Semaphore>,
}

/// An open connection, for its calls.
#[derive(Debug)]
pub struct Connection {
    /// The number of the connection.
    pub id: u64,
    address: Option<IpAddr>,
    pub(super) opened: Instant,
    /// The identity of the first credential, with the share of the connection.
    established: OnceLock<Share>,
    /// Set if the peer has a client certificate: when that expires, if it is one of a caller.
    certificate_expire_time: OnceLock<Option<SystemTime>>,
    /// When the last credential of its calls expires, in seconds since the Unix epoch. 0: there was none.
    credential_expire_second: AtomicU64,
    calls: CallCounts,
    is_closing: AtomicBool,
    /// The task that reads from the connection.
    reader: AtomicWaker,
    /// Responses that are not read yet, by the period in which they began, modulo their number.
    unread: [AtomicU32; UNREAD_SLOTS],
    connections: Arc<Connections>,
}

/// A call in flight on a connection. Dropping it ends it.
#[derive(Debug)]
pub struct OpenCall(Arc<Connection>);

/// A response, or a part of one, that the caller has not read yet. If it is not dropped in time, the
/// connection is closed: nothing else makes HTTP/2 drop what a peer does not read.
#[derive(Debug)]
pub struct Unread {
    connection: Arc<Connection>,
    period: usize,
}

impl Connections {
    /// Room for this many connections.
    pub(super) fn new(max: usize, is_authenticated: bool) -> Arc<Self> {
        let provisional_max = (max / 4).clamp(1, PROVISIONAL_MAX);
        let established_max = max.saturating_sub(provisional_max).max(1);
        let maxima = Maxima {
            server: established_max,
            identity: established_max.div_ceil(2),
            anonymous: 0,
            connection: usize::MAX,
        };
        Arc::new(Self {
            max,
            provisional_max,
            established: is_authenticated.then(|| Budget::new(Limit::Connections, maxima)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            period: AtomicU32::new(0),
            continued_headers: Arc::new(Semaphore::new(CONTINUED_HEADERS_MAX)),
        })
    }

    /// The most connections of all kinds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) fn established_budget(&self) -> Option<Arc<Budget>> {
        self.established.clone()
    }

    /// Adds a connection that was just accepted, and makes room for it.
    #[must_use]
    pub fn open(self: &Arc<Self>, address: Option<IpAddr>) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            address,
            opened: Instant::now(),
            established: OnceLock::new(),
            certificate_expire_time: OnceLock::new(),
            credential_expire_second: AtomicU64::new(0),
            calls: CallCounts::default(),
            is_closing: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            unread: Default::default(),
            connections: self.clone(),
        });
        lock(&self.open).insert(connection.id, Arc::downgrade(&connection));
        if self.established.is_some() {
            self.close_excess();
        }
        connection
    }

    /// Closes provisional connections beyond their number.
    fn close_excess(&self) {
        let provisional = self.provisional();
        let excess = provisional.len().saturating_sub(self.provisional_max);
        for _ in 0..excess {
            let mut by_network: HashMap<Option<IpAddr>, Vec<&Arc<Connection>>> = HashMap::new();
            for connection in provisional.iter().filter(|it| !it.is_closing()) {
                by_network.entry(connection.network()).or_default().push(connection);
            }
            if let Some(most) = by_network.values().max_by_key(|those| those.len()) {
                most[0].close();
            }
        }
    }

    /// The provisional connections that are not being closed, oldest first.
    fn provisional(&self) -> Vec<Arc<Connection>> {
        self.matching(|connection| self.is_provisional(connection))
    }

    /// The connections that are not being closed, oldest first, of which this is true.
    fn matching(&self, is_meant: impl Fn(&Connection) -> bool) -> Vec<Arc<Connection>> {
        // Upgraded and dropped outside of the lock: dropping the last reference takes it.
        let open: Vec<_> = lock(&self.open).values().filter_map(Weak::upgrade).collect();
        open.into_iter().filter(|it| !it.is_closing() && is_meant(it)).collect()
    }

    /// Closes the connections of the identities of which this is true.
    pub fn close_those_of(&self, is_meant: impl Fn(&Identity) -> bool) {
        let meant =
            |it: &Connection| it.established.get().is_some_and(|it| is_meant(it.identity()));
        self.matching(meant).iter().for_each(|connection| connection.close());
    }

    /// Closes the connections with a client certificate.
    pub fn close_those_with_certificate(&self) {
        let has_certificate = |it: &Connection| it.certificate_expire_time.get().is_some();
        self.matching(has_certificate).iter().for_each(|connection| connection.close());
    }

    /// Closes, for as long as this is polled, provisional connections that are too old, connections
    /// whose client certificate or credentials have expired, those that keep too many calls, and those
    /// with responses that were not read in time.
    pub async fn sweep(self: Arc<Self>) {
        let mut next_period = Instant::now() + UNREAD_PERIOD;
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.close_old(Instant::now());
            self.close_expired(SystemTime::now());
            self.close_excess_kept();
            if Instant::now() >= next_period {
                next_period += UNREAD_PERIOD;
                self.begin_period();
            }
        }
    }

    pub(super) fn close_old(&self, now: Instant) {
        let is_old = |it: &Connection| now.duration_since(it.opened) > PROVISIONAL_AGE_MAX;
        self.provisional().iter().filter(|it| is_old(it)).for_each(|it| it.close());
    }

    pub(super) fn close_expired(&self, now: SystemTime) {
        let is_expired = |it: &Connection| {
            let expire_time = it.certificate_expire_time.get().copied().flatten();
            expire_time.is_some_and(|time| time + EXPIRED_CERTIFICATE_GRACE <= now)
                || it.credentials_expired_before(now - EXPIRED_CREDENTIAL_GRACE)
        };
        let expired = self.matching(is_expired);
        close_together(&expired, "closing connections whose credentials have expired");
    }

    /// Closes connections that keep too many calls. Those without a credential close only each other.
    pub(super) fn close_excess_kept(&self) {
        let open = self.matching(|it| it.calls.kept() > 0);
        let (provisional, of_callers): (Vec<_>, Vec<_>) =
            open.iter().partition(|it| self.is_provisional(it));
        for (those, max) in [(provisional, KEPT_CALLS_OF_NOBODY_MAX), (of_callers, KEPT_CALLS_MAX)]
        {
            let keeping = those.into_iter().map(|connection| Keeping {
                owner: connection.owner(),
                is_idle: connection.calls.is_idle(),
                kept: connection.calls.kept(),
                connection,
            });
            let excess = kept_calls::excess(keeping, max);
            let message = "closing connections that had many more calls than they have";
            close_together(&excess, message);
        }
    }

    /// Whether it still lacks a credential, and needs one.
    fn is_provisional(&self, connection: &Connection) -> bool {
        self.established.is_some() && connection.established.get().is_none()
    }

    /// Begins the next period. What is unread since the oldest one is too late.
    pub(super) fn begin_period(&self) {
        let oldest = self.period.fetch_add(1, Ordering::Relaxed).wrapping_add(2);
        let slot = oldest as usize % UNREAD_SLOTS;
        let is_late = |it: &Connection| it.unread[slot].load(Ordering::Relaxed) > 0;
        let late = self.matching(is_late);
        close_together(&late, "closing connections that do not read their responses");
    }
}

/// Closes these connections with one line in the log, because peers decide how many they are.
fn close_together(connections: &[impl Borrow<Arc<Connection>>], message: &str) {
    connections.iter().for_each(|connection| connection.borrow().close());
    if let Some(first) = connections.first() {
        let peer = first.borrow().address;
        tracing::info!(connections = connections.len(), ?peer, "{message}");
    }
}

impl Connection {
    /// Gives the connection the place of this identity, unless an earlier call has. Its credential
    /// expires at this time; None: never.
    ///
    /// # Errors
    /// The server or the identity has too many connections.
    pub fn establish(
        &self,
        identity: &Identity,
        expire_time: Option<SystemTime>,
    ) -> Result<(), Exhausted> {
        let Some(budget) = &self.connections.established else { return Ok(()) };
        if identity.is_anonymous() {
            return Ok(());
        }
        self.note_credential(expire_time);
        if self.established.get().is_none() {
            let share = budget.take_one(identity)?;
            // Another call was faster: the share is returned.
            let _ = self.established.set(share);
        }
        Ok(())
    }

    /// A credential of a call was accepted that expires at this time; None: never.
    pub fn note_credential(&self, expire_time: Option<SystemTime>) {
        let second = expire_time.map_or(u64::MAX, second_of);
        if self.credential_expire_second.load(Ordering::Relaxed) < second {
            self.credential_expire_second.fetch_max(second, Ordering::Relaxed);
        }
    }

    fn credentials_expired_before(&self, time: SystemTime) -> bool {
        let second = self.credential_expire_second.load(Ordering::Relaxed);
        second != 0 && second <= second_of(time)
    }

    /// A call begins.
    #[must_use]
    pub fn begin_call(this: &Arc<Self>) -> OpenCall {
        this.calls.add();
        OpenCall(this.clone())
    }

    /// So many calls were read from the connection that have not begun yet.
    pub fn note_read(&self, calls: usize) {
        self.calls.note_read(calls);
    }

    /// Notes that the peer has a client certificate, and when that expires.
    pub fn set_certificate(&self, expire_time: Option<SystemTime>) {
        // Set once, after the handshake.
        let _ = self.certificate_expire_time.set(expire_time);
    }

    /// Counts something that the caller has not read yet.
    #[must_use]
    pub fn unread(this: &Arc<Self>) -> Unread {
        let period = this.connections.period.load(Ordering::Relaxed) as usize % UNREAD_SLOTS;
        this.unread[period].fetch_add(1, Ordering::Relaxed);
        Unread { connection: this.clone(), period }
    }

    /// A place for headers that have more than one frame, until they are whole. None if all are taken.
    pub fn continued_headers(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.continued_headers.clone().try_acquire_owned().ok()
    }

    /// Makes the task of the connection end it.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Ready when the connection is to be ended.
    pub fn poll_closing(&self, context: &mut Context<'_>) -> Poll<()> {
        self.reader.register(context.waker());
        if self.is_closing() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The network of the other end.
    fn network(&self) -> Option<IpAddr> {
        self.address.map(network_of)
    }

    /// The identity of the connection, or the network of a provisional one.
    pub(super) fn owner(&self) -> (Option<&Identity>, Option<IpAddr>) {
        match self.established.get() {
            Some(share) => (Some(share.identity()), None),
            None => (None, self.network()),
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }
}

/// The seconds since the Unix epoch.
fn second_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.id);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.calls.remove();
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.connection.unread[self.period].fetch_sub(1, Ordering::Relaxed);
    }
}
