//! `passbook serve`: runs a server until a signal ends it.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use clap::Args;
use passbook_command::{CliError, output};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::{Authenticator, CredentialFiles, CredentialTexts, JwtIssuer, JwtSettings},
    budget::{BudgetConfig, Budgets, Connections},
    cli::{contra_accounts, ephemeral::EphemeralLedger, recorded_identities, schema},
    config::{Access, JwksSource, LimitsConfig, SecurityConfig, ServeConfig, TelemetryConfig},
    domain::{balancing::ContraAccounts, money::Currencies},
    ledger::Ledger,
    server::{Admin, AdminPort, AdminToken, ConsolePort, Jwks, Ports, Server, Tls, file_watch},
    storage::{DatabaseUrl, Store, schema_version},
    telemetry::{metrics, traces},
};

/// The pause after an error of the first connection to the database.
const CONNECT_BACKOFF: Duration = Duration::from_millis(250);
/// How long the start waits for the keys for JWTs. Without them no JWT can be verified.
const JWKS_WAIT: Duration = Duration::from_secs(30);
/// Why the server is not ready meanwhile.
const WAITING_FOR_KEYS: &str = "starting, waiting for the keys for JWTs";
/// The pause after an error of the first fetch of these keys.
const JWKS_BACKOFF: Duration = Duration::from_secs(1);
/// How long after an identity is removed its connections are closed. Until then its calls get their
/// responses, and its streams their error.
const REMOVED_CONNECTIONS_GRACE: Duration = Duration::from_secs(5);
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
        let contra_accounts = config.contra_accounts(&currencies).map_err(CliError::Usage)?;
        let credentials = read_credentials(&config.security)?;
        let (issuer, jwks) = config.security.jwt().map(jwt).transpose()?.unzip();
        let authenticator =
            Arc::new(authenticator(&config.security, credentials.as_ref(), issuer, &currencies)?);
        let tls = config.security.tls().map(Tls::load).transpose().map_err(CliError::Usage)?;
        let tls = tls.map(Arc::new);
        let ephemeral = config.ephemeral.then(EphemeralLedger::create).transpose()?;
        let url = match &ephemeral {
            Some(ephemeral) => ephemeral.url()?,
            None => config.database.url().map_err(CliError::Usage)?,
        };
        let kind = url.kind();
        // Before the server announces itself, so that an early signal is not lost.
        let mut signals = shutdown_signals().map_err(CliError::run)?;

        let (listener, address) = listen(config.listen_address()).await?;
        let admin = admin(&config.telemetry, tls.as_ref()).await?;
        let console = console(&config, tls.as_ref()).await?;
        let ports = Ports { grpc: listener, console };
        let admin_token = admin.as_ref().and_then(|admin| admin.token.clone());
        let admin = AdminPort::open(admin);
        let jwks = match jwks {
            None => None,
            Some(jwks) => {
                admin.not_ready(WAITING_FOR_KEYS);
                let Some(loaded) = load_keys(jwks, &mut signals).await? else { return Ok(()) };
                Some(loaded)
            }
        };
        let traces = config.telemetry.otlp_endpoint.as_deref().map(|endpoint| {
            traces::start(endpoint, config.telemetry.trace_sample_ratio)
                .map_err(|error| CliError::Usage(format!("otlp_endpoint {endpoint}: {error}")))
        });
        let traces = traces.transpose()?;
        let credential_sources = credentials.map(|(files, texts)| sources(&files, Some(&texts)));
        let credential_sources = credential_sources.unwrap_or_default();
        let audit = config.audit.config().map(|config| {
            let tls_sources = tls.iter().flat_map(|tls| tls.sources());
            let admin_source = admin_token.iter().map(|token| token.source());
            let keys = jwks.iter().map(Jwks::in_force);
            let files = tls_sources.chain(admin_source).chain(credential_sources.clone());
            let files: Vec<_> = files.chain(keys).collect();
            // Exit code 1: the disk may be full for now, and systemd tries again.
            AuditLog::start(config, &files).map_err(CliError::Run)
        });
        let audit = audit.transpose()?;
        let budgets = Budgets::new(&budget_config(&config));
        if let Some(tls) = tls.clone() {
            let audit = audit.clone();
            let connections = budgets.connections.clone();
            tokio::spawn(async move { tls.reload_on_change(connections, audit).await });
        }
        if let Some(token) = admin_token {
            let audit = audit.clone();
            tokio::spawn(async move { token.reload_on_change(audit).await });
        }
        if let Some(jwks) = jwks {
            tokio::spawn(jwks.reload_on_change(audit.clone()));
        }
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
            for warning in config.warnings() {
                tracing::warn!("{warning}");
            }
            if password_in_arguments {
                tracing::warn!(
                    "the database's password is on the command line, where every user of this \
                     machine can read it: use database_password_file or PASSBOOK_DATABASE_URL"
                );
            }
            tracing::info!(
                %address,
                database = %kind,
                schema = schema_version(),
                version = env!("CARGO_PKG_VERSION"),
                "serving"
            );
            match &ephemeral {
                Some(ephemeral) => output::line(ephemeral.ready_line(address))?,
                None => output::line(format_args!(
                    "ready: listening on {address}, database {kind}, schema {}",
                    schema_version()
                ))?,
            }
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

/// Reads the files of tokens and policy, if they are set.
fn read_credentials(
    config: &SecurityConfig,
) -> Result<Option<(CredentialFiles, CredentialTexts)>, CliError> {
    let Some(files) = config.credential_files() else { return Ok(None) };
    let texts = files.read().map_err(CliError::Usage)?;
    Ok(Some((files, texts)))
}

/// The files of tokens and policy as the audit log names them, with their texts if they could be read.
fn sources(files: &CredentialFiles, texts: Option<&CredentialTexts>) -> Vec<Source> {
    match texts {
        Some(texts) => {
            let read = files.with_texts(texts);
            read.map(|(file, text)| Source::new(file, text.as_bytes())).collect()
        }
        None => {
            let files = [&files.policy].into_iter().chain(&files.tokens);
            files.map(|file| Source::read(file)).collect()
        }
    }
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
    let kept = store
        .register_currencies(currencies.configured())
        .await
        .map_err(CliError::run)?
        .map_err(|conflict| CliError::Usage(conflict.to_string()))?;
    let currencies = Arc::new(currencies.with_kept(kept.into_iter()));
    let Callers { authenticator, mut reloads } = callers;
    let credentials = read_credentials(&config.security)?;
    if let Some((files, texts)) = &credentials {
        // Parses the limits of amounts again, with the decimals that the ledger has stored.
        let parsed = files.parse(texts, &currencies);
        reloads.record(sources(files, Some(texts)), &parsed);
        authenticator.replace(parsed.map_err(CliError::Usage)?);
    }
    recorded_identities::check(store, &authenticator, &config.security).await?;
    if let Some((files, texts)) = credentials {
        let connections = budgets.connections.clone();
        let reload = reload(files, texts, currencies.clone(), authenticator, connections, reloads);
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
) -> Result<Option<Admin>, CliError> {
    let Some(address) = config.admin_listen else { return Ok(None) };
    let token = config.admin_token_file.clone().map(AdminToken::load).transpose();
    let token = token.map_err(CliError::Usage)?.map(Arc::new);
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

/// The authenticator of callers, with the credentials of the files that are set.
fn authenticator(
    config: &SecurityConfig,
    credentials: Option<&(CredentialFiles, CredentialTexts)>,
    issuer: Option<Arc<JwtIssuer>>,
    currencies: &Currencies,
) -> Result<Authenticator, CliError> {
    let credentials = credentials.map(|(files, texts)| files.parse(texts, currencies));
    let credentials = credentials.transpose().map_err(CliError::Usage)?;
    let mut public = Vec::new();
    if config.health == Access::Public {
        public.push(HEALTH_SERVICE);
    }
    if config.reflection == Access::Public {
        public.extend(REFLECTION_SERVICES);
    }
    Ok(Authenticator::new(credentials, issuer, public))
}

/// The issuer of JWTs, and its keys, which are not loaded yet.
fn jwt((settings, source): (JwtSettings, JwksSource)) -> Result<(Arc<JwtIssuer>, Jwks), CliError> {
    Jwks::check(&source).map_err(CliError::Usage)?;
    let issuer = Arc::new(JwtIssuer::new(settings));
    let jwks = Jwks::new(source, issuer.clone()).map_err(CliError::Run)?;
    Ok((issuer, jwks))
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
            tracing::warn!(error, "waiting for the keys for JWTs, up to 30 s");
            is_announced = true;
        }
        if timeout(JWKS_BACKOFF, signals.recv()).await.is_ok() {
            return Ok(None);
        }
    }
    Ok(Some(jwks))
}

/// Reads the files of tokens and policy again after each change, for as long as the server runs. If
/// a file is invalid, or the policy would record an identity's requests under another name, the last
/// valid content of both stays in force.
async fn reload(
    files: CredentialFiles,
    in_force: CredentialTexts,
    currencies: Arc<Currencies>,
    authenticator: Arc<Authenticator>,
    connections: Arc<Connections>,
    mut reloads: Reloads,
) {
    let reload = |texts: Result<&CredentialTexts, &String>| {
        let texts = texts.map_err(String::clone);
        let read = sources(&files, texts.as_ref().ok().copied());
        let parsed = texts.and_then(|texts| {
            let credentials = files.parse(texts, &currencies)?;
            let kept = authenticator.check_names_kept(&credentials);
            kept.map_err(|error| format!("{}: {error}", files.policy.display()))?;
            Ok(credentials)
        });
        reloads.record(read, &parsed);
        let removed = authenticator.replace(parsed?);
        if !removed.is_empty() {
            let connections = connections.clone();
            tokio::spawn(async move {
                sleep(REMOVED_CONNECTIONS_GRACE).await;
                connections.close_those_of(|identity| removed.contains(identity));
            });
        }
        Ok(())
    };
    let read = || files.read();
    file_watch::reload_on_change("tokens and policy", in_force, read, reload).await;
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
