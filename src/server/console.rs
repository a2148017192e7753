//! The console's port: HTTP/1 for browsers.
//!
//! The pages are those of `passbook-console`. Their calls pass the same layers and services as calls
//! of the gRPC port. TLS has the certificate of the gRPC port.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use passbook_console::{ClientAddress, ConsoleConfig, Services};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use crate::{
    auth::Peer,
    server::{http_connections::HttpConnections, tls::Tls},
};

/// Connections at the same time. A browser opens up to six.
pub const CONSOLE_CONNECTIONS_MAX: usize = 256;
/// How long a client may take for the TLS handshake, and then for the headers of each request.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a request may take, from its headers to the response. Above the time that the console gives
/// its calls.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a connection is kept. A client that does not read the response ends with it.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of the headers of a request.
const HEADER_SIZE_MAX: usize = 32 * 1024;

/// The console's port before it serves.
pub struct ConsolePort {
    /// Listens on the port.
    pub listener: TcpListener,
    /// None: without TLS.
    pub tls: Option<Arc<Tls>>,
    /// Whether callers need a credential.
    pub is_authenticating: bool,
}

impl ConsolePort {
    /// Serves for as long as the future is polled. The calls of the pages go to `services`.
    pub async fn serve(self, services: Services) {
        let Self { listener, tls, is_authenticating } = self;
        let config = ConsoleConfig { is_authenticating, has_tls: tls.is_some() };
        let router = passbook_console::router(services, config);
        HttpConnections::new(CONSOLE_CONNECTIONS_MAX)
            .accept_all(listener, move |stream, address, has_request| {
                serve_connection(stream, address, tls.clone(), router.clone(), has_request)
            })
            .await;
    }
}

/// The services as the console calls them: in the name of the browser's address.
pub fn services<S, B>(stack: S) -> Services
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Body>| {
            let address = request.extensions_mut().remove::<ClientAddress>();
            let address = address.map(|address| address.0);
            request.extensions_mut().insert(Peer { address, ..Peer::default() });
            request
        })
        .map_response(|response: Response<B>| response.map(Body::new))
        .service(stack);
    BoxCloneSyncService::new(service)
}

async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    has_request: Arc<AtomicBool>,
) {
    let router = router.layer(axum::Extension(ClientAddress(address)));
    let served = match tls {
        None => serve_requests(stream, router, has_request).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls.http_config()).accept(stream);
            match timeout(HEADER_TIME_MAX, handshake).await {
                Ok(Ok(stream)) => serve_requests(stream, router, has_request).await,
                Ok(Err(error)) => {
                    return tracing::debug!(%error, "TLS handshake of the console failed");
                }
                Err(_) => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "console connection ended with an error");
    }
}

async fn serve_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    has_request: Arc<AtomicBool>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        has_request.store(true, Ordering::Relaxed);
        let responding = timeout(REQUEST_TIME_MAX, router.clone().oneshot(request));
        async { responding.await.unwrap_or_else(|_| Ok(too_late())) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_SIZE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served,
        () = sleep(CONNECTION_TIME_MAX) => connection.as_mut().graceful_shutdown(),
    }
    timeout(REQUEST_TIME_MAX, connection).await.unwrap_or(Ok(()))
}

fn too_late() -> axum::response::Response {
    let mut response = axum::response::Response::default();
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    response
}
