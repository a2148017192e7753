//! The settings, each one a field. Its flag, its environment variable (`PASSBOOK_` and the name of
//! the field) and its key in the TOML file are derived from it.
//!
//! A flag overrides the variable, the variable overrides the file, and the file overrides the default.

mod audit;
mod console;
mod database;
pub mod environment;
mod error_text;
pub mod file;
mod limits;
mod security;
mod telemetry;
mod values;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use passbook_command::{parse_duration, parse_duration_or_zero};

pub use crate::config::{
    audit::AuditSettings,
    console::ConsoleSettings,
    database::{DatabaseConfig, password_in_arguments},
    limits::LimitsConfig,
    security::{Access, SecurityConfig, TlsFiles},
    telemetry::TelemetryConfig,
    values::{DEFAULT_DEADLINE_MAX, JwksSource},
};
use crate::{
    config::values::{
        ContraAccountList, CurrencyList, parse_address, parse_contra_accounts, parse_currencies,
        parse_deadline, parse_switch,
    },
    domain::{balancing::ContraAccounts, money::Currencies},
    regular_file,
    storage::{CONNECTIONS_MAX_DEFAULT, CONNECTIONS_MIN},
};

/// As in most examples of gRPC.
const PORT_DEFAULT: u16 = 50051;

/// The settings of `passbook serve`.
#[derive(Args, Clone)]
pub struct ServeConfig {
    /// The address of the gRPC server: ADDRESS:PORT, NAME:PORT, or :PORT for all IPv4 addresses of
    /// this machine. Port 0 selects a free port. Without it 127.0.0.1:50051.
    #[arg(long, env, value_name = "ADDRESS", value_parser = parse_address)]
    listen: Option<SocketAddr>,

    /// Serve a ledger for the tests of another program: empty, in a temporary file, which the server
    /// removes when it ends. `listen` is then a free port of 127.0.0.1, unless it is set. When the
    /// server is ready, standard output has one line of JSON with `address` and `database_url`.
    #[arg(long, env, value_parser = parse_switch)]
    pub ephemeral: bool,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Apply pending migrations before serving. On SQLite the server always does this.
    #[arg(long, env, value_parser = parse_switch)]
    pub migrate: bool,

    /// A currency that is not in ISO 4217, with its number of decimals (0-27), such as ETH=18. Can
    /// be repeated, or have several currencies separated by commas. The decimals of a currency
    /// never change.
    #[arg(long, env, value_name = "CODE=SCALE", value_parser = parse_currencies)]
    pub currency: Vec<CurrencyList>,

    /// Double entry: the account that is the other side of all money in this currency that comes into
    /// the ledger or leaves it, such as USD=world:usd. If one is set, all transactions must sum to zero
    /// in each currency. The account must exist, with an unlimited overdraft. Can be repeated, or have
    /// several accounts separated by commas. Give all servers of a ledger the same.
    #[arg(long, env, value_name = "CODE=ACCOUNT_ID", value_parser = parse_contra_accounts)]
    pub contra_account: Vec<ContraAccountList>,

    /// The deadline of calls that have none of their own (`grpc-timeout`), at most 300s.
    #[arg(long, env, default_value = "10s", value_name = "DURATION", value_parser = parse_deadline)]
    pub default_deadline: Duration,

    /// How long the server waits at the start for a database that does not answer, because it is
    /// starting or the name of its host is unknown. During the wait the server listens, and calls
    /// get UNAVAILABLE. A permanent error, such as a wrong password, ends the server at once.
    #[arg(long, env, default_value = "30s")]
    #[arg(value_name = "DURATION", value_parser = parse_duration_or_zero)]
    pub database_wait: Duration,

    /// The most connections to PostgreSQL that this server opens, at least 3. The server stays
    /// within the connection limits of its role, the database and PostgreSQL, but several servers
    /// share these limits, so divide them. With fewer than about 20 connections, reads and waits for
    /// foreign locks are slower.
    #[arg(long, env, default_value_t = CONNECTIONS_MAX_DEFAULT)]
    #[arg(value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(i64::from(CONNECTIONS_MIN)..=1000))]
    pub database_connections_max: u32,

    /// The most legs in one database transaction; a request has one leg for each account that it changes.
    /// The metric passbook_batch_size counts requests. Too low: the server commits more often than it
    /// needs to. Too high: each request waits longer for the rest of its batch.
    #[arg(long, env, default_value_t = 1000)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_size_max: u32,

    /// TLS, authentication and authorization.
    #[command(flatten)]
    pub security: SecurityConfig,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditSettings,

    /// The console.
    #[command(flatten)]
    pub console: ConsoleSettings,

    /// Limits of load.
    #[command(flatten)]
    pub limits: LimitsConfig,

    /// Metrics and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,

    /// How long the server accepts connections and calls after SIGTERM or ctrl-c. Health reports
    /// NOT_SERVING during this time, so that load balancers stop sending calls. Kubernetes needs
    /// some seconds.
    #[arg(long, env, default_value = "0s")]
    #[arg(value_name = "DURATION", value_parser = parse_duration_or_zero)]
    pub shutdown_delay: Duration,

    /// How long the server completes accepted calls at shutdown, after the shutdown delay.
    #[arg(long, env, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
}

impl ServeConfig {
    /// Checks that no two settings contradict each other.
    ///
    /// # Errors
    /// A contradiction, with the names of both settings.
    pub fn validate(&self) -> Result<(), String> {
        self.database.url()?;
        if self.ephemeral && !self.database.is_default() {
            return Err("ephemeral has a database of its own: do not set database_url".to_owned());
        }
        self.audit.validate()?;
        self.validate_audit_file()?;
        self.security.validate()?;
        self.security.validate_exposure("listen", self.listen_address())?;
        self.console.validate(&self.security)?;
        self.telemetry.validate(&self.security)?;
        self.validate_addresses()
    }

    /// Checks that the audit log is not appended to a file that the server reads.
    fn validate_audit_file(&self) -> Result<(), String> {
        let Some(audit_file) = &self.audit.audit_file else { return Ok(()) };
        let security = &self.security;
        let jwks = match security.jwt() {
            Some((_, JwksSource::File(path))) => Some(path),
            _ => None,
        };
        let files = [
            security.policy_file.as_ref(),
            security.tokens_file.as_ref(),
            security.tls_certificate_file.as_ref(),
            security.tls_key_file.as_ref(),
            security.tls_client_ca_file.as_ref(),
            self.telemetry.admin_token_file.as_ref(),
            jwks.as_ref(),
        ];
        let files = files.into_iter().flatten().cloned().chain(self.database.files());
        match files.into_iter().find(|file| regular_file::is_same(file, audit_file)) {
            Some(file) => Err(format!(
                "audit_file {} would be appended to {}, which the server reads",
                audit_file.display(),
                file.display()
            )),
            None => Ok(()),
        }
    }

    /// Checks that each port has an address of its own. Port 0 is a free port.
    fn validate_addresses(&self) -> Result<(), String> {
        let addresses = [
            ("listen", Some(self.listen_address())),
            ("admin_listen", self.telemetry.admin_listen),
            ("console_listen", self.console.console_listen),
        ];
        let addresses =
            addresses.map(|(name, address)| (name, address.filter(|it| it.port() != 0)));
        for (index, (name, address)) in addresses.iter().enumerate() {
            let others = &addresses[..index];
            let same = others.iter().find(|(_, other)| address.is_some() && other == address);
            if let (Some((other, _)), Some(address)) = (same, address) {
                return Err(format!("{other} and {name} are both {address}: each needs its own"));
            }
        }
        Ok(())
    }

    /// The address of the gRPC server. Port 0 selects a free port.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        let port = if self.ephemeral { 0 } else { PORT_DEFAULT };
        self.listen.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    }

    /// What is allowed and seldom right: an admin port and connections to the database that other
    /// machines can read, files with secrets that other users of the machine can read, and files that give
    /// rights and that other users can change.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let key = self.database.key_file();
        let files = [
            ("tls_key_file", self.security.tls_key_file.as_deref()),
            ("tokens_file", self.security.tokens_file.as_deref()),
            ("admin_token_file", self.telemetry.admin_token_file.as_deref()),
            ("database_password_file", self.database.password_file()),
            ("sslkey", key.as_deref()),
        ];
        let exposed =
            files.into_iter().filter_map(|(name, path)| regular_file::exposure(name, path?));
        let of_rights = [
            ("policy_file", self.security.policy_file.as_deref()),
            ("tls_client_ca_file", self.security.tls_client_ca_file.as_deref()),
            ("jwt_jwks", self.security.jwks_file()),
        ];
        let exposed = exposed.chain(
            of_rights.into_iter().filter_map(|(name, path)| regular_file::writability(name, path?)),
        );
        let to_others = [self.telemetry.warning(&self.security), self.database.warning()];
        to_others.into_iter().flatten().chain(exposed).collect()
    }

    /// The currencies of ISO 4217 and the configured ones.
    ///
    /// # Errors
    /// The code or the decimals of a configured currency are invalid.
    pub fn currencies(&self) -> Result<Currencies, String> {
        let configured: Vec<_> = self.currency.iter().flat_map(|list| list.0.clone()).collect();
        Currencies::new(&configured).map_err(|(code, error)| format!("currency {code}: {error}"))
    }

    /// The contra accounts; None without any.
    ///
    /// # Errors
    /// A currency is unknown, or has two contra accounts.
    pub fn contra_accounts(
        &self,
        currencies: &Currencies,
    ) -> Result<Option<ContraAccounts>, String> {
        let mut accounts = BTreeMap::new();
        for (code, account_id) in self.contra_account.iter().flat_map(|list| &list.0) {
            let known = currencies.get(code);
            known.map_err(|error| format!("contra_account {code}={account_id}: {code} {error}"))?;
            if let Some(other) = accounts.insert(code.clone(), account_id.clone()) {
                let ids = format!("{other} and {account_id}");
                return Err(format!("contra_account: {code} has two accounts, {ids}"));
            }
        }
        Ok((!accounts.is_empty()).then_some(ContraAccounts(accounts)))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parse(arguments: &[&str]) -> ServeConfig {
        let command = ServeConfig::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("valid arguments");
        ServeConfig::from_arg_matches(&matches).expect("a setting for each argument")
    }

    #[test]
    fn an_ephemeral_ledger_has_a_free_port_unless_the_address_is_set() {
        for (arguments, address) in [
            (&[][..], "127.0.0.1:50051"),
            (&["--ephemeral"], "127.0.0.1:0"),
            (&["--ephemeral", "--listen", "127.0.0.1:7000"], "127.0.0.1:7000"),
            (&["--ephemeral", "--listen", "127.0.0.1:50051"], "127.0.0.1:50051"),
        ] {
            assert_eq!(parse(arguments).listen_address().to_string(), address, "{arguments:?}");
        }
    }

    #[test]
    fn an_ephemeral_ledger_is_in_no_other_database() {
        let config = parse(&["--ephemeral", "--database-url", "sqlite://ledger.db?mode=rwc"]);
        assert!(config.validate().is_err_and(|error| error.contains("database_url")));
        assert_eq!(parse(&["--ephemeral"]).validate(), Ok(()));
    }

    #[test]
    fn the_default_deadline_is_at_most_300_s() {
        assert_eq!(parse(&["--default-deadline", "5m"]).default_deadline, DEFAULT_DEADLINE_MAX);
        let command = ServeConfig::augment_args(Command::new("serve").no_binary_name(true));
        let error = command.try_get_matches_from(["--default-deadline", "300s 1ms"]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("--default-deadline") && error.contains("at most 300s"), "{error}");
    }

    #[test]
    fn each_port_has_an_address_of_its_own() {
        for (arguments, words) in [
            (["--admin-listen", "127.0.0.1:50051"], Some("listen and admin_listen are both")),
            (["--admin-listen", "127.0.0.1:9090"], None),
            (["--listen", "127.0.0.1:0"], None),
        ] {
            let result = parse(&arguments).validate();
            assert_eq!(result.is_err(), words.is_some(), "{arguments:?}: {result:?}");
            assert!(words.is_none_or(|it| result.unwrap_err().starts_with(it)), "{arguments:?}");
        }
        let both = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        assert_eq!(parse(&both).validate(), Ok(()), "a free port each");
    }
}
