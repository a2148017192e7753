//! Amounts in a time.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::{
    budget::{
        Limit,
        share::{Exhausted, Scope, Shed},
    },
    domain::ids::Identity,
    lock::lock,
};

/// Identities that are remembered. Beyond this number, those that have used nothing lately are
/// forgotten.
const IDENTITIES_KEPT: usize = 1000;

/// An amount in a time, with a burst of as much. What is charged may exceed what is left: then the
/// next check fails until time has made up for it.
pub struct Rate {
    limit: Limit,
    /// The time in which the maximum comes back.
    period: Duration,
    server_max: Option<u32>,
    identity_max: Option<u32>,
    usage: Mutex<Usage>,
    shed: Shed,
}

#[derive(Default)]
struct Usage {
    server: Option<Used>,
    by_identity: HashMap<Identity, Used>,
}

/// How much was used, less what has come back until `at`.
#[derive(Clone, Copy)]
struct Used {
    amount: f64,
    at: Instant,
}

impl Used {
    /// What is used of a rate of `max` in `period`.
    fn used_at(self, now: Instant, max: u32, period: Duration) -> f64 {
        let time = now.saturating_duration_since(self.at);
        let returned = time.as_secs_f64() / period.as_secs_f64() * f64::from(max);
        (self.amount - returned).max(0.0)
    }
}

impl Rate {
    /// A rate of so much in `period`. None: that scope has no limit.
    pub(super) fn new(
        limit: Limit,
        server_max: Option<u32>,
        identity_max: Option<u32>,
        period: Duration,
    ) -> Self {
        let shed = Shed::new(limit);
        Self { limit, period, server_max, identity_max, usage: Mutex::default(), shed }
    }

    /// Checks that something is left.
    ///
    /// # Errors
    /// Nothing is left, of the server's or of the identity's.
    pub fn check(&self, identity: &Identity, now: Instant) -> Result<(), Exhausted> {
        let usage = lock(&self.usage);
        let of_identity = usage.by_identity.get(identity).copied();
        let server = usage.server;
        drop(usage);
        self.check_scope(Scope::Server, self.server_max, server, now)?;
        self.check_scope(Scope::Identity, self.identity_max, of_identity, now)
    }

    fn check_scope(
        &self,
        scope: Scope,
        max: Option<u32>,
        used: Option<Used>,
        now: Instant,
    ) -> Result<(), Exhausted> {
        let (Some(max), Some(used)) = (max, used) else { return Ok(()) };
        let excess = used.used_at(now, max, self.period) + 1.0 - f64::from(max);
        if excess <= 0.0 {
            return Ok(());
        }
        self.shed.count(scope);
        let retry_delay = self.period.mul_f64(excess / f64::from(max));
        Err(Exhausted { limit: self.limit, scope, max: max as usize, retry_delay })
    }

    /// Takes this amount, whether or not it is there.
    pub fn charge(&self, identity: &Identity, amount: u32, now: Instant) {
        self.correct(identity, 0, amount, now);
    }

    /// Takes this amount in place of one that was taken before.
    pub fn correct(&self, identity: &Identity, before: u32, amount: u32, now: Instant) {
        if before == amount {
            return;
        }
        let mut usage = lock(&self.usage);
        let add = |used: Option<Used>, max: u32| {
            let used = used.map_or(0.0, |used| used.used_at(now, max, self.period));
            let amount = used + f64::from(amount) - f64::from(before);
            Used { amount: amount.max(0.0), at: now }
        };
        if let Some(max) = self.server_max {
            usage.server = Some(add(usage.server, max));
        }
        if let Some(max) = self.identity_max {
            if usage.by_identity.len() >= IDENTITIES_KEPT {
                usage.by_identity.retain(|_, used| used.used_at(now, max, self.period) > 0.0);
            }
            let used = add(usage.by_identity.get(identity).copied(), max);
            usage.by_identity.insert(identity.clone(), used);
        }
    }

    /// Checks that something is left, and takes one.
    ///
    /// # Errors
    /// Nothing is left.
    pub fn take(&self, identity: &Identity, now: Instant) -> Result<(), Exhausted> {
        self.check(identity, now)?;
        self.charge(identity, 1, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);

    #[test]
    fn a_rate_is_a_burst_and_as_much_in_each_period() {
        let rate = Rate::new(Limit::Records, Some(100), Some(60), PERIOD);
        let (one, other) = (Identity::from_stored("one"), Identity::from_stored("other"));
        let now = Instant::now();
        let taken = |identity, now| (0..70).filter(|_| rate.take(identity, now).is_ok()).count();
        assert_eq!(taken(&one, now), 60);
        let exhausted = rate.take(&one, now).unwrap_err();
        assert_eq!((exhausted.scope, exhausted.max), (Scope::Identity, 60));
        assert_eq!(exhausted.retry_delay, Duration::from_secs(1));
        assert_eq!(taken(&other, now), 40);
        assert_eq!(rate.take(&other, now).unwrap_err().scope, Scope::Server);
        assert_eq!(taken(&one, now + PERIOD / 2), 30);
    }

    #[test]
    fn what_was_taken_in_advance_can_be_given_back() {
        let rate = Rate::new(Limit::Records, Some(100), Some(60), PERIOD);
        let (one, now) = (Identity::from_stored("one"), Instant::now());
        rate.charge(&one, 60, now);
        assert!(rate.check(&one, now).is_err());
        rate.correct(&one, 60, 59, now);
        assert_eq!(rate.check(&one, now), Ok(()));
        rate.correct(&one, 59, 0, now);
        let taken = (0..70).filter(|_| rate.take(&one, now).is_ok()).count();
        assert_eq!(taken, 60, "nothing is left of it, and there is no credit");
        let other = Identity::from_stored("other");
        let taken = (0..70).filter(|_| rate.take(&other, now).is_ok()).count();
        assert_eq!(taken, 40, "the server has it back, too");
    }

    #[test]
    fn what_was_charged_beyond_the_rate_takes_time_to_come_back() {
        let rate = Rate::new(Limit::Records, None, Some(60), PERIOD);
        let (one, now) = (Identity::from_stored("one"), Instant::now());
        (0..70).for_each(|_| rate.charge(&one, 1, now));
        rate.charge(&one, 20, now);
        assert!(rate.check(&one, now + PERIOD / 2).is_err());
        assert_eq!(rate.check(&one, now + PERIOD / 2 + PERIOD / 30), Ok(()));
    }
}
