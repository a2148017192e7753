//! Counts denials by caller: a caller that is denied often must fill neither the disk nor the place
//! of another caller's lines.

use std::{
    collections::HashMap,
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::domain::ids::Identity;

/// The time after which the denials without a line are written as a count.
const DENIALS_PERIOD: Duration = Duration::from_secs(60);
/// Denials of one caller, for one reason, that get a line of their own in a period. Lower, and the
/// lines do not show what was tried; higher, and noise fills the disk.
const LINES_MAX: u64 = 10;
/// Callers that are counted one by one: so many identities with rights, and so many other callers. The
/// rest is counted together.
const CALLERS_MAX: usize = 1000;

/// Who was denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    Identity(Identity),
    /// An identity that the policy allows nothing.
    WithoutRights(Identity),
    /// A caller that was not identified.
    Network(Option<IpAddr>),
    /// All callers above `CALLERS_MAX`.
    Others,
}

/// Denials that have no line of their own.
#[derive(Debug, PartialEq, Eq)]
pub struct DenialCount {
    pub who: Denied,
    pub reason: &'static str,
    pub count: u64,
}

/// The denials of one caller for one reason.
#[derive(Default)]
struct Count {
    /// With a line of their own.
    lines: u64,
    /// Without one.
    beyond: u64,
}

type Counts = HashMap<(Denied, &'static str), Count>;

/// The denials of the current period.
pub struct Denials {
    since: Instant,
    /// Apart from the others, because anybody can send calls from many addresses, and an issuer of
    /// tokens has many more identities than the policy.
    with_rights: Counts,
    others: Counts,
}

impl Denials {
    pub fn new(now: Instant) -> Self {
        Self { since: now, with_rights: Counts::new(), others: Counts::new() }
    }

    /// Counts a denial, and returns whether it gets a line of its own: only if there is room for it.
    pub fn count(&mut self, who: Denied, reason: &'static str, has_room: bool) -> bool {
        let counts = match who {
            Denied::Identity(_) => &mut self.with_rights,
            Denied::WithoutRights(_) | Denied::Network(_) | Denied::Others => &mut self.others,
        };
        let key = (who, reason);
        if counts.len() < CALLERS_MAX || counts.contains_key(&key) {
            let count = counts.entry(key).or_default();
            let has_line = has_room && count.lines < LINES_MAX;
            *(if has_line { &mut count.lines } else { &mut count.beyond }) += 1;
            return has_line;
        }
        self.others.entry((Denied::Others, reason)).or_default().beyond += 1;
        false
    }

    /// Ends the period if it is over, and returns what it counted beyond its lines.
    pub fn take_if_over(&mut self, now: Instant) -> Vec<DenialCount> {
        if now.duration_since(self.since) < DENIALS_PERIOD { Vec::new() } else { self.take(now) }
    }

    /// Ends the period.
    pub fn take(&mut self, now: Instant) -> Vec<DenialCount> {
        self.since = now;
        let counts =
            mem::take(&mut self.with_rights).into_iter().chain(mem::take(&mut self.others));
        counts
            .map(|((who, reason), count)| DenialCount { who, reason, count: count.beyond })
            .filter(|it| it.count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Denied {
        Denied::Identity(Identity::from_stored(name))
    }

    fn address(number: u32) -> Denied {
        Denied::Network(Some(IpAddr::from(number.to_be_bytes())))
    }

    #[test]
    fn every_denial_is_a_line_or_in_a_count() {
        let now = Instant::now();
        let mut denials = Denials::new(now);
        let lines = (0..100).filter(|_| denials.count(identity("a"), "denied", true)).count();
        assert_eq!(lines as u64, LINES_MAX);
        assert!(denials.count(identity("b"), "denied", true));
        assert!(denials.count(identity("a"), "unauthenticated", true), "another reason");

        assert_eq!(denials.take_if_over(now), []);
        let counted = denials.take_if_over(now + DENIALS_PERIOD);
        let expected = DenialCount { who: identity("a"), reason: "denied", count: 100 - LINES_MAX };
        assert_eq!(counted, [expected]);
        assert!(denials.count(identity("a"), "denied", true), "a new period");
    }

    #[test]
    fn a_denial_without_room_for_its_line_is_counted() {
        let now = Instant::now();
        let mut denials = Denials::new(now);
        assert!(!denials.count(identity("a"), "denied", false));
        assert!(denials.count(identity("a"), "denied", true));
        let expected = DenialCount { who: identity("a"), reason: "denied", count: 1 };
        assert_eq!(denials.take(now), [expected]);
    }

    #[test]
    fn many_addresses_and_identities_without_rights_are_counted_together_and_hide_no_identity() {
        let now = Instant::now();
        let mut denials = Denials::new(now);
        let total = CALLERS_MAX as u64 * 3;
        let mut lines = 0;
        for number in 0..total as u32 {
            let who = match number % 2 {
                0 => address(number),
                _ => Denied::WithoutRights(Identity::from_stored(&number.to_string())),
            };
            lines += u64::from(denials.count(who, "denied", true));
        }
        assert!(denials.count(identity("a"), "denied", true));
        assert!(denials.others.len() <= CALLERS_MAX + 1);
        let counted = denials.take(now);
        assert_eq!(counted.len(), 1, "{counted:?}");
        assert_eq!((&counted[0].who, counted[0].count + lines), (&Denied::Others, total));
    }
}
