//! `passbook serve`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use passbook_command::{CliError, output};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    auth::{Authenticator, CredentialFiles},
    config::{Access, SecurityConfig, ServeConfig, TelemetryConfig},
    domain::{ids::Identity, money::Currencies},
    grpc::DeadlinePolicy,
    ledger::{Ledger, Limits},
    server::{Admin, Server, ServerConfig, Tls},
    storage::{DatabaseKind, DatabaseUrl, SchemaStatus, Store, schema_version},
    telemetry::{metrics, traces},
};

/// How often the files of tokens and of the policy are looked at: a token that is taken out of the
/// file is not valid for longer than this.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// Between two tries to reach a database that is late.
const CONNECT_BACKOFF: Duration = Duration::from_millis(250);
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
const REFLECTION_SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    config: ServeConfig,
}

impl Serve {
    pub async fn run(self, password_in_arguments: bool) -> Result<(), CliError> {
        let config = self.config;
        config.validate().map_err(CliError::Usage)?;
        let currencies = config.currencies().map_err(CliError::Usage)?;
        let authenticator = Arc::new(authenticator(&config.security, &currencies)?);
        let tls = config.security.tls().map(Tls::load).transpose().map_err(CliError::Usage)?;
        let tls = tls.map(Arc::new);
        let url = config.database.url().map_err(CliError::Usage)?;
        let kind = url.kind();
        // Before anything is announced, so that a signal sent at once is not lost.
        let mut signals = shutdown_signals().map_err(CliError::run)?;

        let (listener, address) = listen(config.listen).await?;
        let admin = admin(&config.telemetry).await?;
        let traces = config.telemetry.otlp_endpoint.as_deref().map(|endpoint| {
            traces::start(endpoint, config.telemetry.trace_sample_ratio)
                .map_err(|error| CliError::Usage(format!("otlp_endpoint {endpoint}: {error}")))
        });
        let traces = traces.transpose()?;
        if let Some(tls) = tls.clone() {
            tokio::spawn(async move { tls.keep_up_to_date().await });
        }
        let served = async {
            let server_config = server_config(&config, tls, authenticator.clone());
            let server = Server::start(listener, server_config, admin).await;
            let mut server = server.map_err(CliError::run)?;
            let opened = open_ledger(url, &config, currencies, authenticator, &mut signals).await?;
            let Some((ledger, currencies)) = opened else { return Ok(()) };
            server.open(ledger.clone(), currencies).await;
            if password_in_arguments {
                tracing::warn!(
                    "the database's password is on the command line, where everyone on this machine \
                     can read it: database_password_file, or PASSBOOK_DATABASE_URL, keeps it"
                );
            }
            output::line(format_args!(
                "ready: listening on {address}, database {kind}, schema {}",
                schema_version()
            ))?;
            server.run(&ledger, signals).await.map_err(CliError::run)
        };
        let served = served.await;
        if let Some(traces) = traces {
            traces.stop().await;
        }
        served
    }
}

fn server_config(
    config: &ServeConfig,
    tls: Option<Arc<Tls>>,
    authenticator: Arc<Authenticator>,
) -> ServerConfig {
    ServerConfig {
        tls,
        limits: config.limits.clone(),
        authenticator,
        reflection: config.security.reflection != Access::Off,
        health: config.security.health != Access::Off,
        deadlines: DeadlinePolicy { default_timeout: config.default_deadline },
        slow_request_threshold: config.telemetry.slow_request_threshold,
        shutdown_delay: config.shutdown_delay,
        shutdown_grace: config.shutdown_grace,
    }
}

/// Waits for the database, makes sure that it is one for this program and these settings, and
/// starts a ledger on it. None if a signal came meanwhile.
async fn open_ledger(
    url: DatabaseUrl,
    config: &ServeConfig,
    currencies: Currencies,
    authenticator: Arc<Authenticator>,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<(Arc<Ledger>, Arc<Currencies>)>, CliError> {
    let Some(store) = connect(url, config, signals).await? else { return Ok(None) };
    prepare_schema(&store, config.migrate).await?;
    let kept = store
        .register_currencies(currencies.configured())
        .await
        .map_err(CliError::run)?
        .map_err(|conflict| CliError::Usage(conflict.to_string()))?;
    let currencies = Arc::new(currencies.with_kept(kept.into_iter()));
    if let Some(files) = config.security.credential_files() {
        // With limits of amounts in the ledger's decimals.
        authenticator.replace(files.load(&currencies).map_err(CliError::Usage)?);
    }
    check_recorded_identities(&store, &authenticator, &config.security).await?;
    if let Some(files) = config.security.credential_files() {
        tokio::spawn(reload(files, currencies.clone(), authenticator));
    }

    let limits = Limits {
        queue_capacity: config.limits.queue_capacity as usize,
        batch_size_max: config.batch_size_max as usize,
    };
    let ledger = Ledger::start(Arc::new(store), limits).await.map_err(CliError::run)?;
    Ok(Some((Arc::new(ledger), currencies)))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| CliError::Run(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr().map_err(CliError::run)?;
    Ok((listener, address))
}

/// Makes sure that requests which were made before authentication was switched on or off are still
/// somebody's: sent again, they would be made again.
async fn check_recorded_identities(
    store: &Store,
    authenticator: &Authenticator,
    config: &SecurityConfig,
) -> Result<(), CliError> {
    let known = authenticator.recorded_names();
    let recorded = store.recorded_names().await.map_err(CliError::run)?;
    let unknown: Vec<String> =
        recorded.into_iter().filter(|name| !known.contains(&Identity::from_stored(name))).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    let danger = "sent again, as callers do after a timeout, such a request would be made twice";
    let message = match (config.is_authenticating(), first.as_str()) {
        (true, "") => format!(
            "requests of this ledger were made when callers were not authenticated, and their \
             request_ids belong to no identity of the policy: {danger}. Give the identity that goes \
             on with them `recorded_as = \"\"` in policy_file, or, if nobody will send one of them \
             again, say callers_changed"
        ),
        (false, name) => format!(
            "requests of this ledger were made by identities such as {name:?}, and callers are not \
             authenticated here: {danger}. Serve with tokens_file or tls_client_ca_file and \
             policy_file, or, if nobody will send one of them again, say callers_changed"
        ),
        (true, _) => {
            tracing::warn!(
                identities = ?unknown,
                "requests were made by identities that the policy does not have: one that was renamed \
                 needs `recorded_as`, or it makes again what it sends again"
            );
            return Ok(());
        }
    };
    if !config.callers_changed {
        return Err(CliError::Usage(message));
    }
    tracing::warn!("{message}: callers_changed was said");
    Ok(())
}

/// The admin port, and counting for it, if there is to be one; before anything that counts.
async fn admin(config: &TelemetryConfig) -> Result<Option<Admin>, CliError> {
    let Some(address) = config.admin_listen else { return Ok(None) };
    let (listener, address) = listen(address).await?;
    let metrics = metrics::install().map_err(CliError::run)?;
    tracing::info!(%address, "serving /metrics, /livez and /readyz");
    Ok(Some(Admin { listener, metrics }))
}

/// Asks callers for what the files say.
pub fn authenticator(
    config: &SecurityConfig,
    currencies: &Currencies,
) -> Result<Authenticator, CliError> {
    let files = config.credential_files();
    let credentials =
        files.map(|files| files.load(currencies)).transpose().map_err(CliError::Usage)?;
    let mut public = Vec::new();
    if config.health == Access::Public {
        public.push(HEALTH_SERVICE);
    }
    if config.reflection == Access::Public {
        public.extend(REFLECTION_SERVICES);
    }
    Ok(Authenticator::new(credentials, public))
}

/// Reads the files of tokens and of the policy again when they have changed, for as long as the
/// server runs. What cannot be read or makes no sense changes nothing.
async fn reload(
    files: CredentialFiles,
    currencies: Arc<Currencies>,
    authenticator: Arc<Authenticator>,
) {
    let mut last = files.texts();
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let texts = files.texts();
        if texts == last {
            continue;
        }
        last = texts;
        match files.load(&currencies) {
            Ok(credentials) => {
                tracing::info!(?credentials, "tokens and policy read again");
                authenticator.replace(credentials);
            }
            Err(error) => tracing::error!(error, "tokens and policy stay as they were"),
        }
    }
}

/// Connects, and waits for a database that is a moment late. None if a signal came meanwhile.
async fn connect(
    url: DatabaseUrl,
    config: &ServeConfig,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<Store>, CliError> {
    let end = Instant::now() + config.database_wait;
    let mut is_announced = false;
    loop {
        let connected = Store::connect_with(url.clone(), config.database_connections_max).await;
        match connected {
            Err(error) if error.may_pass() && Instant::now() < end => {
                if !is_announced {
                    let seconds = config.database_wait.as_secs();
                    tracing::warn!(%error, "waiting for the database, up to {seconds} s");
                    is_announced = true;
                }
                if timeout(CONNECT_BACKOFF, signals.recv()).await.is_ok() {
                    return Ok(None);
                }
            }
            connected => return connected.map(Some).map_err(CliError::run),
        }
    }
}

/// Makes sure that the schema is this program's, or says which command makes it so.
async fn prepare_schema(store: &Store, migrate: bool) -> Result<(), CliError> {
    let status = store.schema_status().await.map_err(CliError::run)?;
    match (&status, migrate || store.kind() == DatabaseKind::Sqlite) {
        (SchemaStatus::Current, _) => Ok(()),
        (SchemaStatus::Missing | SchemaStatus::Behind(_), true) => {
            store.migrate_up().await.map_err(CliError::run)
        }
        (SchemaStatus::Missing, false) => Err(CliError::Run(
            "the database has no schema yet: run `passbook migrate up`, or serve with --migrate"
                .to_owned(),
        )),
        (SchemaStatus::Behind(pending), false) => Err(CliError::Run(format!(
            "the database's schema is older than this program ({} not applied): run \
             `passbook migrate up`, or serve with --migrate",
            pending.join(", ")
        ))),
        (SchemaStatus::Ahead(unknown), _) => Err(CliError::Run(format!(
            "the database's schema is newer than this program ({} not known): run a newer \
             passbook, or take it back with that one's `passbook migrate down`",
            unknown.join(", ")
        ))),
    }
}

/// Each SIGTERM or ctrl-c.
fn shutdown_signals() -> std::io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
