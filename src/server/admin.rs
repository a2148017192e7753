//! The admin port: HTTP/1 for those who watch over the process, Prometheus and orchestrators.
//! Without TLS or authentication, and so for the inner network only; it tells nothing of what is
//! in the ledger.
//!
//! | path | |
//! |---|---|
//! | /metrics | for Prometheus |
//! | /livez | 200 as long as the process runs: to start it anew would not mend its database |
//! | /readyz | 200 if changes can be made, else 503 with the reason |

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use metrics::gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{ledger::Ledger, server::Readiness, telemetry::metrics::Metrics};

/// Requests at the same time; more wait to be accepted. There are a scraper or two and a probe.
const REQUESTS_MAX: usize = 32;
/// How long one may take, from its connection to its answer: longer is someone who does not send
/// or does not read.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// After an error of accept, most likely too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The version is that of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is told, and where it is asked.
pub struct Admin {
    /// The port.
    pub listener: TcpListener,
    /// What was counted.
    pub metrics: Metrics,
}

/// What the port's answers are made of.
struct Facts {
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
        let facts = Arc::new(Facts { metrics: self.metrics, ledger, readiness });
        let places = Arc::new(Semaphore::new(REQUESTS_MAX));
        // Fails only if the semaphore were closed, which nobody does.
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let facts = facts.clone();
            tokio::spawn(async move {
                // Whoever is too slow or breaks off has nobody to be told.
                let _ = timeout(REQUEST_TIME_MAX, facts.answer_one(stream)).await;
                drop(place);
            });
        }
    }
}

impl Facts {
    /// One request a connection, so that nobody keeps a place who asks for nothing.
    async fn answer_one(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "admin connection broken");
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let plain = "text/plain; charset=utf-8";
        let (status, content_type, text) = match path {
            _ if method != Method::GET => {
                (StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, METRICS_TYPE, self.metrics()),
            "/livez" => (StatusCode::OK, plain, "alive\n".to_owned()),
            "/readyz" => match &*self.readiness.borrow() {
                Ok(()) => (StatusCode::OK, plain, "ready\n".to_owned()),
                Err(reason) => {
                    (StatusCode::SERVICE_UNAVAILABLE, plain, format!("not ready: {reason}\n"))
                }
            },
            _ => {
                let text = "there are /metrics, /livez and /readyz\n".to_owned();
                (StatusCode::NOT_FOUND, plain, text)
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let content_type = http::HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    /// What is a state rather than a count is looked at when someone asks.
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
