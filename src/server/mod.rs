//! The server process around the services: binds, serves, drains.
//!
//! Connections (`listener`, `frames`, `tls`), readiness, the admin port (`admin`, `admin_token`), the
//! console's port, the keys for JWTs (`jwks`), and the watch over files that are reloaded. This folder
//! knows no message of the contract and no rule of money. The layers that a call passes are in
//! `grpc::middleware`.

mod admin;
mod admin_token;
mod console;
pub(crate) mod file_watch;
mod frames;
mod http_connections;
mod jwks;
mod listener;
mod readiness;
mod tls;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Request;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

pub use crate::server::{
    admin::{Admin, AdminPort},
    admin_token::AdminToken,
    console::{CONSOLE_CONNECTIONS_MAX, ConsolePort},
    jwks::Jwks,
    readiness::Readiness,
    tls::Tls,
};
use crate::{
    audit::AuditLog,
    auth::Authenticator,
    budget::Budgets,
    config::{Access, DEFAULT_DEADLINE_MAX, LimitsConfig, ServeConfig},
    domain::money::Currencies,
    grpc::{self, DeadlinePolicy, SizeLimits, StackConfig, services},
    ledger::Ledger,
    server::readiness::ReadinessWatch,
};

/// How long closing the database may take after the grace period is over.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// Unread bytes of all calls of one connection. h2 also bounds the frames of unread data by half of
/// this: a frame of less than 256 bytes counts with the difference, and a connection with more is
/// closed, with all its calls. So the window must be far above what honest streams can have unread:
/// one of the smallest requests (25 bytes, a frame each) takes 0.6 MiB of the 16 MiB, one of 75
/// bytes 0.15 MiB. Higher, and an attacker's connection takes more memory: up to one and a half
/// times this.
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// Bytes beyond `header_size_max` that headers may have and still get a gRPC status. Larger headers
/// get 431 or the end of the connection from h2, which callers cannot interpret. Higher, and headers of many
/// short fields, which take eight times their size, cost more memory before they are rejected.
const HEADER_SIZE_ANSWERED: u32 = 128 * 1024;

// A longer one would count as TIMEOUT_MAX, without a word.
const _: () = assert!(DEFAULT_DEADLINE_MAX.as_nanos() <= grpc::TIMEOUT_MAX.as_nanos());

/// Why a server did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The services could not be set up, or the listener failed.
    #[error("server failed: {0}")]
    Failed(String),
    /// Some accepted calls had no response at the end of the grace period.
    #[error("calls were still unanswered after {}", humantime::format_duration(*.0))]
    GraceExceeded(Duration),
    /// A second signal ended the server while some accepted calls had no response.
    #[error("calls were still unanswered at the second signal to end")]
    Interrupted,
}

/// A server that listens.
///
/// Before [`Server::open`] it serves health, which says NOT_SERVING, and reflection, and responds to
/// all other calls with UNAVAILABLE. Afterwards it serves everything, on the same connections and
/// through the same layers.
pub struct Server {
    config: ServeConfig,
    /// The services that need no database.
    base_routes: Routes,
    /// All services; empty as long as the server waits for its database.
    all_routes: Arc<OnceLock<Routes>>,
    readiness: ReadinessWatch,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Empty without a console. Dropping it closes the console's port.
    console: JoinSet<()>,
    /// Last, because it is closed when it is dropped: operators watch the shutdown through it.
    admin: AdminPort,
}

/// The ports of a server that are not open yet.
pub struct Ports {
    /// Listens for gRPC.
    pub grpc: TcpListener,
    /// None: without a console.
    pub console: Option<ConsolePort>,
}

impl Server {
    /// Serves on these ports, with TLS if there are files for it.
    ///
    /// # Errors
    /// The services could not be set up.
    pub async fn start(
        ports: Ports,
        config: ServeConfig,
        tls: Option<Arc<Tls>>,
        authenticator: Arc<Authenticator>,
        budgets: Arc<Budgets>,
        audit: Option<Arc<AuditLog>>,
        admin: AdminPort,
    ) -> Result<Self, ServerError> {
        if let Some(audit) = audit.clone() {
            admin.record_denials(audit);
        }
        let (health, health_service) = tonic_health::server::health_reporter();
        let readiness = ReadinessWatch::new(health, admin.readiness()).await;
        let health_service = (config.security.health != Access::Off).then_some(health_service);
        let reflection = config.security.reflection != Access::Off;
        let base_routes = services::base_routes(health_service, reflection)
            .map_err(|error| ServerError::Failed(error.to_string()))?;
        let waiting_routes = services::waiting_routes(&base_routes);
        let all_routes = Arc::new(OnceLock::<Routes>::new());
        let routes = all_routes.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            routes.get().unwrap_or(&waiting_routes).clone().oneshot(request)
        });

        let (timeout, connections) = (config.limits.handshake_timeout, budgets.connections.clone());
        let incoming = listener::listen(ports.grpc, tls, timeout, connections);
        let (stop, mut stopped) = watch::channel(false);
        let stack = || {
            let (authenticator, budgets) = (authenticator.clone(), budgets.clone());
            grpc::stack(stack_config(&config, authenticator, budgets, audit.clone()))
        };
        let mut console = JoinSet::new();
        if let Some(port) = ports.console {
            let services = console::services(stack().service(service.clone()));
            console.spawn(port.serve(services));
        }
        let server = transport(&config.limits).layer(stack());
        let serving = server.serve_with_incoming_shutdown(service, incoming, async move {
            // An error means that the sender is gone, which is a reason to stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        Ok(Self {
            config,
            base_routes,
            all_routes,
            readiness,
            stop,
            serving: tokio::spawn(serving),
            console,
            admin,
        })
    }

    /// Serves this ledger, and becomes ready.
    pub async fn open(&mut self, ledger: Arc<Ledger>, currencies: Arc<Currencies>) {
        let size_max = self.config.limits.message_size_max as usize;
        let stopping = self.stop.subscribe();
        let routes =
            services::all_routes(&self.base_routes, &ledger, currencies, stopping, size_max);
        self.admin.show_load_of(ledger.clone());
        self.all_routes.get_or_init(|| routes);
        self.readiness.start(ledger).await;
    }

    /// Serves until the first signal, then shuts down: accepts no more connections, waits for the
    /// accepted calls, and closes the ledger. A second signal ends the wait.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn run(
        mut self,
        ledger: &Ledger,
        mut signals: mpsc::Receiver<()>,
    ) -> Result<(), ServerError> {
        tokio::select! {
            _ = signals.recv() => {}
            result = &mut self.serving => return ended(result),
        }
        self.drain(ledger, signals).await
    }

    async fn drain(
        mut self,
        ledger: &Ledger,
        mut signals: mpsc::Receiver<()>,
    ) -> Result<(), ServerError> {
        tracing::info!("shutting down: waiting for accepted calls");
        self.readiness.end().await;
        if !self.config.shutdown_delay.is_zero() {
            // The delay is over, or a second signal cuts it short: the server stops in both cases.
            let _ = timeout(self.config.shutdown_delay, signals.recv()).await;
        }
        let _ = self.stop.send(true);
        // The console only reads.
        self.console.abort_all();
        self.readiness.end_streams().await;
        ledger.stop_background();
        let drained = async {
            let result = ended((&mut self.serving).await);
            ledger.close().await;
            result
        };
        let shutdown_grace = self.config.shutdown_grace;
        let interrupted = tokio::select! {
            result = timeout(shutdown_grace, drained) => match result {
                Ok(result) => return result,
                Err(_) => ServerError::GraceExceeded(shutdown_grace),
            },
            Some(()) = signals.recv() => ServerError::Interrupted,
        };
        if !ledger.is_idle() {
            return Err(interrupted);
        }
        // A half-open connection can keep hyper's graceful shutdown from ending (hyper#4170).
        tracing::warn!("all changes are answered: closing the connections that are still open");
        // The next server cleans up what is not closed within this time.
        let _ = timeout(CLOSE_TIME_MAX, ledger.close()).await;
        Ok(())
    }
}

/// The settings of the transport, without services. The servers that the benchmark compares use
/// them as well.
#[must_use]
pub fn transport(limits: &LimitsConfig) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(Some(limits.streams_per_connection_max))
        .initial_stream_window_size(grpc::STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(Some(
            limits.header_size_max.saturating_add(HEADER_SIZE_ANSWERED),
        ))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // Without `max_connection_age_grace`, with which tonic would cut calls in flight.
        .max_connection_age(limits.connection_age_max)
}

fn stack_config(
    config: &ServeConfig,
    authenticator: Arc<Authenticator>,
    budgets: Arc<Budgets>,
    audit: Option<Arc<AuditLog>>,
) -> StackConfig {
    let limits = &config.limits;
    StackConfig {
        audit,
        authenticator,
        budgets,
        sizes: SizeLimits {
            header_size_max: limits.header_size_max,
            message_size_max: limits.message_size_max,
        },
        deadlines: DeadlinePolicy { default_timeout: config.default_deadline },
        slow_request_threshold: config.telemetry.slow_request_threshold,
    }
}

fn ended(
    result: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), ServerError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ServerError::Failed(error.to_string())),
        Err(error) => Err(ServerError::Failed(error.to_string())),
    }
}
