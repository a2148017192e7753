//! The settings of metrics, traces and slow calls.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use passbook_command::parse_duration;

use crate::config::{
    security::SecurityConfig,
    values::{Discreet, has_user_info, parse_address, parse_switch},
};

/// Metrics, traces and slow calls.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryConfig {
    /// The address of the admin port: /metrics (Prometheus), /livez and /readyz by HTTP. For the
    /// internal network only. Default: no admin port.
    #[arg(long, env, value_name = "ADDRESS", value_parser = parse_address)]
    pub admin_listen: Option<SocketAddr>,

    /// Serve the admin port by TLS, with tls_certificate_file and tls_key_file. Its clients need no
    /// certificate, even with tls_client_ca_file.
    #[arg(long, env, value_parser = parse_switch)]
    pub admin_tls: bool,

    /// A file that contains only a bearer token. On the admin port, everything but /livez and /readyz
    /// requires this token. The server reads the file again when it changes. Default: no token is
    /// required.
    #[arg(long, env, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// The duration above which a unary call is logged as a warning.
    #[arg(long, env, default_value = "1s", value_name = "DURATION", value_parser = parse_duration)]
    pub slow_request_threshold: Duration,

    /// The collector of traces, by OTLP over gRPC, such as http://127.0.0.1:4317. Default: the server
    /// records no traces.
    #[arg(long, env, hide_env_values = true, value_name = "URL")]
    #[arg(value_parser = Discreet(parse_endpoint))]
    pub otlp_endpoint: Option<String>,

    /// The fraction of calls that are traced, from 0 to 1. If a caller sends `traceparent`, the
    /// caller decides, unless the server authenticates callers and does not know this one.
    #[arg(long, env, default_value_t = 1.0, value_name = "RATIO", value_parser = parse_ratio)]
    pub trace_sample_ratio: f64,
}

impl TelemetryConfig {
    pub(super) fn validate(&self, security: &SecurityConfig) -> Result<(), String> {
        let admin_tls = self.admin_tls.then(|| "admin_tls is set".to_owned());
        let token_file = self.admin_token_file.as_ref();
        let token = token_file.map(|file| format!("admin_token_file is set ({})", file.display()));
        let has_certificate = security.tls_certificate_file.is_some();
        for (setting, required, is_there) in [
            (&admin_tls, "admin_listen", self.admin_listen.is_some()),
            (&token, "admin_listen", self.admin_listen.is_some()),
            (&admin_tls, "tls_certificate_file", has_certificate),
        ] {
            if let (Some(setting), false) = (setting, is_there) {
                return Err(format!("{setting}, so {required} is required, too"));
            }
        }
        match (self.exposed_admin_listen(security), &token, self.admin_tls) {
            (Some(listen), Some(token), false) => Err(format!(
                "{token}, but admin_listen {listen} can be reached by other machines and has no TLS, \
                 so they could read the token: set admin_tls, or set insecure if something else \
                 protects this address"
            )),
            _ => Ok(()),
        }
    }

    /// A warning of an admin port that every other machine can read.
    pub(super) fn warning(&self, security: &SecurityConfig) -> Option<String> {
        let listen = self.exposed_admin_listen(security)?;
        let missing = match (&self.admin_token_file, self.admin_tls) {
            (Some(_), _) => return None,
            (None, true) => "requires no token: set admin_token_file",
            (None, false) => "has neither TLS nor a token: set admin_tls and admin_token_file",
        };
        Some(format!("admin_listen {listen} can be reached by other machines, and {missing}"))
    }

    /// The address of the admin port, if other machines can reach it and nothing else protects it.
    fn exposed_admin_listen(&self, security: &SecurityConfig) -> Option<SocketAddr> {
        self.admin_listen.filter(|listen| !listen.ip().is_loopback() && !security.insecure)
    }
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|_| "must be a URL".to_owned())?;
    if has_user_info(&uri) {
        return Err("must not have a user name or a password".to_owned());
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(text.to_owned()),
        _ => Err("must be http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "must be a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("must be from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_address_without_a_password() {
        for right in ["http://127.0.0.1:4317", "https://collector.example", "http://[::1]:1/"] {
            assert_eq!(parse_endpoint(right).as_deref(), Ok(right));
        }
        for wrong in [
            "http://user:password@127.0.0.1:4317",
            "https://user@collector.example",
            "ftp://127.0.0.1/",
            "127.0.0.1:4317",
            "http://",
            "",
        ] {
            let error = parse_endpoint(wrong).expect_err(wrong);
            assert!(!error.contains("password@"), "{wrong}: {error}");
        }
    }
}
