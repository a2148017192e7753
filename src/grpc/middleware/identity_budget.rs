//! A budget for all callers together, of which one identity gets only a part.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{domain::ids::Identity, lock::lock};

/// A budget of calls, or of bytes.
#[derive(Debug)]
pub struct IdentityBudget {
    max: usize,
    identity_max: usize,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    total: usize,
    /// Only identities with a reservation.
    by_identity: HashMap<Identity, usize>,
}

/// A part of a budget. Dropping the reservation returns it.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<IdentityBudget>,
    identity: Identity,
    amount: usize,
}

/// The budget that is exhausted, with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The budget of all callers together.
    Total(usize),
    /// The budget of the identity.
    Identity(usize),
}

impl IdentityBudget {
    /// A budget of `max`, of which one identity gets at most `identity_max`. Anonymous callers have
    /// no budget of their own: without authentication all callers are anonymous.
    pub fn new(max: usize, identity_max: usize) -> Arc<Self> {
        Arc::new(Self { max, identity_max, usage: Mutex::default() })
    }

    /// An empty reservation for this identity.
    pub fn reservation(self: &Arc<Self>, identity: Identity) -> Reservation {
        Reservation { budget: self.clone(), identity, amount: 0 }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        lock(&self.usage)
    }
}

impl Reservation {
    /// The identity that the reservation is charged to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Grows or shrinks the reservation to `amount`.
    ///
    /// # Errors
    /// A budget is exhausted. The reservation stays unchanged.
    pub fn resize(&mut self, amount: usize) -> Result<(), Exhausted> {
        if amount == self.amount {
            return Ok(());
        }
        let IdentityBudget { max, identity_max, .. } = *self.budget;
        let mut usage = self.budget.usage();
        let others = usage.total - self.amount;
        if others + amount > max {
            return Err(Exhausted::Total(max));
        }
        if !self.identity.is_anonymous() {
            let own = usage.by_identity.get(&self.identity).map_or(0, |own| own - self.amount);
            if own + amount > identity_max {
                return Err(Exhausted::Identity(identity_max));
            }
            match own + amount {
                0 => usage.by_identity.remove(&self.identity),
                own => usage.by_identity.insert(self.identity.clone(), own),
            };
        }
        usage.total = others + amount;
        drop(usage);
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Shrinking cannot exhaust a budget.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_leaves_the_rest_of_the_budget_to_others() {
        let budget = IdentityBudget::new(10, 6);
        let mut greedy = budget.reservation(Identity::from_stored("greedy"));
        let mut other = budget.reservation(Identity::from_stored("other"));
        assert_eq!(greedy.resize(7), Err(Exhausted::Identity(6)));
        assert_eq!(greedy.resize(6), Ok(()));
        assert_eq!(other.resize(5), Err(Exhausted::Total(10)));
        assert_eq!(other.resize(4), Ok(()));
        let mut second = budget.reservation(Identity::from_stored("greedy"));
        assert_eq!(greedy.resize(5), Ok(()));
        assert_eq!(second.resize(1), Ok(()), "another reservation gets what one returned");
        drop((greedy, second, other));
        assert_eq!(budget.usage().total, 0);
        assert!(budget.usage().by_identity.is_empty());
    }

    #[test]
    fn anonymous_callers_have_no_budget_of_their_own() {
        let budget = IdentityBudget::new(10, 6);
        let mut all = budget.reservation(Identity::anonymous());
        assert_eq!(all.resize(10), Ok(()));
        assert_eq!(all.resize(11), Err(Exhausted::Total(10)));
    }
}
