//! The log: lines on stderr. Each line that is logged in the course of a call has the fields of the
//! call.
//!
//! This module attaches the fields without a span of `tracing`. Spans would take some hundredths of
//! the server's capacity: a span is created, formatted and stored for every call, and few calls log a
//! line. The fields here are formatted only with a line.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    fmt,
    io::IsTerminal,
    mem,
    net::SocketAddr,
    panic::PanicHookInfo,
    sync::Arc,
};

use clap::ValueEnum;
use http::HeaderValue;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    panic_message::panic_message,
    telemetry::stderr::{self, Stderr},
};

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Console if stderr is a terminal, otherwise JSON.
    Auto,
    /// Lines for people.
    Console,
    /// One JSON object on each line.
    Json,
}

/// Installs the log for the process, with this filter and format. Panics are lines of it.
pub fn start(filter: EnvFilter, format: LogFormat) {
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Stderr);
    let subscriber = tracing_subscriber::registry().with(filter);
    let is_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Console => false,
        LogFormat::Json => true,
    };
    stderr::start(is_json);
    if is_json {
        // One flat object on each line, without nested fields.
        let json = format::format().json().flatten_event(true);
        let json = json.with_current_span(false).with_span_list(false);
        let format = WithCallFields { format: json, is_json };
        subscriber.with(lines.fmt_fields(JsonFields::new()).event_format(format)).init();
    } else {
        let format = format::format().with_ansi(is_terminal);
        let format = WithCallFields { format, is_json };
        subscriber.with(lines.with_ansi(is_terminal).event_format(format)).init();
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// Logs a panic as one line.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    // Empty unless RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace =
        matches!(backtrace.status(), BacktraceStatus::Captured).then(|| backtrace.to_string());
    let message = panic_message(panic.payload());
    tracing::error!(panic = message, location, backtrace, "panicked");
}

/// The fields of each line that is logged in the course of a call.
#[derive(Debug)]
pub struct CallFields {
    /// `passbook.v1.AccountService/Deposit`
    pub method: &'static str,
    /// The caller's `x-request-id`, or a generated id: printable ASCII.
    pub call_id: HeaderValue,
    /// The trace of the call.
    pub trace_id: Option<String>,
    /// The address of the client.
    pub peer: Option<SocketAddr>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<CallFields>>> = const { RefCell::new(None) };
}

/// The guard of [`CallFields::enter`]. Dropping it restores the fields that were attached before.
pub struct FieldsGuard(Option<Arc<CallFields>>);

impl CallFields {
    /// Attaches these fields to everything this thread logs until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> FieldsGuard {
        FieldsGuard(CURRENT.with(|current| current.replace(Some(self.clone()))))
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let call_id = self.call_id.to_str().unwrap_or_default().to_owned();
        let fields = [
            ("method", Some(self.method.to_owned())),
            ("call_id", Some(call_id)),
            ("trace_id", self.trace_id.clone()),
            ("peer", self.peer.map(|peer| peer.to_string())),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Drop for FieldsGuard {
    fn drop(&mut self) {
        let before = mem::take(&mut self.0);
        CURRENT.with(|current| current.replace(before));
    }
}

/// Adds the fields of the current call to the lines of another format.
struct WithCallFields<F> {
    format: F,
    is_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithCallFields<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(call) = CURRENT.with(|current| current.borrow().clone()) else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        if !self.is_json {
            writer.write_str(line)?;
            for (name, value) in call.fields() {
                write!(writer, " {name}={value:?}")?;
            }
            return writer.write_str("\n");
        }
        writer.write_str(line.strip_suffix('}').unwrap_or_default())?;
        for (name, value) in call.fields() {
            // `Display` of a JSON value quotes and escapes the text.
            write!(writer, ",\"{name}\":{}", serde_json::Value::from(value))?;
        }
        writer.write_str("}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command, thread};

    use super::*;

    const FORMAT: &str = "PASSBOOK_TEST_LOG_FORMAT";

    #[test]
    #[ignore = "a process of its own, which the next test starts"]
    fn a_process_panics() {
        let format = match env::var(FORMAT).as_deref() {
            Ok("json") => LogFormat::Json,
            Ok("console") => LogFormat::Console,
            other => panic!("{other:?} is no format"),
        };
        start(EnvFilter::new("info"), format);
        assert!(thread::spawn(|| panic!("two\nlines")).join().is_err());
    }

    #[test]
    fn a_panic_is_a_line_with_its_text_and_its_place() {
        let panic_in = |format: &str| {
            let mut process = Command::new(env::current_exe().unwrap());
            process.args(["--exact", "telemetry::log::tests::a_process_panics", "--ignored"]);
            let output = process.env(FORMAT, format).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            text
        };
        let line: serde_json::Value = serde_json::from_str(&panic_in("json")).unwrap();
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        assert_eq!((field("level"), field("message")), ("ERROR", "panicked"));
        assert_eq!(field("panic"), "two\nlines");
        assert!(field("location").starts_with("src/telemetry/log.rs:"), "{line}");
        let line = panic_in("console");
        assert!(line.contains("ERROR") && line.contains(r#"panic="two\nlines""#), "{line}");
    }
}
