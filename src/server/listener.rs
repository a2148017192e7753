//! Accepts connections, performs TLS handshakes, and takes the identity from the certificate.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::{Handle, RuntimeMetrics},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinSet, coop},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{
    auth::Peer,
    budget::{self, Connections},
    server::{
        frames::{Begun, Frames},
        tls::{self, Tls},
    },
};

/// The length of the connection preface of HTTP/2, in bytes (RFC 9113, 3.4).
const PREFACE_LENGTH: usize = 24;
/// What is read from a connection before its calls run, as [`Frames`] counts it: some hundred calls, or fewer
/// with many headers. h2 keeps room for as many calls, and as many frames of bodies, as were ever there at the
/// same time, for as long as the connection lives: without this bound, a burst of calls that are denied at
/// once costs as much as calls in flight. More of them take more room; with fewer, a busy connection is polled
/// more often.
const COST_AT_A_TIME: usize = 1024;
/// Tasks that wait for a processor: with more, a connection goes behind them before it reads, and reads little at a
/// time. Each call is a task, and one read can have 600 calls of 13 bytes: 500 connections would have 300,000
/// of them before the first one has run. With a lower number, bursts of calls are read in small parts.
const WAITING_TASKS_MAX: usize = 512;
/// What a connection then reads beyond the present frame, in bytes: at most 20 calls.
const SMALL_READ: usize = 256;
/// How long a block of headers may take. It fits into one packet, or a few.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the peer of a connection that the server has ended may take to read the rest and to end
/// the connection, too.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);
/// The pause after an error of accept, most likely too many open files: until a connection ends.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection that is ready for HTTP/2.
pub struct Connection {
    io: Either<TcpStream, TlsStream<TcpStream>>,
    peer: Peer,
    connection: Arc<budget::Connection>,
    /// None after the preface of HTTP/2.
    preface_timer: Option<PrefaceTimer>,
    /// The write has let the tasks that were ready run first. See `poll_write`.
    has_yielded: bool,
    /// The peer does not read what was written. Nothing more is read from it meanwhile: h2 would
    /// buffer the responses to what it reads.
    unread: Option<budget::Unread>,
    /// A read waits for the peer to read.
    read_waits: bool,
    frames: Frames,
    /// A block of headers has no end yet.
    headers: Option<Headers>,
    /// Knows how many tasks wait for a processor.
    runtime: RuntimeMetrics,
    /// This task has gone behind those that wait, and may read a little.
    has_waited: bool,
    /// What was read since this task last went behind its calls, or had nothing to read.
    read: Begun,
    /// The server has ended the connection, and waits for the peer to do the same. See `poll_shutdown`.
    linger: Option<Pin<Box<Sleep>>>,
    /// Returned when the connection ends.
    _permit: OwnedSemaphorePermit,
}

/// Bounds the wait for the end of a block of headers, which is in no budget until it is a call.
struct Headers {
    deadline: Pin<Box<Sleep>>,
    /// Taken if the block has more than one frame.
    place: Option<OwnedSemaphorePermit>,
}

/// Bounds the wait for the preface of HTTP/2: nothing else closes a connection that never sends one.
struct PrefaceTimer {
    received: usize,
    deadline: Pin<Box<Sleep>>,
}

/// Accepts connections until the stream is dropped. Then the port is closed, and handshakes in
/// flight are aborted.
pub fn listen(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    connections: Arc<Connections>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    let permits = Arc::new(Semaphore::new(connections.capacity()));
    let acceptor = Acceptor { tls, handshake_timeout, permits, connections };
    tokio::spawn(accept(listener, Arc::new(acceptor), sender));
    ReceiverStream::new(receiver)
}

struct Acceptor {
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    /// A connection has a permit from accept on: no other limit bounds the handshakes in flight.
    permits: Arc<Semaphore>,
    connections: Arc<Connections>,
}

async fn accept(
    listener: TcpListener,
    acceptor: Arc<Acceptor>,
    opened: mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = JoinSet::new();
    let mut sweep = pin!(acceptor.connections.clone().sweep());
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.next(&listener) => accepted,
            Some(_) = handshakes.join_next() => continue,
            () = &mut sweep => continue,
            () = opened.closed() => return,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (acceptor, opened) = (acceptor.clone(), opened.clone());
                handshakes.spawn(async move {
                    if let Some(connection) = acceptor.open(stream, permit).await {
                        // Sending fails only if the server is ending.
                        let _ = opened.send(Ok(connection)).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

impl Acceptor {
    /// Waits for a permit, then for a connection.
    async fn next(&self, listener: &TcpListener) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        Ok((stream, permit))
    }

    /// Performs the TLS handshake. None if the handshake failed.
    async fn open(&self, stream: TcpStream, permit: OwnedSemaphorePermit) -> Option<Connection> {
        let address = stream.peer_addr().ok();
        let connection = self.connections.open(address.map(|address| address.ip()));
        // With Nagle's algorithm, small responses wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let (io, certificate) = match &self.tls {
            None => (Either::Left(stream), None),
            Some(tls) => {
                let config = tls.config();
                let handshake = TlsAcceptor::from(config.clone()).accept(stream);
                let handshake = timeout(self.handshake_timeout, handshake);
                let handshake = tokio::select! {
                    handshake = handshake => handshake,
                    () = poll_fn(|context| connection.poll_closing(context)) => return None,
                };
                let stream = match handshake {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return handshake_failed(&error),
                    Err(_) => return handshake_failed(&"the handshake timed out"),
                };
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(<[_]>::first).map(tls::peer_certificate);
                if let Some(certificate) = &certificate {
                    let principal = certificate.principal.as_ref();
                    connection.set_certificate(principal.ok().and_then(|it| it.expire_time));
                    // Its authority may have been removed since the handshake began.
                    if !Arc::ptr_eq(&config, &tls.config()) {
                        return None;
                    }
                }
                (Either::Right(stream), certificate)
            }
        };
        let deadline = Box::pin(sleep(self.handshake_timeout));
        let preface_timer = Some(PrefaceTimer { received: 0, deadline });
        let peer = Peer { address, certificate, connection: Some(connection.clone()) };
        Some(Connection {
            io,
            peer,
            connection,
            preface_timer,
            has_yielded: false,
            unread: None,
            read_waits: false,
            frames: Frames::after(PREFACE_LENGTH),
            headers: None,
            runtime: Handle::current().metrics(),
            has_waited: false,
            read: Begun::default(),
            linger: None,
            _permit: permit,
        })
    }
}

/// Makes this task go behind all tasks that it has spawned. hyper polls again before it returns, and would
/// read on, so all that tokio lets a task do at a time is used up.
fn yield_to_calls(context: &mut Context<'_>) {
    // tokio gives a task 128 units.
    for _ in 0..=u8::MAX {
        match coop::poll_proceed(context) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => break,
        }
    }
    context.waker().wake_by_ref();
}

/// Polls what must say whether the socket is ready, and not whether this task has yielded to its calls.
fn beyond_budget<T>(
    context: &mut Context<'_>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    pin!(coop::unconstrained(poll_fn(poll))).poll(context)
}

fn handshake_failed(error: &dyn std::fmt::Display) -> Option<Connection> {
    counter!("passbook_tls_handshake_failures_total").increment(1);
    // At DEBUG, because any program that reaches the port can cause this line without limit.
    tracing::debug!(%error, "TLS handshake failed");
    None
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    /// Notes whether the peer's socket took what was written.
    fn note_progress(&mut self, is_read: bool, context: &mut Context<'_>) {
        if !is_read {
            self.unread.get_or_insert_with(|| budget::Connection::unread(&self.connection));
        } else if self.unread.take().is_some() && std::mem::take(&mut self.read_waits) {
            context.waker().wake_by_ref();
        }
    }

    /// Ends in an error if a block of headers takes too long, or if too many have more than one frame.
    fn check_headers(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.frames.is_within_headers() {
            self.headers = None;
            return Ok(());
        }
        let headers = self.headers.get_or_insert_with(|| Headers {
            deadline: Box::pin(sleep(HEADERS_TIME_MAX)),
            place: None,
        });
        if self.frames.is_continued() && headers.place.is_none() {
            headers.place = self.connection.continued_headers();
            if headers.place.is_none() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        match headers.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Reads the rest of the present frame, and little more.
    fn poll_small_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(self.frames.payload_left() + SMALL_READ);
        let mut small = ReadBuf::new(buffer.initialize_unfilled_to(length));
        let read = Pin::new(&mut self.io).poll_read(context, &mut small);
        let received = small.filled().len();
        buffer.advance(received);
        read
    }

    /// Discards what the peer still sends, until it ends the connection.
    fn poll_end_of_peer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut discarded = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.connection.poll_closing(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.unread.is_some() {
            self.read_waits = true;
            self.read = Begun::default();
            return Poll::Pending;
        }
        if self.read.cost >= COST_AT_A_TIME {
            self.read = Begun::default();
            yield_to_calls(context);
        }
        // Otherwise TLS would hand out what it has decrypted already.
        if coop::poll_proceed(context).is_pending() {
            return Poll::Pending;
        }
        let is_busy = self.runtime.global_queue_depth() > WAITING_TASKS_MAX;
        if is_busy && !std::mem::replace(&mut self.has_waited, true) {
            yield_to_calls(context);
            return Poll::Pending;
        }
        self.has_waited = false;
        let before = buffer.filled().len();
        let read = match is_busy {
            true => self.poll_small_read(context, buffer),
            false => Pin::new(&mut self.io).poll_read(context, buffer),
        };
        let received = buffer.filled().len() - before;
        let Begun { calls, cost } = self.frames.count(&buffer.filled()[before..]);
        self.read.cost += cost;
        if calls > 0 {
            self.read.calls += calls;
            self.connection.note_read(self.read.calls);
        } else if read.is_pending() {
            // Mostly, its calls run before there is more to read.
            self.read = Begun::default();
        }
        self.check_headers(context)?;
        let Some(timer) = &mut self.preface_timer else { return read };
        timer.received += received;
        if timer.received >= PREFACE_LENGTH {
            self.preface_timer = None;
        } else if read.is_pending() && timer.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    /// Yields once before each flush. A commit answers many calls at once: their tasks run first, so
    /// their responses leave in a few system calls instead of one each.
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
        let io = &mut self.io;
        let written =
            beyond_budget(context, |context| Pin::new(&mut *io).poll_write(context, buffer));
        self.note_progress(written.is_ready(), context);
        written
    }

    /// False makes h2 copy frames of up to 1024 bytes, instead of 256, into one buffer, and send the
    /// frames of many responses in one system call, instead of two for each response.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut self.io;
        let flushed = beyond_budget(context, |context| Pin::new(&mut *io).poll_flush(context));
        self.note_progress(flushed.is_ready(), context);
        if flushed.is_ready() {
            self.has_yielded = false;
        }
        flushed
    }

    /// Ends when the peer has ended its side. If the socket were closed earlier, TCP would answer what the
    /// peer still sends with a reset, and a peer that gets one loses the responses that it has not read
    /// yet (RFC 9112, 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(context))?;
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER_TIME_MAX)));
        let is_over = linger.as_mut().poll(context).is_ready()
            || self.connection.poll_closing(context).is_ready();
        if is_over { Poll::Ready(Ok(())) } else { self.poll_end_of_peer(context).map(Ok) }
    }
}
