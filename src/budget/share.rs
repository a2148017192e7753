//! Budgets, and the shares that are taken of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{Counter, counter};
use tokio::sync::Notify;

use crate::{
    budget::{Limit, SMALL_BYTES_MAX},
    domain::ids::Identity,
    lock::lock,
};

/// The delay before a retry may succeed: most shares are returned sooner.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All callers together.
    Server,
    /// One identity. Callers without a credential are one.
    Identity,
    /// One connection.
    Connection,
}

all_values!(Scope { Server, Identity, Connection });

impl Scope {
    /// The name in errors, metrics and docs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Identity => "identity",
            Self::Connection => "connection",
        }
    }
}

/// The most that each scope may have.
#[derive(Clone, Copy, Debug)]
pub struct Maxima {
    /// All callers together.
    pub server: usize,
    /// One identity.
    pub identity: usize,
    /// All callers without a credential together.
    pub anonymous: usize,
    /// One connection. `usize::MAX`: it is not counted.
    pub connection: usize,
}

impl Maxima {
    /// The maxima of a server without authentication: all callers are one identity.
    pub(super) fn of_one_identity(self) -> Self {
        Self { anonymous: self.server, ..self }
    }
}

/// A budget is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The budget that has no room.
    pub limit: Limit,
    /// Whose budget it is.
    pub scope: Scope,
    /// The size of the budget.
    pub max: usize,
    /// When a retry may succeed.
    pub retry_delay: Duration,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, what) = (self.max, self.limit.what());
        match self.scope {
            Scope::Server => {
                write!(formatter, "this server has no room for more than {max} {what}")
            }
            Scope::Identity => write!(formatter, "this identity may have at most {max} {what}"),
            Scope::Connection => write!(formatter, "a connection may have at most {max} {what}"),
        }
    }
}

/// A budget of calls, of bytes, or of whatever can be returned.
#[derive(Debug)]
pub struct Budget {
    limit: Limit,
    maxima: Maxima,
    usage: Mutex<Usage>,
    /// Notified when nothing is taken.
    idle: Notify,
    shed: Shed,
}

#[derive(Debug, Default)]
struct Usage {
    total: usize,
    /// Only identities with a share.
    by_identity: HashMap<Identity, usize>,
    /// Only connections with a share.
    by_connection: HashMap<u64, usize>,
}

/// Counts what is shed, by scope.
pub(super) struct Shed([Counter; Scope::ALL.len()]);

impl Shed {
    pub fn new(limit: Limit) -> Self {
        Self(Scope::ALL.map(|scope| {
            let labels = [("limit", limit.name()), ("scope", scope.name())];
            let counter = counter!("passbook_calls_shed_total", &labels);
            // A counter that appears with its first value has no increase for an alert.
            counter.absolute(0);
            counter
        }))
    }

    pub fn count(&self, scope: Scope) {
        self.0[scope as usize].increment(1);
    }
}

impl fmt::Debug for Shed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shed")
    }
}

/// A share of a budget. Dropping it returns it.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    identity: Identity,
    connection: Option<u64>,
    amount: usize,
}

impl Budget {
    /// A budget of this size.
    #[must_use]
    pub fn new(limit: Limit, maxima: Maxima) -> Arc<Self> {
        let (usage, idle, shed) = (Mutex::default(), Notify::new(), Shed::new(limit));
        Arc::new(Self { limit, maxima, usage, idle, shed })
    }

    /// An empty share of this identity, on this connection.
    #[must_use]
    pub fn share(self: &Arc<Self>, identity: Identity, connection: Option<u64>) -> Share {
        Share { budget: self.clone(), identity, connection, amount: 0 }
    }

    /// Takes one for this identity.
    ///
    /// # Errors
    /// A budget is exhausted.
    pub fn take_one(self: &Arc<Self>, identity: &Identity) -> Result<Share, Exhausted> {
        let mut share = self.share(identity.clone(), None);
        share.resize(1)?;
        Ok(share)
    }

    /// The size of the server's budget.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.maxima.server
    }

    #[cfg(test)]
    pub(super) fn maxima(&self) -> Maxima {
        self.maxima
    }

    /// What is taken of it.
    #[must_use]
    pub fn used(&self) -> usize {
        lock(&self.usage).total
    }

    /// Waits until nothing is taken.
    pub async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            let mut idle = std::pin::pin!(idle);
            // From here on a notification is not lost.
            idle.as_mut().enable();
            if self.used() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn exhausted(&self, scope: Scope, max: usize) -> Exhausted {
        self.shed.count(scope);
        Exhausted { limit: self.limit, scope, max, retry_delay: RETRY_DELAY }
    }
}

impl Share {
    /// Whose share it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Grows or shrinks the share to `amount`.
    ///
    /// # Errors
    /// A budget is exhausted. The share stays as it was.
    pub fn resize(&mut self, amount: usize) -> Result<(), Exhausted> {
        self.resize_within(amount, self.identity_max())
    }

    /// Grows or shrinks a share of bytes to `bytes`, or to none for a few of them, which cost less than their
    /// counting.
    ///
    /// # Errors
    /// A budget is exhausted. The share stays as it was.
    pub fn resize_bytes(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.resize(if bytes > SMALL_BYTES_MAX { bytes } else { 0 })
    }

    /// Grows or shrinks the share to `amount` if the budget has room. What waits is not shed, and does
    /// not count as such.
    pub fn try_resize(&mut self, amount: usize) -> bool {
        self.change(amount, self.identity_max()).is_ok()
    }

    /// The most that the identity may have.
    #[must_use]
    pub fn identity_max(&self) -> usize {
        let Maxima { identity, anonymous, .. } = self.budget.maxima;
        if self.identity.is_anonymous() { anonymous } else { identity }
    }

    /// What all shares of the identity have.
    #[must_use]
    pub fn used_by_identity(&self) -> usize {
        lock(&self.budget.usage).by_identity.get(&self.identity).copied().unwrap_or(0)
    }

    /// The same as [`Self::resize`], with another maximum for the identity.
    ///
    /// # Errors
    /// See [`Self::resize`].
    pub fn resize_within(&mut self, amount: usize, identity_max: usize) -> Result<(), Exhausted> {
        self.change(amount, identity_max).map_err(|(scope, max)| self.budget.exhausted(scope, max))
    }

    /// The error has the budget that is exhausted, and its size.
    fn change(&mut self, amount: usize, identity_max: usize) -> Result<(), (Scope, usize)> {
        let before = self.amount;
        if amount == before {
            return Ok(());
        }
        let Maxima { server, connection, .. } = self.budget.maxima;
        let connection_id = self.connection.filter(|_| connection != usize::MAX);
        let mut usage = lock(&self.budget.usage);
        let total = usage.total - before + amount;
        if amount > before {
            let of_identity = usage.by_identity.get(&self.identity).copied().unwrap_or(0);
            let of_connection = connection_id.and_then(|id| usage.by_connection.get(&id).copied());
            let exceeds = |used: usize, max| used - before + amount > max;
            if total > server {
                return Err((Scope::Server, server));
            } else if exceeds(of_identity, identity_max) {
                return Err((Scope::Identity, identity_max));
            } else if connection_id.is_some() && exceeds(of_connection.unwrap_or(0), connection) {
                return Err((Scope::Connection, connection));
            }
        }
        usage.total = total;
        adjust(&mut usage.by_identity, &self.identity, before, amount);
        if let Some(id) = connection_id {
            adjust(&mut usage.by_connection, &id, before, amount);
        }
        drop(usage);
        if total == 0 {
            self.budget.idle.notify_waiters();
        }
        self.amount = amount;
        Ok(())
    }
}

/// Replaces what one share has added to the usage of `key`. A key without usage is removed.
fn adjust<K: Clone + Eq + Hash>(usage: &mut HashMap<K, usize>, key: &K, before: usize, now: usize) {
    match usage.entry(key.clone()) {
        Entry::Occupied(mut entry) => match entry.get() - before + now {
            0 => {
                entry.remove();
            }
            used => {
                entry.insert(used);
            }
        },
        Entry::Vacant(entry) => {
            entry.insert(now);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Shrinking cannot exhaust a budget.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAXIMA: Maxima = Maxima { server: 10, identity: 6, anonymous: 3, connection: 4 };

    fn named(name: &str) -> Identity {
        Identity::from_stored(name)
    }

    fn exhausted(result: Result<(), Exhausted>) -> Option<(Scope, usize)> {
        result.err().map(|it| (it.scope, it.max))
    }

    #[test]
    fn each_scope_has_a_budget_of_its_own() {
        let budget = Budget::new(Limit::Calls, MAXIMA);
        let mut greedy = [1, 2].map(|id| budget.share(named("greedy"), Some(id)));
        assert_eq!(exhausted(greedy[0].resize(5)), Some((Scope::Connection, 4)));
        assert_eq!(exhausted(greedy[0].resize(4)), None);
        assert_eq!(exhausted(greedy[1].resize(3)), Some((Scope::Identity, 6)));
        assert_eq!(exhausted(greedy[1].resize(2)), None);
        let mut nobody = budget.share(Identity::anonymous(), Some(3));
        assert_eq!(exhausted(nobody.resize(4)), Some((Scope::Identity, 3)));
        assert_eq!(exhausted(nobody.resize(3)), None);
        let mut other = budget.share(named("other"), None);
        assert_eq!(exhausted(other.resize(2)), Some((Scope::Server, 10)));
        assert_eq!(exhausted(other.resize(1)), None);
        assert_eq!(budget.used(), 10);
    }

    #[test]
    fn a_share_that_shrinks_or_is_dropped_is_there_for_others() {
        let budget = Budget::new(Limit::Calls, MAXIMA);
        let mut first = budget.share(named("a"), None);
        let mut second = budget.share(named("a"), None);
        assert_eq!(exhausted(first.resize(6)), None);
        assert_eq!(exhausted(first.resize(5)), None);
        assert_eq!(exhausted(second.resize(1)), None);
        drop((first, second));
        let usage = lock(&budget.usage);
        assert_eq!(usage.total, 0);
        assert!(usage.by_identity.is_empty() && usage.by_connection.is_empty());
    }

    #[test]
    fn without_authentication_all_that_there_is_belongs_to_one_identity() {
        let budget = Budget::new(Limit::Calls, MAXIMA.of_one_identity());
        let mut all = budget.share(Identity::anonymous(), None);
        assert_eq!(exhausted(all.resize(10)), None);
        assert_eq!(exhausted(all.resize(11)), Some((Scope::Server, 10)));
    }
}
