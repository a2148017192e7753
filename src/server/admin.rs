//! The admin port: HTTP/1 for Prometheus and orchestrators.
//!
//! The port has neither TLS nor authentication, so it belongs into the inner network only. No
//! response says anything of what is in the ledger.
//!
//! | Path | Response |
//! |---|---|
//! | /metrics | the metrics, for Prometheus |
//! | /livez | 200 as long as the process runs: a restart would not repair its database |
//! | /readyz | 200 if changes can be applied, else 503 with the kind of reason |

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{ledger::Ledger, server::readiness::Readiness, telemetry::metrics::Metrics};

/// Connections at the same time, one request each. One more ends the oldest one that has not sent its
/// request, so that silent clients keep no probe waiting. A server has one or two scrapers and a
/// probe.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may take, from accept to the end of the response. A client that takes
/// longer does not send, or does not read.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_millis(800);
/// The pause after an error of accept, most likely too many open files.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The content type of Prometheus' text format, with the format's version.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The admin port before it serves.
pub struct Admin {
    /// Listens on the port.
    pub listener: TcpListener,
    /// The metrics to serve.
    pub metrics: Metrics,
}

/// Responds to the requests of the admin port.
struct AdminHandler {
    metrics: Metrics,
    /// Empty as long as the server waits for its database.
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    readiness: watch::Receiver<Readiness>,
}

impl Admin {
    /// Serves for as long as the future is polled.
    pub async fn serve(
        self,
        ledger: Arc<OnceLock<Arc<Ledger>>>,
        readiness: watch::Receiver<Readiness>,
    ) {
        let handler = Arc::new(AdminHandler { metrics: self.metrics, ledger, readiness });
        let mut connections = VecDeque::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            make_room(&mut connections);
            let (handler, has_request) = (handler.clone(), Arc::new(AtomicBool::new(false)));
            let serving = handler.serve_connection(stream, has_request.clone());
            // Timeouts and disconnects are ignored: no client is left to answer.
            let task = tokio::spawn(timeout(CONNECTION_TIME_MAX, serving)).abort_handle();
            connections.push_back(AdminConnection { task, has_request });
        }
    }
}

/// An open connection of the admin port.
struct AdminConnection {
    task: AbortHandle,
    /// The client has sent its request.
    has_request: Arc<AtomicBool>,
}

/// Makes room for one more connection: ends the oldest one without a request, or else the oldest.
fn make_room(connections: &mut VecDeque<AdminConnection>) {
    connections.retain(|it| !it.task.is_finished());
    if connections.len() < CONNECTIONS_MAX {
        return;
    }
    let silent = connections.iter().position(|it| !it.has_request.load(Ordering::Relaxed));
    if let Some(oldest) = connections.remove(silent.unwrap_or_default()) {
        oldest.task.abort();
    }
}

impl AdminHandler {
    /// Serves one request, and closes the connection.
    async fn serve_connection(self: Arc<Self>, stream: TcpStream, has_request: Arc<AtomicBool>) {
        let service = service_fn(|request: Request<Incoming>| {
            has_request.store(true, Ordering::Relaxed);
            let response = self.respond(request.method(), request.uri().path());
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "admin connection ended with an error");
        }
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let plain = "text/plain; charset=utf-8";
        let (status, content_type, text) = match path {
            _ if method != Method::GET => {
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
        let content_type = http::HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
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
