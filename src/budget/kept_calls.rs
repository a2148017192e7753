//! The room for calls that HTTP/2 keeps on connections that had more of them than they have.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The kept calls of all connections. h2 keeps room for the most calls that a connection ever had at the same
/// time, some 620 bytes for each, until the connection ends. With a higher number they take more memory; with
/// a lower one, connections with bursts of calls are closed.
pub const KEPT_CALLS_MAX: usize = 65_536;

/// The calls of a connection.
#[derive(Debug, Default)]
pub struct CallCounts {
    in_flight: AtomicUsize,
    most: AtomicUsize,
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
        if calls > self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(calls, Ordering::Relaxed);
        }
    }

    /// How many calls there were at most, less those that there are.
    pub fn kept(&self) -> usize {
        let most = self.most.load(Ordering::Relaxed);
        most.saturating_sub(self.in_flight.load(Ordering::Relaxed))
    }
}

/// Of connections with their owners and the calls that each keeps, those without which the others keep at most
/// `max`: of the owner that keeps the most, the one that keeps the most.
pub fn excess<Owner: Eq + Hash, Connection>(
    connections: impl Iterator<Item = (Owner, usize, Connection)>,
    max: usize,
) -> Vec<Connection> {
    let mut by_owner: HashMap<_, (usize, Vec<_>)> = HashMap::new();
    let mut total = 0;
    for (owner, kept, connection) in connections {
        let (sum, those) = by_owner.entry(owner).or_default();
        total += kept;
        *sum += kept;
        those.push((kept, connection));
    }
    let mut owners: Vec<_> = by_owner.into_values().collect();
    owners.iter_mut().for_each(|(_, those)| those.sort_unstable_by_key(|(kept, _)| *kept));
    let mut excess = Vec::new();
    while total > max
        && let Some((sum, those)) = owners.iter_mut().max_by_key(|(sum, _)| *sum)
        && let Some((kept, connection)) = those.pop()
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
        let connections =
            [("greedy", 10, 1), ("greedy", 30, 2), ("other", 40, 3), ("greedy", 20, 4)];
        let closed = |max| excess(connections.into_iter(), max);
        assert!(closed(100).is_empty());
        assert_eq!(closed(99), [2]);
        assert_eq!(closed(69), [2, 3]);
        assert_eq!(closed(29), [2, 3, 4]);
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
