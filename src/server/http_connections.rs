//! The open connections of a small HTTP port, which silent clients cannot keep from others.

use std::{
    cmp::Reverse,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// The connections of a port.
pub struct HttpConnections {
    count_max: usize,
    open: Vec<HttpConnection>,
}

/// An open connection.
pub struct HttpConnection {
    pub task: AbortHandle,
    pub network: IpAddr,
    /// The client has sent a request.
    pub has_request: Arc<AtomicBool>,
}

impl HttpConnections {
    /// At most this many connections at the same time.
    pub const fn new(count_max: usize) -> Self {
        Self { count_max, open: Vec::new() }
    }

    /// Makes room for one more connection: ends one of the network that has most of them, if possible
    /// one without a request, and of these the oldest. So a client that opens many connections ends its
    /// own, and not that of another client in its handshake.
    pub fn make_room(&mut self) {
        self.open.retain(|it| !it.task.is_finished());
        if self.open.len() < self.count_max {
            return;
        }
        let of_network = |network| self.open.iter().filter(|it| it.network == network).count();
        let order = |(index, it): &(usize, &HttpConnection)| {
            (of_network(it.network), !it.has_request.load(Ordering::Relaxed), Reverse(*index))
        };
        if let Some((index, _)) = self.open.iter().enumerate().max_by_key(order) {
            self.open.remove(index).task.abort();
        }
    }

    pub fn push(&mut self, connection: HttpConnection) {
        self.open.push(connection);
    }
}
