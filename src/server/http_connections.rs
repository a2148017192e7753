//! The open connections of a small HTTP port, which silent clients cannot keep from others.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::{network::network_of, server::listener::ACCEPT_BACKOFF};

/// The connections of a port. Dropping them ends them.
pub struct HttpConnections {
    count_max: usize,
    open: Vec<HttpConnection>,
    tasks: JoinSet<()>,
}

/// An open connection.
struct HttpConnection {
    task: AbortHandle,
    network: IpAddr,
    /// The client has sent a request.
    has_request: Arc<AtomicBool>,
}

impl HttpConnections {
    /// At most this many connections at the same time.
    pub fn new(count_max: usize) -> Self {
        Self { count_max, open: Vec::new(), tasks: JoinSet::new() }
    }

    /// Accepts connections for as long as the future is polled. `serve` gets each of them, the address of
    /// the client, and what to set when the client has sent a request.
    pub async fn accept_all<Serving>(
        mut self,
        listener: TcpListener,
        serve: impl Fn(TcpStream, SocketAddr, Arc<AtomicBool>) -> Serving,
    ) where
        Serving: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = self.tasks.join_next() => continue,
            };
            let Ok((stream, address)) = accepted else {
                sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            self.make_room();
            let (network, has_request) = (network_of(address.ip()), Arc::default());
            let task = self.tasks.spawn(serve(stream, address, Arc::clone(&has_request)));
            self.open.push(HttpConnection { task, network, has_request });
        }
    }

    /// Makes room for one more connection: ends one of the network that has most of them, if possible
    /// one without a request, and of these the oldest. So a client that opens many connections ends its
    /// own, and not that of another client in its handshake.
    fn make_room(&mut self) {
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
}
