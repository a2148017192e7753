//! The settings of metrics, traces and slow calls.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use passbook_command::parse_duration;

use crate::config::values::parse_address;

/// Metrics, traces and slow calls.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryConfig {
    /// The address of the admin port: /metrics (Prometheus), /livez and /readyz by HTTP, without TLS
    /// or authentication. For the internal network only. Default: no admin port.
    #[arg(long, env, value_name = "ADDRESS", value_parser = parse_address)]
    pub admin_listen: Option<SocketAddr>,

    /// The duration above which a unary call is logged as a warning.
    #[arg(long, env, default_value = "1s", value_name = "DURATION", value_parser = parse_duration)]
    pub slow_request_threshold: Duration,

    /// The collector of traces, by OTLP over gRPC, such as http://127.0.0.1:4317. Default: the server
    /// records no traces.
    #[arg(long, env, value_name = "URL", value_parser = parse_endpoint)]
    pub otlp_endpoint: Option<String>,

    /// The fraction of calls that are traced, from 0 to 1. If a caller sends `traceparent`, the
    /// caller decides, unless the server authenticates callers and does not know this one.
    #[arg(long, env, default_value_t = 1.0, value_name = "RATIO", value_parser = parse_ratio)]
    pub trace_sample_ratio: f64,
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|_| "must be a URL".to_owned())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(text.to_owned()),
        _ => Err("must be http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "must be a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("must be from 0 to 1".to_owned()) }
}
