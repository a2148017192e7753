//! Calls without a credential that end at once, unless their clients do not send or do not read.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use crate::{budget::connections::Connection, domain::ids::Identity, lock::lock};

/// Health checks and the like, in flight. An orchestrator has no credential either, and ends a server
/// that does not answer: clients that leave such calls open must not keep its call out.
#[derive(Debug, Default)]
pub struct BriefCalls(Mutex<InFlight>);

#[derive(Debug, Default)]
struct InFlight {
    /// By number, so the oldest come first.
    connections: BTreeMap<u64, Arc<Connection>>,
    next: u64,
}

/// One of the calls. Dropping it ends it.
#[derive(Debug)]
pub struct BriefCall {
    calls: Arc<BriefCalls>,
    number: u64,
}

/// Who is responsible for a call: the identity that a call before it gave the connection, or the network.
type Owner<'a> = (Option<&'a Identity>, Option<IpAddr>);

impl BriefCalls {
    /// A call begins on this connection.
    #[must_use]
    pub fn begin(self: &Arc<Self>, connection: Arc<Connection>) -> BriefCall {
        let mut calls = lock(&self.0);
        let number = calls.next;
        calls.next += 1;
        calls.connections.insert(number, connection);
        BriefCall { calls: self.clone(), number }
    }

    /// Makes room for one more call if at most `max` are to be in flight. Calls on connections that are
    /// being closed do not count, as they are about to end. If there are too many others, closes the
    /// connection of the oldest call of the owner that has the most. Returns whether there is room.
    pub fn make_room(&self, max: usize) -> bool {
        let calls = lock(&self.0);
        let lasting = || calls.connections.values().filter(|it| !it.is_closing());
        if lasting().count() < max {
            return true;
        }
        let mut by_owner: HashMap<Owner<'_>, Vec<&Arc<Connection>>> = HashMap::new();
        for connection in lasting() {
            by_owner.entry(connection.owner()).or_default().push(connection);
        }
        let most = by_owner.values().max_by_key(|those| those.len());
        most.inspect(|those| those[0].close()).is_some()
    }
}

impl Drop for BriefCall {
    fn drop(&mut self) {
        let connection = lock(&self.calls.0).connections.remove(&self.number);
        // Outside of the lock: the last reference to a connection takes another one.
        drop(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Connections;

    #[test]
    fn one_more_call_ends_the_oldest_of_the_owner_with_the_most() {
        let connections = Connections::new(40, true);
        let open = |last| connections.open(Some(IpAddr::from([127, 0, 0, last])));
        let calls = Arc::new(BriefCalls::default());
        assert!(!calls.make_room(0));
        let probe = open(1);
        let _probe = calls.begin(probe.clone());
        let attackers = [open(2), open(2)];
        let mut theirs: Vec<_> =
            attackers.iter().flat_map(|it| [it, it]).map(|it| calls.begin(it.clone())).collect();
        let are_closing = || attackers.each_ref().map(|it| it.is_closing());
        assert!(calls.make_room(6));
        assert_eq!(are_closing(), [false, false]);
        assert!(calls.make_room(5));
        assert_eq!(are_closing(), [true, false]);
        // Those of the first are as good as gone, which makes room for two.
        assert!(calls.make_room(5));
        assert!(calls.make_room(4));
        assert_eq!(are_closing(), [true, false]);
        assert!(calls.make_room(3));
        assert!(attackers[1].is_closing() && !probe.is_closing());
        // A connection that had a credential counts by its identity, from wherever.
        let caller = Identity::from_stored("caller");
        let of_caller = [3, 4].map(open);
        for connection in &of_caller {
            connection.establish(&caller, None).unwrap();
            theirs.push(calls.begin(connection.clone()));
        }
        assert!(calls.make_room(3));
        assert!(of_caller[0].is_closing() && !probe.is_closing());
        drop(theirs);
        assert_eq!(lock(&calls.0).connections.len(), 1);
    }
}
