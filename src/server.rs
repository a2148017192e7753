//! The gRPC server: services, layers, readiness, shutdown.

mod admin;
mod readiness;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::{server::NamedService, transport::server::TcpIncoming};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

pub use crate::server::admin::Admin;
pub use crate::server::readiness::Readiness;
use crate::{
    domain::money::Currencies,
    grpc::{
        self, AccountServiceImpl, AdminServiceImpl, AuthenticationLayer, Authenticator,
        DeadlinePolicy, ObserveLayer,
    },
    ledger::Ledger,
    proto::{
        self, account_service_server::AccountServiceServer,
        admin_service_server::AdminServiceServer,
    },
    server::readiness::ReadinessWatch,
};

/// The largest request: above the largest useful one, far below what hurts.
const MESSAGE_SIZE_MAX: usize = 1024 * 1024;
/// Calls at the same time on one connection. gRPC clients queue the others on their side.
const STREAMS_PER_CONNECTION_MAX: u32 = 8192;
/// How often a connection on which nothing happens is asked for a sign of life.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// What is serving while changes can be made: the service, and the server as a whole.
const READY_NAMES: [&str; 2] = [AccountServiceServer::<AccountServiceImpl>::NAME, ""];
/// How long the database may take to be closed when the grace period is over already.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// How a server is run.
#[derive(Clone, Debug)]
pub struct ServerConfig {
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
    /// How long accepted calls may take to end after shutdown began.
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
}

/// Serves until `shutdown` is done; then takes no new connections, answers what was accepted,
/// and returns.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(
    listener: TcpListener,
    ledger: Arc<Ledger>,
    currencies: Arc<Currencies>,
    config: ServerConfig,
    admin: Option<Admin>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let failed = |error: &dyn std::error::Error| ServerError::Failed(error.to_string());
    let (health, health_service) = tonic_health::server::health_reporter();
    let readiness = ReadinessWatch::start(ledger.clone(), health, &READY_NAMES).await;
    let (stop, stopping) = watch::channel(false);

    let (mut v1, mut v1alpha) = (None, None);
    if config.reflection {
        v1 = Some(reflection().build_v1().map_err(|error| failed(&error))?);
        v1alpha = Some(reflection().build_v1alpha().map_err(|error| failed(&error))?);
    }

    let layers = ServiceBuilder::new()
        .layer(ObserveLayer::new(config.slow_request_threshold))
        .layer(CatchPanicLayer::custom(grpc::panicked))
        .layer(AuthenticationLayer(config.authenticator))
        .map_request(move |request| grpc::stamp(request, config.deadlines));
    let service = AccountServiceImpl::new(ledger.clone(), currencies, stopping.clone());
    let service = AccountServiceServer::new(service).max_decoding_message_size(MESSAGE_SIZE_MAX);
    let server = transport()
        .layer(layers)
        .add_service(service)
        .add_service(AdminServiceServer::new(AdminServiceImpl::new(ledger.clone())))
        .add_optional_service(config.health.then_some(health_service))
        .add_optional_service(v1)
        .add_optional_service(v1alpha);

    // Ended with this function, and so last: the end is watched, too.
    let mut administration = JoinSet::new();
    if let Some(admin) = admin {
        administration.spawn(admin.serve(ledger.clone(), readiness.subscribe()));
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut stopped = stopping.clone();
    let mut serving = tokio::spawn(server.serve_with_incoming_shutdown(incoming, async move {
        // Fails only if the sender is gone: then it is time to stop, too.
        let _ = stopped.wait_for(|stop| *stop).await;
    }));

    tokio::select! {
        () = shutdown => {}
        result = &mut serving => return ended(result),
    }
    tracing::info!("shutting down: answering what was accepted");
    readiness.end().await;
    let _ = stop.send(true);
    readiness.end_streams().await;
    let drain = async {
        let result = ended((&mut serving).await);
        ledger.close().await;
        result
    };
    // A half-open connection can keep the graceful shutdown from ending (hyper#4170).
    match tokio::time::timeout(config.shutdown_grace, drain).await {
        Ok(result) => result,
        Err(_) if ledger.is_idle() => {
            tracing::warn!("cutting what is still open; all changes are answered");
            // What is not tidied up now is tidied up by the next server.
            let _ = tokio::time::timeout(CLOSE_TIME_MAX, ledger.close()).await;
            Ok(())
        }
        Err(_) => Err(ServerError::GraceExceeded(config.shutdown_grace)),
    }
}

/// The transport's settings, without services; also what the benchmark's other servers use.
#[must_use]
pub fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(Some(STREAMS_PER_CONNECTION_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
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
