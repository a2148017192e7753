//! The room for calls that HTTP/2 keeps on connections that had more of them than they have.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The kept calls of all connections of callers: the peak of the calls of each, less its calls now. h2 keeps room
/// for the peak, some 620 bytes for each call, until the connection ends. With a higher number they take more
/// memory; with a lower one, connections with bursts of calls are closed.
pub const KEPT_CALLS_MAX: usize = 65_536;
/// Those of the connections without a credential, so that they close no other connection. All their calls are
/// denied at once, or few.
pub const KEPT_CALLS_OF_NOBODY_MAX: usize = 16_384;

/// The calls of a connection.
#[derive(Debug, Default)]
pub struct CallCounts {
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

impl CallCounts {
    /// A call begins.
    pub fn add(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.note_read(0);
    }

    /// A call ends.
    pub fn remove(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many calls were read that have not begun yet.
    pub fn note_read(&self, calls: usize) {
        let calls = self.in_flight.load(Ordering::Relaxed) + calls;
        if calls > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(calls, Ordering::Relaxed);
        }
    }

    /// Whether no call is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// The peak of the calls, less those that there are.
    pub fn kept(&self) -> usize {
        let peak = self.peak.load(Ordering::Relaxed);
        peak.saturating_sub(self.in_flight.load(Ordering::Relaxed))
    }
}

/// A connection, as far as its calls matter.
#[derive(Clone, Copy)]
pub struct Keeping<Owner, Connection> {
    /// Who is responsible for the connection.
    pub owner: Owner,
    /// No call is in flight.
    pub is_idle: bool,
    /// The calls that it keeps.
    pub kept: usize,
    /// The connection.
    pub connection: Connection,
}

/// The connections without which the others keep at most `max` calls. They are those of the owner that keeps
/// the most, first the idle ones, and of these the one that keeps the most.
pub fn excess<Owner: Eq + Hash, Connection>(
    connections: impl Iterator<Item = Keeping<Owner, Connection>>,
    max: usize,
) -> Vec<Connection> {
    let mut by_owner: HashMap<_, (usize, Vec<_>)> = HashMap::new();
    let mut total = 0;
    for Keeping { owner, is_idle, kept, connection } in connections {
        let (sum, those) = by_owner.entry(owner).or_default();
        total += kept;
        *sum += kept;
        those.push((is_idle, kept, connection));
    }
    let mut owners: Vec<_> = by_owner.into_values().collect();
    owners.iter_mut().for_each(|(_, those)| those.sort_unstable_by_key(|it| (it.0, it.1)));
    let mut excess = Vec::new();
    while total > max
        && let Some((sum, those)) = owners.iter_mut().max_by_key(|(sum, _)| *sum)
        && let Some((_, kept, connection)) = those.pop()
    {
        *sum -= kept;
        total -= kept;
        excess.push(connection);
    }
    excess
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_keeps_the_most_of_the_owner_with_the_most_is_closed() {
        let connections = [
            ("greedy", true, 10, 1),
            ("greedy", false, 30, 2),
            ("greedy", true, 20, 3),
            ("other", false, 35, 4),
        ];
        let connections = connections.map(|(owner, is_idle, kept, connection)| Keeping {
            owner,
            is_idle,
            kept,
            connection,
        });
        let closed = |max| excess(connections.into_iter(), max);
        assert!(closed(95).is_empty());
        assert_eq!(closed(94), [3], "an idle one, although a busy one keeps more");
        assert_eq!(closed(74), [3, 1]);
        assert_eq!(closed(64), [3, 1, 4]);
        assert_eq!(closed(29), [3, 1, 4, 2]);
    }

    #[test]
    fn calls_in_flight_are_not_kept() {
        let calls = CallCounts::default();
        (0..3).for_each(|_| calls.add());
        assert_eq!(calls.kept(), 0);
        calls.remove();
        assert_eq!(calls.kept(), 1);
        calls.note_read(7);
        assert_eq!(calls.kept(), 7, "some were read, and denied at once");
        (0..2).for_each(|_| calls.remove());
        assert_eq!(calls.kept(), 9);
    }
}
