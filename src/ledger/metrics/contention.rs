//! Which accounts make requests wait, in bounded memory: the Space-Saving sketch of Metwally,
//! Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams"
//! (ICDT 2005).
//!
//! The sketch counts a fixed number of accounts. Another account replaces the one with the fewest waits
//! and inherits its number, which becomes the error of the new one: the waits that it may not have had.
//! So every account with more waits than the fewest counted is in the sketch.
//!
//! All numbers halve every [`HALF_LIFE`]. Otherwise past contention would hide the present one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::{domain::ids::AccountId, ledger::write_path::job::Job, lock::lock};

/// Accounts in the sketch. An account with more than one of 500 waits is certainly among them.
const ACCOUNTS_MAX: usize = 500;
/// After this time a wait counts half: it can still be seen when an operator looks after an alert, and
/// is gone the next day.
const HALF_LIFE: Duration = Duration::from_secs(10 * 60);

/// An account that made requests wait.
#[derive(Clone, Debug, PartialEq)]
pub struct ContendedAccount {
    /// The account.
    pub account_id: AccountId,
    /// How many requests waited for it.
    pub waits: f64,
    /// The most by which `waits` may be too high.
    pub waits_error: f64,
    /// How long they waited in sum, since the account came into the sketch.
    pub waited: Duration,
}

/// See the module.
pub struct Contention(Mutex<Sketch>);

struct Sketch {
    accounts: HashMap<AccountId, Counted>,
    accounts_max: usize,
    /// When the numbers were halved.
    halved: Instant,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    waits: f64,
    error: f64,
    seconds: f64,
}

impl Default for Contention {
    fn default() -> Self {
        Self(Mutex::new(Sketch::new(ACCOUNTS_MAX, Instant::now())))
    }
}

impl Contention {
    /// Ends the waits of these jobs, and counts them.
    pub fn end_waits<'a>(&self, jobs: impl Iterator<Item = &'a Arc<Job>>) {
        let mut waits = jobs.filter_map(|job| job.end_wait()).peekable();
        if waits.peek().is_none() {
            return;
        }
        let mut sketch = lock(&self.0);
        let now = Instant::now();
        for (account_id, since) in waits {
            let waited = now.saturating_duration_since(since);
            sketch.record(account_id, waited.as_secs_f64(), now);
        }
    }

    /// The accounts with the most waits.
    pub fn most_contended(&self, limit: usize) -> Vec<ContendedAccount> {
        lock(&self.0).most_contended(limit, Instant::now())
    }
}

impl Sketch {
    fn new(accounts_max: usize, now: Instant) -> Self {
        Self { accounts: HashMap::new(), accounts_max, halved: now }
    }

    /// One more request has waited for this account.
    fn record(&mut self, account_id: AccountId, seconds: f64, now: Instant) {
        self.age(now);
        if let Some(counted) = self.accounts.get_mut(&account_id) {
            counted.waits += 1.0;
            counted.seconds += seconds;
            return;
        }
        let mut error = 0.0;
        if self.accounts.len() >= self.accounts_max {
            // A search, but only for an account that is not among so many.
            let waits = |(_, counted): &(&AccountId, &Counted)| counted.waits;
            let fewest =
                self.accounts.iter().min_by(|left, right| waits(left).total_cmp(&waits(right)));
            if let Some((account_id, counted)) = fewest.map(|(id, it)| (id.clone(), *it)) {
                error = counted.waits;
                self.accounts.remove(&account_id);
            }
        }
        let counted = Counted { waits: error + 1.0, error, seconds };
        self.accounts.insert(account_id, counted);
    }

    fn most_contended(&mut self, limit: usize, now: Instant) -> Vec<ContendedAccount> {
        self.age(now);
        let of = |(account_id, counted): (&AccountId, &Counted)| ContendedAccount {
            account_id: account_id.clone(),
            waits: counted.waits,
            waits_error: counted.error,
            waited: Duration::try_from_secs_f64(counted.seconds).unwrap_or(Duration::MAX),
        };
        let mut accounts: Vec<_> = self.accounts.iter().map(of).collect();
        accounts.sort_by(|left, right| {
            right.waits.total_cmp(&left.waits).then_with(|| left.account_id.cmp(&right.account_id))
        });
        accounts.truncate(limit);
        accounts
    }

    fn age(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.halved);
        let halvings = u32::try_from(elapsed.as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
        if halvings == 0 {
            return;
        }
        self.halved += HALF_LIFE * halvings;
        let share = 0.5_f64.powi(i32::try_from(halvings).unwrap_or(i32::MAX));
        for counted in self.accounts.values_mut() {
            counted.waits *= share;
            counted.error *= share;
            counted.seconds *= share;
        }
        // Less than half a wait is left: not worth an entry.
        self.accounts.retain(|_, counted| counted.waits >= 0.5);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(number: u64) -> AccountId {
        AccountId::parse(&format!("account-{number}")).unwrap()
    }

    #[test]
    fn a_frequent_account_is_known_and_no_number_is_too_small() {
        let now = Instant::now();
        let mut sketch = Sketch::new(20, now);
        let mut truth = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            // A few are frequent, most of a thousand are not.
            let number = if random.u8(..) < 100 { random.u64(0..5) } else { random.u64(0..1000) };
            *truth.entry(id(number)).or_insert(0.0) += 1.0;
            sketch.record(id(number), 0.25, now);
        }
        assert_eq!(sketch.accounts.len(), 20);
        let found = sketch.most_contended(5, now);
        let ids: Vec<_> = found.iter().map(|it| it.account_id.to_string()).collect();
        assert!((0..5).all(|number| ids.contains(&format!("account-{number}"))), "{ids:?}");
        for account in sketch.most_contended(20, now) {
            let waits = truth[&account.account_id];
            assert!(waits <= account.waits && account.waits - account.waits_error <= waits);
            assert!(account.waited.as_secs_f64() <= waits * 0.25 + 1e-6, "{account:?}");
        }
    }

    #[test]
    fn a_wait_counts_half_after_a_while_and_then_nothing() {
        let now = Instant::now();
        let mut sketch = Sketch::new(2, now);
        (0..8).for_each(|_| sketch.record(id(1), 0.5, now));
        let found = sketch.most_contended(9, now + HALF_LIFE);
        let seconds = found[0].waited.as_secs_f64();
        assert_eq!((found[0].waits, seconds), (4.0, 2.0));
        sketch.record(id(2), 1.0, now + HALF_LIFE * 3);
        let found = sketch.most_contended(9, now + HALF_LIFE * 3);
        assert_eq!((found[0].waits, found[1].waits), (1.0, 1.0));
        assert_eq!(sketch.most_contended(9, now + HALF_LIFE * 40), []);
    }
}
