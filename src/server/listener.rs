//! Connections: accepted, encrypted, and known by who is at their other end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{
    auth::Peer,
    config::LimitsConfig,
    server::tls::{self, Tls},
};

/// The bytes with which an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE_LENGTH: usize = 24;
/// How long to wait when the machine has no more file descriptors: until someone goes.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A connection that is ready for HTTP/2.
pub struct Connection {
    io: Either<TcpStream, TlsStream<TcpStream>>,
    peer: Peer,
    /// None once HTTP/2 has begun.
    beginning: Option<Beginning>,
    /// What is to be written has waited for the tasks that were ready.
    has_yielded: bool,
    /// Given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

/// Until HTTP/2 has begun, nothing else would notice that it never does.
struct Beginning {
    received: usize,
    deadline: Pin<Box<Sleep>>,
}

/// Accepts connections for as long as the stream is there. When it is dropped the port is closed,
/// and handshakes that are under way are broken off.
pub fn listen(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: &LimitsConfig,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let entrance = Entrance {
        tls,
        handshake_timeout: limits.handshake_timeout,
        places: Arc::new(Semaphore::new(limits.connections_max as usize)),
    };
    tokio::spawn(accept(listener, Arc::new(entrance), sender));
    ReceiverStream::new(receiver)
}

struct Entrance {
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    /// A handshake has a place, too: there is no other bound on how many there are.
    places: Arc<Semaphore>,
}

async fn accept(
    listener: TcpListener,
    entrance: Arc<Entrance>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = entrance.next(&listener) => accepted,
            Some(_) = handshakes.join_next() => continue,
            () = connections.closed() => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let (entrance, connections) = (entrance.clone(), connections.clone());
                handshakes.spawn(async move {
                    if let Some(connection) = entrance.open(stream, place).await {
                        // Nobody takes it if the server is ending.
                        let _ = connections.send(Ok(connection)).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

impl Entrance {
    async fn next(&self, listener: &TcpListener) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        Ok((stream, place))
    }

    async fn open(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> Option<Connection> {
        let address = stream.peer_addr().ok();
        // Without it small answers wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let (io, certificate_identity) = match &self.tls {
            None => (Either::Left(stream), None),
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.config()).accept(stream);
                let stream = match timeout(self.handshake_timeout, handshake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return refuse(&error),
                    Err(_) => return refuse(&"not done in time"),
                };
                let certificate = stream.get_ref().1.peer_certificates();
                let identity = certificate.and_then(|chain| tls::identity(chain.first()?));
                (Either::Right(stream), identity)
            }
        };
        let deadline = Box::pin(sleep(self.handshake_timeout));
        let beginning = Some(Beginning { received: 0, deadline });
        let peer = Peer { address, certificate_identity };
        Some(Connection { io, peer, beginning, has_yielded: false, _place: place })
    }
}

fn refuse(error: &dyn std::fmt::Display) -> Option<Connection> {
    counter!("passbook_tls_handshake_failures_total").increment(1);
    // The address would let one who knocks often fill the log; the level is for who looks for it.
    tracing::debug!(%error, "TLS handshake failed");
    None
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let Some(beginning) = &mut self.beginning else { return read };
        beginning.received += buffer.filled().len() - before;
        if beginning.received >= PREFACE_LENGTH {
            self.beginning = None;
        } else if read.is_pending() && beginning.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    /// Lets the tasks that are ready run first. A transaction answers many calls at once: so their
    /// answers leave by a few system calls, and not each by one of its own.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.has_yielded {
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(context, buffer)
    }

    /// No: then h2 gathers the frames of many answers in its buffer (as long as they have less than
    /// 1024 bytes, instead of 256) and sends them by one system call, instead of two an answer.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if flushed.is_ready() {
            self.has_yielded = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
