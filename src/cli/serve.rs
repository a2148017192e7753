//! `passbook serve`: runs a server until a signal ends it.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use clap::Args;
use passbook_command::{CliError, output};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::Authenticator,
    budget::{BudgetConfig, Budgets},
    cli::{
        checked_settings::{CheckedSettings, read_credentials},
        contra_accounts,
        ephemeral::EphemeralLedger,
        recorded_identities,
        reloads::{ReloadedFiles, reload_credentials, sources_of_credentials},
        schema,
    },
    config::{AuditSettings, LimitsConfig, ServeConfig, TelemetryConfig},
    domain::{balancing::ContraAccounts, money::Currencies},
    ledger::Ledger,
    server::{
        Admin, AdminPort, AdminToken, CONSOLE_CONNECTIONS_MAX, ConsolePort, Jwks, Ports, Server,
        Tls,
    },
    storage::{DatabaseKind, DatabaseUrl, Store, schema_version},
    telemetry::{
        metrics,
        traces::{self, Traces},
    },
};

/// The pause after an error of the first connection to the database.
const CONNECT_BACKOFF: Duration = Duration::from_millis(250);
/// How long the start waits for the keys for JWTs. Without them no JWT can be verified.
const JWKS_WAIT: Duration = Duration::from_secs(30);
/// Why the server is not ready meanwhile.
const WAITING_FOR_KEYS: &str = "starting, waiting for the keys for JWTs";
/// The pause after an error of the first fetch of these keys.
const JWKS_BACKOFF: Duration = Duration::from_secs(1);
/// Open files beside the connections of callers, of the console and to the database: ports, logs, files
/// that are read again, the admin port's connections.
const OTHER_FILES: usize = 100;

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    config: ServeConfig,
}

impl Serve {
    pub async fn run(self, password_in_arguments: bool) -> Result<(), CliError> {
        let settings = CheckedSettings::read(self.config).map_err(CliError::Usage)?;
        let ephemeral = settings.config.ephemeral.then(EphemeralLedger::create).transpose()?;
        let url = match &ephemeral {
            Some(ephemeral) => ephemeral.url()?,
            None => settings.config.database.url().map_err(CliError::Usage)?,
        };
        let kind = url.kind();
        // Before the server announces itself, so that an early signal is not lost.
        let mut signals = shutdown_signals().map_err(CliError::run)?;

        let (ports, admin, address) = bind(&settings).await?;
        let CheckedSettings {
            config,
            currencies,
            contra_accounts,
            credentials,
            authenticator,
            jwt,
            tls,
            admin_token,
        } = settings;
        let jwks = match jwt {
            None => None,
            Some((issuer, source)) => {
                let jwks = Jwks::new(source, issuer).map_err(CliError::Run)?;
                admin.not_ready(WAITING_FOR_KEYS);
                let Some(loaded) = load_keys(jwks, &mut signals).await? else { return Ok(()) };
                Some(loaded)
            }
        };
        let traces = start_traces(&config.telemetry)?;
        let credential_sources = credentials
            .map(|(files, texts)| sources_of_credentials(&files, Ok(&texts)))
            .unwrap_or_default();
        let reloaded = ReloadedFiles { tls: tls.clone(), admin_token, jwks };
        let audit = start_audit(&config.audit, || reloaded.sources(&credential_sources))?;
        let budgets = Budgets::new(&budget_config(&config));
        reloaded.reload_on_change(&budgets.connections, audit.as_ref());
        let served = async {
            let server = Server::start(
                ports,
                config.clone(),
                tls,
                authenticator.clone(),
                budgets.clone(),
                audit.clone(),
                admin,
            );
            let mut server = server.await.map_err(CliError::run)?;
            let reloads = Reloads::new(audit.clone(), credential_sources);
            let callers = Callers { authenticator, reloads };
            let opened = open_ledger(
                url,
                &config,
                currencies,
                contra_accounts,
                callers,
                budgets,
                &mut signals,
            );
            let Some((ledger, currencies)) = opened.await? else { return Ok(()) };
            server.open(ledger.clone(), currencies).await;
            warn(&config, password_in_arguments);
            allow_open_files(&config);
            announce(address, kind, ephemeral.as_ref())?;
            server.run(&ledger, signals).await.map_err(CliError::run)
        };
        let served = served.await;
        if let Some(audit) = audit {
            audit.stop().await;
        }
        if let Some(traces) = traces {
            traces.stop().await;
        }
        served
    }
}

/// Listens on all ports. The admin port, if there is one, serves from now on.
async fn bind(settings: &CheckedSettings) -> Result<(Ports, AdminPort, SocketAddr), CliError> {
    let (config, tls) = (&settings.config, settings.tls.as_ref());
    let (listener, address) = listen(config.listen_address()).await?;
    let admin = admin(&config.telemetry, tls, settings.admin_token.clone()).await?;
    let console = console(config, tls).await?;
    let ports = Ports { grpc: listener, console };
    Ok((ports, AdminPort::open(admin), address))
}

/// Starts the export of traces, if there is a collector.
fn start_traces(config: &TelemetryConfig) -> Result<Option<Traces>, CliError> {
    let Some(endpoint) = config.otlp_endpoint.as_deref() else { return Ok(None) };
    let traces = traces::start(endpoint, config.trace_sample_ratio);
    let traces = traces.map_err(|error| format!("otlp_endpoint {endpoint}: {error}"));
    traces.map(Some).map_err(CliError::Usage)
}

/// Starts the audit log, if there is one, with the files that are in force.
fn start_audit(
    config: &AuditSettings,
    files: impl FnOnce() -> Vec<Source>,
) -> Result<Option<Arc<AuditLog>>, CliError> {
    let Some(config) = config.config() else { return Ok(None) };
    // Exit code 1: the disk may be full for now, and systemd tries again.
    AuditLog::start(config, &files()).map(Some).map_err(CliError::Run)
}

/// Warns of settings that are seldom right.
fn warn(config: &ServeConfig, password_in_arguments: bool) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if password_in_arguments {
        tracing::warn!(
            "the database's password is on the command line, where every user of this machine can \
             read it: use database_password_file or PASSBOOK_DATABASE_URL"
        );
    }
}

/// Raises the limit of open files as far as this process may, and warns if that is too few.
fn allow_open_files(config: &ServeConfig) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let connections = config.limits.connections_max + config.database_connections_max;
    let of_console = config.console.console_listen.map_or(0, |_| CONSOLE_CONNECTIONS_MAX);
    let needed = connections as usize + of_console + OTHER_FILES;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed as u64) {
        tracing::warn!(
            allowed,
            needed,
            "fewer files may be open than the connections need: raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
}

/// Says that the server is ready, in the log and on standard output.
fn announce(
    address: SocketAddr,
    kind: DatabaseKind,
    ephemeral: Option<&EphemeralLedger>,
) -> Result<(), CliError> {
    tracing::info!(
        %address,
        database = %kind,
        schema = schema_version(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    match ephemeral {
        Some(ephemeral) => output::line(ephemeral.ready_line(address)),
        None => output::line(format_args!(
            "ready: listening on {address}, database {kind}, schema {}",
            schema_version()
        )),
    }
}

fn budget_config(config: &ServeConfig) -> BudgetConfig {
    let LimitsConfig {
        queue_capacity,
        calls_max,
        identity_calls_max,
        identity_rate_max,
        records_max,
        identity_records_max,
        connections_max,
        ..
    } = config.limits;
    BudgetConfig {
        is_authenticated: config.security.is_authenticating(),
        calls_max,
        identity_calls_max,
        identity_rate_max: NonZeroU32::new(identity_rate_max),
        queue_capacity,
        records_max,
        identity_records_max,
        connections_max,
    }
}

/// The authenticator, and the record of its reloads.
struct Callers {
    authenticator: Arc<Authenticator>,
    reloads: Reloads,
}

/// Waits for the database, and starts a ledger on it. None if a signal ends the wait.
async fn open_ledger(
    url: DatabaseUrl,
    config: &ServeConfig,
    currencies: Currencies,
    contra_accounts: Option<ContraAccounts>,
    callers: Callers,
    budgets: Arc<Budgets>,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<(Arc<Ledger>, Arc<Currencies>)>, CliError> {
    let Some(store) = connect(url, config, signals).await? else { return Ok(None) };
    let store = Arc::new(store);
    let started = start_ledger(&store, config, currencies, contra_accounts, callers, budgets).await;
    if started.is_err() {
        // It may have been migrated.
        schema::close(&store).await;
    }
    started.map(Some)
}

/// Checks that the database fits this program and these settings, and starts a ledger on it.
async fn start_ledger(
    store: &Arc<Store>,
    config: &ServeConfig,
    currencies: Currencies,
    contra_accounts: Option<ContraAccounts>,
    callers: Callers,
    budgets: Arc<Budgets>,
) -> Result<(Arc<Ledger>, Arc<Currencies>), CliError> {
    schema::prepare(store, config.migrate).await?;
    let missing = match store.missing_guard().await.map_err(CliError::run)? {
        None => store.sequence_behind().await.map_err(CliError::run)?,
        found => found,
    };
    if let Some(missing) = missing {
        return Err(CliError::Run(format!("the database cannot be used: {missing}")));
    }
    let kept = store
        .register_currencies(currencies.configured())
        .await
        .map_err(CliError::run)?
        .map_err(|conflict| CliError::Usage(conflict.to_string()))?;
    let currencies = Arc::new(currencies.with_kept(kept.into_iter()));
    let Callers { authenticator, mut reloads } = callers;
    let credentials = read_credentials(&config.security).map_err(CliError::Usage)?;
    if let Some((files, texts)) = &credentials {
        // Parses the limits of amounts again, with the decimals that the ledger has stored.
        let parsed = files.parse(texts, &currencies);
        reloads.record(sources_of_credentials(files, Ok(texts)), &parsed);
        authenticator.replace(parsed.map_err(CliError::Usage)?);
    }
    recorded_identities::check(store, &authenticator, &config.security).await?;
    if let Some((files, texts)) = credentials {
        let connections = budgets.connections.clone();
        let currencies = currencies.clone();
        let reload =
            reload_credentials(files, texts, currencies, authenticator, connections, reloads);
        tokio::spawn(reload);
    }

    if let Some(accounts) = &contra_accounts {
        contra_accounts::check(store, accounts).await?;
    }
    let batch_size_max = config.batch_size_max as usize;
    let ledger = Ledger::start(store.clone(), budgets, batch_size_max, contra_accounts);
    let ledger = ledger.await.map_err(CliError::run)?;
    Ok((Arc::new(ledger), currencies))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| CliError::Run(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr().map_err(CliError::run)?;
    Ok((listener, address))
}

/// Listens on the admin address, if it is set, and installs the metrics recorder. Called before
/// the tasks that record metrics start.
async fn admin(
    config: &TelemetryConfig,
    tls: Option<&Arc<Tls>>,
    token: Option<Arc<AdminToken>>,
) -> Result<Option<Admin>, CliError> {
    let Some(address) = config.admin_listen else { return Ok(None) };
    let (listener, address) = listen(address).await?;
    let metrics = metrics::install().map_err(CliError::run)?;
    tracing::info!(%address, "serving /metrics, /livez and /readyz");
    let tls = tls.filter(|_| config.admin_tls).cloned();
    Ok(Some(Admin { listener, metrics, tls, token }))
}

/// Listens on the address of the console, if it is set.
async fn console(
    config: &ServeConfig,
    tls: Option<&Arc<Tls>>,
) -> Result<Option<ConsolePort>, CliError> {
    let Some(address) = config.console.console_listen else { return Ok(None) };
    let (listener, address) = listen(address).await?;
    tracing::info!(%address, "serving the console");
    let is_authenticating = config.security.is_authenticating();
    Ok(Some(ConsolePort { listener, tls: tls.cloned(), is_authenticating }))
}

/// Loads the keys for JWTs, with retries for up to [`JWKS_WAIT`]. None if a signal ends the wait.
async fn load_keys(
    mut jwks: Jwks,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<Jwks>, CliError> {
    let end = Instant::now() + JWKS_WAIT;
    let mut is_announced = false;
    while let Err(error) = jwks.load().await {
        if Instant::now() >= end {
            return Err(CliError::Run(format!("no keys for JWTs: {error}")));
        }
        if !is_announced {
            let seconds = JWKS_WAIT.as_secs();
            tracing::warn!(error, "waiting for the keys for JWTs, up to {seconds} s");
            is_announced = true;
        }
        if timeout(JWKS_BACKOFF, signals.recv()).await.is_ok() {
            return Ok(None);
        }
    }
    Ok(Some(jwks))
}

/// Connects to the database, with retries for up to `database_wait`. None if a signal ends the wait.
async fn connect(
    url: DatabaseUrl,
    config: &ServeConfig,
    signals: &mut mpsc::Receiver<()>,
) -> Result<Option<Store>, CliError> {
    let end = Instant::now() + config.database_wait;
    let mut is_announced = false;
    loop {
        let connected = Store::connect(url.clone(), Some(config.database_connections_max)).await;
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

/// One message for each SIGTERM or ctrl-c.
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
