//! The limits of load of one server. Load beyond a limit is shed before any work.

use std::time::Duration;

use clap::Args;
use passbook_command::parse_duration;

/// The limits of load of one server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitsConfig {
    /// The most changes that are accepted and not yet answered. Further ones are shed with
    /// RESOURCE_EXHAUSTED. Too low: bursts are shed. Too high: changes stay in the queue until their
    /// callers have given up.
    #[arg(long, env, default_value_t = 8192)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_capacity: u32,

    /// The most calls in flight of all callers together, streams included. Too low: bursts are
    /// shed. Too high: calls take memory, some 15 KiB each.
    #[arg(long, env, default_value_t = 16_384)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls_max: u32,

    /// The most calls in flight of one identity. Has no effect without authentication. Too high, such
    /// as calls_max: one identity can take all calls, and those of the others are shed.
    #[arg(long, env, default_value_t = 4096)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub identity_calls_max: u32,

    /// The most calls a second of one identity, with a burst of the same number. 0 means no limit.
    /// Each request of a batch or of a stream is a call. Has no effect without authentication.
    #[arg(long, env, default_value_t = 0)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub identity_rate_max: u32,

    /// The most records a minute that move no money: rejections, fences, changed and released holds,
    /// accounts that are opened or changed, and with an audit log repeats. They are stored for good. A
    /// caller that has used it up gets RESOURCE_EXHAUSTED for further changes until time has made up for
    /// it. Too high: callers whose requests are all rejected fill the disk, 350 bytes each.
    #[arg(
        long,
        env,
        default_value_t = 600_000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000_000)
    )]
    pub records_max: u32,

    /// The most such records a minute of one identity. Has no effect without authentication.
    #[arg(
        long,
        env,
        default_value_t = 60_000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000_000)
    )]
    pub identity_records_max: u32,

    /// The most open connections. Further connections wait until one is closed. Too high: the
    /// process runs out of file descriptors (ulimit -n) or of memory.
    #[arg(long, env, default_value_t = 4_000)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// The most calls in flight on one connection. Further calls wait in the client.
    #[arg(long, env, default_value_t = 8192)]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub streams_per_connection_max: u32,

    /// The largest request message, in bytes.
    #[arg(long, env, default_value_t = 1_048_576)]
    #[arg(value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=33_554_432))]
    pub message_size_max: u32,

    /// The largest size of the headers of a call, in bytes as HTTP/2 counts them.
    #[arg(long, env, default_value_t = 16_384)]
    #[arg(value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub header_size_max: u32,

    /// The interval of HTTP/2 pings on an idle connection.
    #[arg(long, env, default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    pub keepalive_interval: Duration,

    /// How long a connection may take to answer an HTTP/2 ping before the server closes it.
    #[arg(long, env, default_value = "20s", value_name = "DURATION", value_parser = parse_duration)]
    pub keepalive_timeout: Duration,

    /// The age at which the server asks a client to leave a connection (GOAWAY). The calls on the
    /// connection are completed, and the client connects again, possibly to a server with less load.
    #[arg(long, env, default_value = "1h", value_name = "DURATION", value_parser = parse_duration)]
    pub connection_age_max: Duration,

    /// The timeout of a TLS handshake.
    #[arg(long, env, default_value = "5s", value_name = "DURATION", value_parser = parse_duration)]
    pub handshake_timeout: Duration,
}
