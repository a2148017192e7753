//! The admin port: HTTP/1 for Prometheus and orchestrators.
//!
//! With `admin_tls` the port has TLS, with the certificate of the gRPC port. With `admin_token_file`
//! all paths but /livez and /readyz require a bearer token. No response says anything of what is in
//! the ledger.
//!
//! | Path | Response |
//! |---|---|
//! | /metrics | the metrics, for Prometheus |
//! | /livez | 200 as long as the process runs: a restart would not repair its database |
//! | /readyz | 200 if changes can be applied, else 503 with the kind of reason |

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use crate::{
    audit::{self, AuditLog, Credential, Origin},
    domain::ids::Identity,
    ledger::Ledger,
    server::{
        admin_token::AdminToken, http_connections::HttpConnections, readiness::Readiness, tls::Tls,
    },
    telemetry::metrics::Metrics,
};

/// Connections at the same time, one request each. One more ends another one, so that silent clients
/// keep no probe waiting. A server has one or two scrapers and a probe.
const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Bytes of the headers of a request: hyper would keep some 400 KiB.
const ADMIN_HEADER_SIZE_MAX: usize = 32 * 1024;
/// How long a connection may take, from accept to the end of the response. A client that takes
/// longer does not send, or does not read.
const ADMIN_CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client may take for the TLS handshake, and then to send its request.
const ADMIN_REQUEST_TIME_MAX: Duration = Duration::from_millis(800);
/// The content type of Prometheus' text format, with the format's version.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Why the server is not ready before it waits for something.
const STARTING: &str = "starting";
/// The method of its requests in the audit log.
const METHOD: &str = "admin_port";
/// How to authenticate (RFC 6750, 3).
const CHALLENGE: &str = "Bearer realm=\"passbook\"";

/// The admin port before it serves.
pub struct Admin {
    /// Listens on the port.
    pub listener: TcpListener,
    /// The metrics to serve.
    pub metrics: Metrics,
    /// None: without TLS.
    pub tls: Option<Arc<Tls>>,
    /// None: no path requires a token.
    pub token: Option<Arc<AdminToken>>,
}

/// The admin port, from the start of the process on. Dropping it closes it.
pub struct AdminPort {
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    audit: Arc<OnceLock<Arc<AuditLog>>>,
    readiness: Arc<watch::Sender<Readiness>>,
    /// Empty without an admin port.
    _serving: JoinSet<()>,
}

/// Responds to the requests of the admin port.
struct AdminHandler {
    metrics: Metrics,
    tls: Option<Arc<Tls>>,
    token: Option<Arc<AdminToken>>,
    /// Empty as long as the server waits for its database.
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    /// Empty without an audit log, and before it has begun.
    audit: Arc<OnceLock<Arc<AuditLog>>>,
    readiness: watch::Receiver<Readiness>,
}

impl AdminPort {
    /// Serves the port, if there is one. The server is not ready.
    #[must_use]
    pub fn open(admin: Option<Admin>) -> Self {
        let (ledger, audit) = (Arc::default(), Arc::default());
        let readiness = watch::Sender::new(Err(STARTING));
        let mut serving = JoinSet::new();
        if let Some(admin) = admin {
            let (ledger, audit) = (Arc::clone(&ledger), Arc::clone(&audit));
            serving.spawn(admin.serve(ledger, audit, readiness.subscribe()));
        }
        Self { ledger, audit, readiness: Arc::new(readiness), _serving: serving }
    }

    /// The server is not ready, for this reason.
    pub fn not_ready(&self, reason: &'static str) {
        let _ = self.readiness.send_replace(Err(reason));
    }

    /// What the port says of the server's readiness.
    pub(super) fn readiness(&self) -> Arc<watch::Sender<Readiness>> {
        self.readiness.clone()
    }

    /// Records denied requests in this log.
    pub(super) fn record_denials(&self, audit: Arc<AuditLog>) {
        self.audit.get_or_init(|| audit);
    }

    /// Publishes the load of this ledger.
    pub(super) fn show_load_of(&self, ledger: Arc<Ledger>) {
        self.ledger.get_or_init(|| ledger);
    }
}

impl Admin {
    /// Serves for as long as the future is polled.
    async fn serve(
        self,
        ledger: Arc<OnceLock<Arc<Ledger>>>,
        audit: Arc<OnceLock<Arc<AuditLog>>>,
        readiness: watch::Receiver<Readiness>,
    ) {
        let Self { listener, metrics, tls, token } = self;
        let handler = Arc::new(AdminHandler { metrics, tls, token, ledger, audit, readiness });
        HttpConnections::new(ADMIN_CONNECTIONS_MAX)
            .accept_all(listener, move |stream, address, has_request| {
                let serving = handler.clone().serve_connection(stream, address, has_request);
                let serving = timeout(ADMIN_CONNECTION_TIME_MAX, serving);
                async {
                    // Timeouts and disconnects are ignored: no client is left to answer.
                    let _ = serving.await;
                }
            })
            .await;
    }
}

impl AdminHandler {
    /// Serves one request, and closes the connection.
    async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        has_request: Arc<AtomicBool>,
    ) {
        let service = service_fn(|request: Request<Incoming>| {
            has_request.store(true, Ordering::Relaxed);
            std::future::ready(Ok::<_, Infallible>(self.respond(&request, address)))
        });
        let stream = match self.handshake(stream).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, "TLS handshake of the admin port failed"),
        };
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(ADMIN_REQUEST_TIME_MAX)
            .max_buf_size(ADMIN_HEADER_SIZE_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "admin connection ended with an error");
        }
    }

    /// Performs the TLS handshake, if the port has TLS.
    async fn handshake(
        &self,
        stream: TcpStream,
    ) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        let handshake = TlsAcceptor::from(tls.http_config()).accept(stream);
        timeout(ADMIN_REQUEST_TIME_MAX, handshake).await?.map(Either::Right)
    }

    /// Whether the request needs no token, or has the right one.
    fn is_allowed<B>(&self, request: &Request<B>) -> bool {
        let is_probe = ["/livez", "/readyz"].contains(&request.uri().path());
        is_probe || self.token.as_ref().is_none_or(|token| token.is_in(request.headers()))
    }

    fn record_denial<B>(&self, request: &Request<B>, address: SocketAddr) {
        let Some(audit) = self.audit.get() else { return };
        let (peer, credential) = (Some(address), Credential::of(request.headers(), None));
        let origin = Origin { method: METHOD, is_unary: true, peer, credential };
        let call = audit::Call::new(audit.clone(), origin);
        call.end_denied(&Identity::anonymous(), false, "unauthenticated");
    }

    fn respond<B>(&self, request: &Request<B>, address: SocketAddr) -> Response<Full<Bytes>> {
        let plain = "text/plain; charset=utf-8";
        let (status, content_type, text) = match request.uri().path() {
            _ if !self.is_allowed(request) => {
                self.record_denial(request, address);
                let text = "the token is missing or wrong: send `authorization: Bearer TOKEN`\n";
                (StatusCode::UNAUTHORIZED, plain, text.to_owned())
            }
            _ if request.method() != Method::GET => {
                (StatusCode::METHOD_NOT_ALLOWED, plain, "the method must be GET\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, METRICS_TYPE, self.metrics()),
            "/livez" => (StatusCode::OK, plain, "alive\n".to_owned()),
            "/readyz" => match &*self.readiness.borrow() {
                Ok(()) => (StatusCode::OK, plain, "ready\n".to_owned()),
                Err(kind) => {
                    (StatusCode::SERVICE_UNAVAILABLE, plain, format!("not ready: {kind}\n"))
                }
            },
            _ => {
                let text = "not found: the paths are /metrics, /livez and /readyz\n".to_owned();
                (StatusCode::NOT_FOUND, plain, text)
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        response
    }

    /// Renders all metrics. Gauges of a state are set here, at each scrape.
    fn metrics(&self) -> String {
        let is_ready = self.readiness.borrow().is_ok();
        gauge!("passbook_ready").set(if is_ready { 1.0 } else { 0.0 });
        if let Some(load) = self.ledger.get().map(|ledger| ledger.load()) {
            gauge!("passbook_queue_length").set(load.queue_length as f64);
            gauge!("passbook_queue_capacity").set(load.queue_capacity as f64);
            gauge!("passbook_watchers").set(load.watchers as f64);
            let connections = load.connections;
            for (state, number) in [("idle", connections.idle), ("in_use", connections.in_use)] {
                gauge!("passbook_database_connections", "state" => state).set(number as f64);
            }
        }
        self.metrics.render()
    }
}
