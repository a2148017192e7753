//! The log: lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Begins to log. What a call's handler logs carries the fields of the call's span: `method`,
/// `request_id`, and `trace_id` if there is one.
pub fn start(filter: EnvFilter, format: LogFormat) {
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter);
    let is_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Console => false,
        LogFormat::Json => true,
    };
    if is_json {
        // One object a line: the event's own fields beside level and message, the call's in `span`.
        subscriber.with(lines.json().flatten_event(true).with_span_list(false)).init();
    } else {
        subscriber.with(lines.with_ansi(is_terminal)).init();
    }
}
