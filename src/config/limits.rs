//! What one server takes on, at most. More is refused before anything is done.

use std::time::Duration;

use clap::Args;
use passbook_command::parse_duration;

/// How much one server takes on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitsConfig {
    /// Changes accepted and not yet answered; one more is refused with RESOURCE_EXHAUSTED. Too
    /// low refuses bursts; too high lets callers wait for what they have given up on.
    #[arg(
        long,
        env = "PASSBOOK_QUEUE_CAPACITY",
        default_value_t = 8192,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub queue_capacity: u32,

    /// Calls under way, of all callers together, streams included. Too low refuses bursts; too
    /// high takes memory, some 15 KiB a call.
    #[arg(
        long,
        env = "PASSBOOK_CALLS_MAX",
        default_value_t = 16_384,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub calls_max: u32,

    /// Calls under way of one identity; without authentication there are none. At calls_max, one
    /// caller can keep all others out.
    #[arg(
        long,
        env = "PASSBOOK_IDENTITY_CALLS_MAX",
        default_value_t = 4096,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub identity_calls_max: u32,

    /// Calls a second of one identity, with a burst of as many; 0 for no limit. A batch or a
    /// stream is one call. Without authentication there are no identities.
    #[arg(
        long,
        env = "PASSBOOK_IDENTITY_RATE_MAX",
        default_value_t = 0,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=10_000_000)
    )]
    pub identity_rate_max: u32,

    /// Open connections; beyond that, new ones wait to be accepted. Too high runs out of file
    /// descriptors (ulimit -n).
    #[arg(
        long,
        env = "PASSBOOK_CONNECTIONS_MAX",
        default_value_t = 10_000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub connections_max: u32,

    /// Calls at the same time on one connection; clients queue the others on their side.
    #[arg(
        long,
        env = "PASSBOOK_STREAMS_PER_CONNECTION_MAX",
        default_value_t = 8192,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub streams_per_connection_max: u32,

    /// The largest message of a request, in bytes.
    #[arg(
        long,
        env = "PASSBOOK_MESSAGE_SIZE_MAX",
        default_value_t = 1_048_576,
        value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1024..=33_554_432)
    )]
    pub message_size_max: u32,

    /// The headers of a request, in bytes, as HTTP/2 counts them.
    #[arg(
        long,
        env = "PASSBOOK_HEADER_SIZE_MAX",
        default_value_t = 16_384,
        value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576)
    )]
    pub header_size_max: u32,

    /// How often a connection on which nothing happens is asked for a sign of life.
    #[arg(
        long,
        env = "PASSBOOK_KEEPALIVE_INTERVAL",
        default_value = "30s",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub keepalive_interval: Duration,

    /// How long it may take to give one, before it is closed.
    #[arg(
        long,
        env = "PASSBOOK_KEEPALIVE_TIMEOUT",
        default_value = "20s",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub keepalive_timeout: Duration,

    /// After how long a connection is asked to go (GOAWAY): calls on it end in peace, and the
    /// client connects anew, perhaps to a server with less to do.
    #[arg(
        long,
        env = "PASSBOOK_CONNECTION_AGE_MAX",
        default_value = "1h",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub connection_age_max: Duration,

    /// How long a TLS handshake may take.
    #[arg(
        long,
        env = "PASSBOOK_HANDSHAKE_TIMEOUT",
        default_value = "5s",
        value_name = "DURATION",
        value_parser = parse_duration
    )]
    pub handshake_timeout: Duration,
}
