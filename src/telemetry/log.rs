//! The log: lines on stderr. Each line that is logged in the course of a call has the fields of the
//! call.
//!
//! This module attaches the fields without a span of `tracing`. Spans would take some hundredths of
//! the server's capacity: a span is created, formatted and stored for every call, and few calls log a
//! line. The fields here are formatted only with a line.

use std::{cell::RefCell, fmt, io::IsTerminal, mem, net::SocketAddr, sync::Arc};

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

/// Installs the log for the process, with this filter and format.
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
        // One flat object on each line, without nested fields.
        let json = format::format().json().flatten_event(true);
        let json = json.with_current_span(false).with_span_list(false);
        let lines = lines.fmt_fields(JsonFields::new()).event_format(Json(json));
        subscriber.with(lines).init();
    } else {
        let lines = lines
            .with_ansi(is_terminal)
            .event_format(Console(format::format().with_ansi(is_terminal)));
        subscriber.with(lines).init();
    }
}

/// What names a call in the log.
#[derive(Debug)]
pub struct CallNames {
    /// `passbook.v1.AccountService/Deposit`
    pub method: &'static str,
    /// The caller's `x-request-id`, or a generated id: printable ASCII.
    pub call_id: HeaderValue,
    /// The trace that it is a part of.
    pub trace_id: Option<String>,
    /// Who is at the other end.
    pub peer: Option<SocketAddr>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<CallNames>>> = const { RefCell::new(None) };
}

/// The guard of [`CallNames::enter`]. Dropping it restores the fields that were attached before.
pub struct FieldsGuard(Option<Arc<CallNames>>);

impl CallNames {
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

fn current() -> Option<Arc<CallNames>> {
    CURRENT.with(|current| current.borrow().clone())
}

struct Json(format::Format<format::Json>);

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(names) = current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end().strip_suffix('}').unwrap_or_default())?;
        for (name, value) in names.fields() {
            // `Display` of a JSON value quotes and escapes the text.
            write!(writer, ",\"{name}\":{}", serde_json::Value::from(value))?;
        }
        writer.write_str("}\n")
    }
}

struct Console(format::Format);

impl<S, N> FormatEvent<S, N> for Console
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(names) = current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end())?;
        for (name, value) in names.fields() {
            write!(writer, " {name}={value:?}")?;
        }
        writer.write_str("\n")
    }
}
