//! Every setting: its flag, its environment variable, its key in the TOML file, its default and
//! its limits. One definition, clap's, serves all three; `file` reads the TOML file.
//!
//! A flag wins over the environment, that over the file, that over the default.

mod database;
pub mod environment;
mod error_text;
pub mod file;
mod limits;
mod security;
mod telemetry;
mod values;

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use passbook_command::parse_duration;

pub(crate) use crate::config::database::password_in_arguments;
pub use crate::config::{
    database::DatabaseConfig,
    limits::LimitsConfig,
    security::{Access, SecurityConfig, TlsFiles},
    telemetry::TelemetryConfig,
};
use crate::{
    config::values::{CurrencyList, parse_address, parse_currencies, parse_switch},
    domain::money::Currencies,
    storage::{CONNECTIONS_MAX_DEFAULT, CONNECTIONS_MIN},
};

/// The settings of `passbook serve`.
#[derive(Args, Clone)]
pub struct ServeConfig {
    /// The address to serve gRPC on: ADDRESS:PORT, NAME:PORT, or :PORT for all IPv4 addresses of
    /// this machine. Port 0 takes a free one.
    #[arg(
        long,
        env = "PASSBOOK_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS",
        value_parser = parse_address
    )]
    pub listen: SocketAddr,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Migrate the database first. On SQLite this is always done.
    #[arg(long, env = "PASSBOOK_MIGRATE", value_parser = parse_switch)]
    pub migrate: bool,

    /// A currency besides ISO 4217's, with its number of decimals (0-27), e.g. ETH=18. May be
    /// given several times, or separated by commas. A currency keeps its decimals for ever.
    #[arg(
        long,
        env = "PASSBOOK_CURRENCY",
        value_name = "CODE=SCALE",
        value_parser = parse_currencies
    )]
    pub currency: Vec<CurrencyList>,

    /// How long a call may take whose caller set no deadline (`grpc-timeout`).
    #[arg(
        long,
        env = "PASSBOOK_DEFAULT_DEADLINE",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub default_deadline: Duration,

    /// How long to wait at the start for a database that does not answer yet: it is starting, or its
    /// host's name is not known. Meanwhile the server listens, and calls get UNAVAILABLE. Errors that
    /// will not pass, such as a wrong password, end the server at once.
    #[arg(
        long,
        env = "PASSBOOK_DATABASE_WAIT",
        default_value = "30s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    pub database_wait: Duration,

    /// The most connections to PostgreSQL that this server opens: at least 3. It uses no more than
    /// its role, the database and PostgreSQL allow to one; several servers share that, so divide
    /// it. With fewer than about 20, reads and waits for locks of other programs are slower.
    #[arg(
        long,
        env = "PASSBOOK_DATABASE_CONNECTIONS_MAX",
        default_value_t = CONNECTIONS_MAX_DEFAULT,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(i64::from(CONNECTIONS_MIN)..=1000)
    )]
    pub database_connections_max: u32,

    /// The most changes of accounts (legs) in one database transaction. Too low commits too often; too high makes
    /// everyone in the batch wait for it.
    #[arg(
        long,
        env = "PASSBOOK_BATCH_SIZE_MAX",
        default_value_t = 1000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub batch_size_max: u32,

    /// TLS, and who may call.
    #[command(flatten)]
    pub security: SecurityConfig,

    /// How much the server takes on.
    #[command(flatten)]
    pub limits: LimitsConfig,

    /// Metrics and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,

    /// After SIGTERM or ctrl-c: how long to go on taking connections and calls while health says
    /// NOT_SERVING, so that load balancers turn away first. Kubernetes needs some seconds.
    #[arg(
        long,
        env = "PASSBOOK_SHUTDOWN_DELAY",
        default_value = "0s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_delay: Duration,

    /// After that: how long to go on answering what was accepted.
    #[arg(
        long,
        env = "PASSBOOK_SHUTDOWN_GRACE",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub shutdown_grace: Duration,
}

impl ServeConfig {
    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// What contradicts what, by the settings' names.
    pub fn validate(&self) -> Result<(), String> {
        self.database.url()?;
        self.security.validate(self.listen)
    }

    /// ISO 4217's currencies and those that are configured.
    ///
    /// # Errors
    /// One of the latter makes no sense.
    pub fn currencies(&self) -> Result<Currencies, String> {
        let configured: Vec<_> = self.currency.iter().flat_map(|list| list.0.clone()).collect();
        Currencies::new(&configured).map_err(|(code, error)| format!("currency {code}: {error}"))
    }
}
