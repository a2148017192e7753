//! The gRPC server: services, layers, readiness, shutdown.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tonic::{server::NamedService, transport::server::TcpIncoming};
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    domain::money::Currencies,
    grpc::{
        self, AccountServiceImpl, AdminServiceImpl, AuthenticationLayer, Authenticator,
        DeadlinePolicy,
    },
    ledger::Ledger,
    proto::{
        self, account_service_server::AccountServiceServer,
        admin_service_server::AdminServiceServer,
    },
};

/// The largest request: above the largest useful one, far below what hurts.
const MESSAGE_SIZE_MAX: usize = 1024 * 1024;
/// Calls at the same time on one connection. gRPC clients queue the others on their side.
const STREAMS_PER_CONNECTION_MAX: u32 = 8192;
/// How often a connection on which nothing happens is asked for a sign of life.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the database may take to answer that.
const READINESS_TIMEOUT: Duration = Duration::from_secs(2);
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
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let failed = |error: &dyn std::error::Error| ServerError::Failed(error.to_string());
    let (health, health_service) = tonic_health::server::health_reporter();
    // Whoever starts a server has just looked at the database.
    set_serving(&health, true).await;
    let (stop, stopping) = watch::channel(false);
    let readiness = tokio::spawn(watch_readiness(health.clone(), ledger.clone(), stopping.clone()));

    let (mut v1, mut v1alpha) = (None, None);
    if config.reflection {
        v1 = Some(reflection().build_v1().map_err(|error| failed(&error))?);
        v1alpha = Some(reflection().build_v1alpha().map_err(|error| failed(&error))?);
    }

    let layers = ServiceBuilder::new()
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
    readiness.abort();
    set_serving(&health, false).await;
    let _ = stop.send(true);
    // Ends the streams of those who watch: they would keep their connections open.
    end_watches(health).await;
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

async fn watch_readiness(
    health: HealthReporter,
    ledger: Arc<Ledger>,
    stopping: watch::Receiver<bool>,
) {
    let mut was_ready = true;
    while !*stopping.borrow() {
        let ready = ledger.check_ready(READINESS_TIMEOUT).await;
        if was_ready != ready.is_ok() {
            match &ready {
                Ok(()) => tracing::info!("ready"),
                Err(reason) => tracing::warn!(reason, "not ready"),
            }
            was_ready = ready.is_ok();
            set_serving(&health, was_ready).await;
        }
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
}

async fn end_watches(mut health: HealthReporter) {
    for name in [AccountServiceServer::<AccountServiceImpl>::NAME, ""] {
        health.clear_service_status(name).await;
    }
}

/// The status of the service, and of the server as a whole (the empty name).
async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    health.set_service_status(AccountServiceServer::<AccountServiceImpl>::NAME, status).await;
    health.set_service_status("", status).await;
}
