//! The gRPC server: services, layers, readiness, shutdown.

mod admin;
mod listener;
mod readiness;
mod tls;

use std::{
    num::NonZeroU32,
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
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;

pub use crate::server::admin::Admin;
pub use crate::server::{readiness::Readiness, tls::Tls};
use crate::{
    auth::Authenticator,
    config::LimitsConfig,
    domain::money::Currencies,
    grpc::{
        self, AccountServiceImpl, AdminServiceImpl, AuthenticationLayer, BodyBudget, CallLimits,
        DeadlinePolicy, Leftovers, LimitLayer, ObserveLayer,
    },
    ledger::Ledger,
    proto::{
        self, account_service_server::AccountServiceServer,
        admin_service_server::AdminServiceServer,
    },
    server::readiness::ReadinessWatch,
};

/// What is serving while changes can be made: the service, and the server as a whole.
const READY_NAMES: [&str; 2] = [AccountServiceServer::<AccountServiceImpl>::NAME, ""];
/// How long the database may take to be closed when the grace period is over already.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// What one call may have sent that is not read yet, in bytes: flow control holds up whoever writes
/// faster. Less would slow large messages over long distances: this much a round trip.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same of all calls of one connection. With half of it h2 bounds what the frames of unread data
/// take (a frame of less than 256 bytes counts as what it lacks of them), and ends the connection of
/// whoever has more, with all its calls. So it must be far above what honest streams can have unread:
/// one of the smallest requests there are (25 bytes, a frame each) takes 0.6 MiB of the 16 MiB, of 75
/// bytes 0.15 MiB. Higher, an attacker's connection takes more memory: up to one and a half times this.
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// By how many bytes headers may be too large and still be answered as gRPC answers. What is larger
/// h2 answers with 431 or with the end of the connection, of which a caller understands nothing.
const HEADER_SIZE_ANSWERED: u32 = 128 * 1024;

/// How a server is run.
#[derive(Clone)]
pub struct ServerConfig {
    /// What connections are encrypted with, if they are.
    pub tls: Option<Arc<Tls>>,
    /// How much it takes on.
    pub limits: LimitsConfig,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// Whether there is gRPC reflection.
    pub reflection: bool,
    /// Whether there is grpc.health.v1.
    pub health: bool,
    /// What applies to calls without a deadline.
    pub deadlines: DeadlinePolicy,
    /// A call that takes longer is warned of.
    pub slow_request_threshold: Duration,
    /// How long to go on as before when told to end, but for health, which says NOT_SERVING.
    pub shutdown_delay: Duration,
    /// How long accepted calls may take to end after that.
    pub shutdown_grace: Duration,
}

/// Why a server did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The services could not be set up, or the listener failed.
    #[error("server failed: {0}")]
    Failed(String),
    /// Some accepted calls were not answered within the grace period.
    #[error("calls were still unanswered after {}", humantime::format_duration(*.0))]
    GraceExceeded(Duration),
    /// It was told to end at once, while some accepted calls had no answer.
    #[error("told again to end: calls were still unanswered")]
    Interrupted,
}

/// A server that listens. Before [`Server::open`] it serves health, which says NOT_SERVING, and
/// reflection, and answers all other calls with UNAVAILABLE. Afterwards it serves everything, on the
/// same connections and through the same layers.
pub struct Server {
    config: ServerConfig,
    /// The services that need no database.
    base_routes: Routes,
    /// All services, once the database has answered.
    all_routes: Arc<OnceLock<Routes>>,
    /// The same for the admin port.
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    readiness: ReadinessWatch,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Ended with the server, and so last: the end is watched, too.
    _administration: JoinSet<()>,
}

impl Server {
    /// Begins to serve on `listener` and on the admin port.
    ///
    /// # Errors
    /// The services could not be set up.
    pub async fn start(
        listener: TcpListener,
        config: ServerConfig,
        admin: Option<Admin>,
    ) -> Result<Self, ServerError> {
        let failed = |error: &dyn std::error::Error| ServerError::Failed(error.to_string());
        let (health, health_service) = tonic_health::server::health_reporter();
        let readiness = ReadinessWatch::new(health, &READY_NAMES).await;

        let mut base_routes = Routes::builder();
        if config.health {
            base_routes.add_service(health_service);
        }
        if config.reflection {
            base_routes
                .add_service(reflection().build_v1().map_err(|error| failed(&error))?)
                .add_service(reflection().build_v1alpha().map_err(|error| failed(&error))?);
        }
        let base_routes = base_routes.routes();
        let waiting_routes = base_routes.clone().into_axum_router();
        let waiting_routes =
            Routes::from(waiting_routes.fallback(|| async { grpc::waiting_for_database() }));
        let all_routes = Arc::new(OnceLock::<Routes>::new());
        let routes = all_routes.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            routes.get().unwrap_or(&waiting_routes).clone().oneshot(request)
        });

        let body_budget = BodyBudget::new(config.limits.message_size_max as usize);
        let leftovers = Leftovers::default();
        let deadlines = config.deadlines;
        let layers = ServiceBuilder::new()
            .map_request(move |request| grpc::discard(request, &leftovers))
            .layer(ObserveLayer::new(config.slow_request_threshold))
            .layer(CatchPanicLayer::custom(grpc::panic_response))
            .map_response(grpc::remap_protocol_errors)
            .layer(AuthenticationLayer(config.authenticator.clone()))
            .layer(LimitLayer::new(call_limits(&config.limits)))
            .map_request(move |request| body_budget.track(grpc::stamp(request, deadlines)));

        let ledger = Arc::new(OnceLock::new());
        let mut administration = JoinSet::new();
        if let Some(admin) = admin {
            administration.spawn(admin.serve(ledger.clone(), readiness.subscribe()));
        }
        let incoming = listener::listen(listener, config.tls.clone(), &config.limits);
        let (stop, mut stopped) = watch::channel(false);
        let server = transport(&config.limits).layer(layers);
        let serving = server.serve_with_incoming_shutdown(service, incoming, async move {
            // Fails only if the sender is gone: then it is time to stop, too.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        Ok(Self {
            config,
            base_routes,
            all_routes,
            ledger,
            readiness,
            stop,
            serving: tokio::spawn(serving),
            _administration: administration,
        })
    }

    /// Serves this ledger from now on, and says that it is ready.
    pub async fn open(&mut self, ledger: Arc<Ledger>, currencies: Arc<Currencies>) {
        let size_max = self.config.limits.message_size_max as usize;
        let accounts = AccountServiceImpl::new(ledger.clone(), currencies, self.stop.subscribe());
        let admin = AdminServiceImpl::new(ledger.clone());
        let routes = self.base_routes.clone();
        let routes = routes
            .add_service(AccountServiceServer::new(accounts).max_decoding_message_size(size_max))
            .add_service(AdminServiceServer::new(admin).max_decoding_message_size(size_max));
        let ledger = self.ledger.get_or_init(|| ledger).clone();
        self.all_routes.get_or_init(|| routes.prepare());
        self.readiness.start(ledger).await;
    }

    /// Serves until there is a signal to end; then takes no new connections, answers what was
    /// accepted, closes the ledger, and returns. One more signal ends what is waited for then.
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
        tracing::info!("shutting down: answering what was accepted");
        self.readiness.end().await;
        if !self.config.shutdown_delay.is_zero() {
            // Over, or cut short: either way it is time to stop.
            let _ = timeout(self.config.shutdown_delay, signals.recv()).await;
        }
        let _ = self.stop.send(true);
        self.readiness.end_streams().await;
        let drain = async {
            let result = ended((&mut self.serving).await);
            ledger.close().await;
            result
        };
        let shutdown_grace = self.config.shutdown_grace;
        let interrupted = tokio::select! {
            result = timeout(shutdown_grace, drain) => match result {
                Ok(result) => return result,
                Err(_) => ServerError::GraceExceeded(shutdown_grace),
            },
            Some(()) = signals.recv() => ServerError::Interrupted,
        };
        if !ledger.is_idle() {
            return Err(interrupted);
        }
        // A half-open connection can keep the graceful shutdown from ending (hyper#4170).
        tracing::warn!("cutting what is still open; all changes are answered");
        // What is not tidied up now is tidied up by the next server.
        let _ = timeout(CLOSE_TIME_MAX, ledger.close()).await;
        Ok(())
    }
}

/// The transport's settings, without services; also what the benchmark's other servers use.
#[must_use]
pub fn transport(limits: &LimitsConfig) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(Some(limits.streams_per_connection_max))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(Some(
            limits.header_size_max.saturating_add(HEADER_SIZE_ANSWERED),
        ))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // Without a grace, which in tonic would cut calls that are under way.
        .max_connection_age(limits.connection_age_max)
}

fn call_limits(limits: &LimitsConfig) -> CallLimits {
    CallLimits {
        calls_max: limits.calls_max,
        identity_calls_max: limits.identity_calls_max,
        identity_rate_max: NonZeroU32::new(limits.identity_rate_max),
        header_size_max: limits.header_size_max,
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

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // grpcurl shows the details of an error only if reflection knows their types.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
