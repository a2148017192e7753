//! Traces, exported by OTLP over gRPC. Only this module uses OpenTelemetry, because its crates change
//! their interfaces with every other release.
//!
//! A call is a span, in the trace of its caller if the caller sent `traceparent`. A database
//! transaction serves many calls, so its span is no child of a call: it has a trace of its own and a
//! link to each call, and the span of each call has a link to it.
//!
//! This module creates the spans itself. Spans of `tracing` would include those of every library.
//! Without an endpoint a call only checks that there is no tracer.

use std::{
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, ContextGuard, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{
        FutureExt, Link, SpanContext, SpanKind, Status, TraceContextExt, TraceId, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample},
};
use tonic::transport::ClientTlsConfig;

/// The most links of one span: the default of `batch_size_max`, which counts legs, so a database
/// transaction has no more calls. A link takes some 50 bytes in an export.
const LINKS_MAX: u32 = 1000;
/// The timeout of one export to the collector. Spans of a failed export are dropped, and so are spans
/// beyond the limit of the export queue: no call waits for the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of the last export at shutdown, for which an orchestrator waits.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The exporter of traces. [`Self::stop`] sends the last spans.
pub struct Traces(SdkTracerProvider);

/// Starts tracing to the collector at `endpoint`. `sample_ratio` is the fraction of calls that are
/// traced if no known caller sends a `traceparent`. The process calls this once, within its tokio
/// runtime.
///
/// # Errors
/// The endpoint is no valid URL.
pub fn start(endpoint: &str, sample_ratio: f64) -> Result<Traces, String> {
    let mut exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    if endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().map_err(|error| error.to_string())?;
    // The builder adds the attributes of the variable OTEL_RESOURCE_ATTRIBUTES.
    let resource = Resource::builder()
        .with_service_name("passbook")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
        .build();
    let of_callers = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(LinkedSampler(of_callers))
        .with_max_links_per_span(LINKS_MAX)
        .with_resource(resource)
        .build();
    // `set` fails only on a second call of this function.
    let _ = TRACER.set(provider.tracer("passbook"));
    Ok(Traces(provider))
}

impl Traces {
    /// Sends the last spans. Gives up after 2 s (`FLUSH_TIME_MAX`).
    pub async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || {
            self.0.shutdown_with_timeout(FLUSH_TIME_MAX).map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = stopping.await {
            tracing::warn!(error, "the last traces were not sent");
        }
    }
}

/// Samples a database transaction if one of its calls is sampled. Without this sampler the trace of
/// the transaction would be sampled independently, and calls would have links to missing spans.
#[derive(Clone, Debug)]
struct LinkedSampler(Sampler);

impl ShouldSample for LinkedSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_linked = links.iter().any(|link| link.span_context.is_sampled());
        let sampler = if is_linked { &Sampler::AlwaysOn } else { &self.0 };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// The span of one call. Cheap to clone. None without tracing.
#[derive(Clone, Default)]
pub struct CallTrace(Option<Context>);

impl CallTrace {
    /// Starts the span of a call to `method`. The headers have the trace of the caller, which counts
    /// if it `is_identified`: anyone could make the server trace everything. `peer` is the address of
    /// the client.
    pub fn begin(
        method: &'static str,
        headers: &HeaderMap,
        is_identified: impl FnOnce() -> bool,
        peer: Option<IpAddr>,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let parent = remote_context(headers).filter(|_| is_identified()).unwrap_or_default();
        let mut attributes =
            vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
        attributes.extend(peer.map(|peer| KeyValue::new("client.address", peer.to_string())));
        let builder =
            tracer.span_builder(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = tracer.build_with_context(builder, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// The call that the current task or thread serves: see [`Self::enter`] and [`Self::run`].
    #[must_use]
    pub fn current() -> Self {
        Self(TRACER.get().map(|_| Context::current()))
    }

    /// The id of the trace, as hexadecimal digits for the log.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.span_context().map(|span| span.trace_id().to_string())
    }

    /// Makes this the result of [`Self::current`] on this thread until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    /// Runs a future with this as the result of [`Self::current`], on whatever threads it runs.
    pub async fn run<T>(self, future: impl Future<Output = T>) -> T {
        match self.0 {
            Some(context) => future.with_context(context).await,
            None => future.await,
        }
    }

    /// Ends the span. `code` is the name of the status code in capitals, and `is_fault` says whether
    /// it means a fault of the server.
    pub fn end(&self, code: &'static str, is_fault: bool, call_id: &str) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        if !span.is_recording() {
            return;
        }
        let ids: Vec<opentelemetry::StringValue> = vec![call_id.to_owned().into()];
        let ids = opentelemetry::Value::Array(ids.into());
        span.set_attribute(KeyValue::new("rpc.response.metadata.x-request-id", ids));
        span.set_attribute(KeyValue::new("rpc.response.status_code", code));
        if is_fault {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(code));
        }
        span.end();
    }

    /// The context of the span, sampled or not; None without a valid one.
    fn span_context(&self) -> Option<SpanContext> {
        let context = self.0.as_ref()?.span().span_context().clone();
        context.is_valid().then_some(context)
    }
}

/// The trace id in the headers of a call, for the log of a server without tracing.
#[must_use]
pub fn callers_trace_id(headers: &HeaderMap) -> Option<String> {
    let context = remote_context(headers)?;
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// The trace context of the caller, from the W3C headers `traceparent` and `tracestate`.
fn remote_context(headers: &HeaderMap) -> Option<Context> {
    headers.contains_key("traceparent").then(|| {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
    })
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of one database transaction.
pub struct TransactionTrace(Option<Context>);

/// The attributes of the span of a database transaction.
pub struct TransactionFacts {
    /// `sqlite` or `postgresql`, the names of OpenTelemetry.
    pub database: &'static str,
    /// The number of requests in the database transaction.
    pub batch_size: usize,
    /// The number of attempts of the batch, this one included.
    pub attempts: usize,
    /// The time since the attempt began.
    pub since: Duration,
}

impl TransactionTrace {
    /// Starts the span of a database transaction that serves these calls, if one of them is sampled.
    pub fn begin<'a>(
        calls: impl Iterator<Item = &'a CallTrace>,
        facts: impl FnOnce() -> TransactionFacts,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let is_sampled = |call: &&CallTrace| {
            call.span_context().is_some_and(|span_context| span_context.is_sampled())
        };
        let calls: Vec<&CallTrace> = calls.filter(is_sampled).take(LINKS_MAX as usize).collect();
        if calls.is_empty() {
            return Self(None);
        }
        let links = calls.iter().filter_map(|call| call.span_context());
        let TransactionFacts { database, batch_size, attempts, since } = facts();
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let builder = tracer
            .span_builder("transaction")
            .with_kind(SpanKind::Internal)
            .with_start_time(SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH))
            .with_links(links.map(Link::with_context).collect())
            .with_attributes([
                KeyValue::new("db.system.name", database),
                KeyValue::new("passbook.batch_size", number(batch_size)),
                KeyValue::new("passbook.attempts", number(attempts)),
            ]);
        let root = Context::new();
        let context = root.with_span(tracer.build_with_context(builder, &root));
        for call in calls {
            let Some(call) = &call.0 else { continue };
            call.span().add_link(context.span().span_context().clone(), Vec::new());
        }
        Self(Some(context))
    }

    /// Ends the span. `error` is the cause if the attempt failed.
    pub fn end(&self, error: Option<&'static str>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        if let Some(cause) = error {
            span.set_attribute(KeyValue::new("error.type", cause));
            span.set_status(Status::error(cause));
        }
        span.end();
    }
}
