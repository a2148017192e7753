//! Traces, by OTLP over gRPC; all of OpenTelemetry is in this module, since its crates change
//! their interfaces with every other release.
//!
//! A call is a span, in the trace of its caller if that sent `traceparent`. A database transaction
//! serves many calls, so it is no child of any: it is a span in a trace of its own, with a link to
//! each call, and each call's span has a link to it.
//!
//! The spans are made by hand, not of those of `tracing`: those would bring along what every
//! library says of itself. Without an endpoint nothing of this is done but to look that there is
//! none.

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

/// Links that a span has at most: the calls of the largest transaction that there is by default
/// (`batch_size_max`). One takes some 50 bytes on its way to the collector.
const LINKS_MAX: u32 = 1000;
/// How long the collector may take to accept some spans. What it does not is dropped, as is what
/// the queue before it has no place for: nobody who calls ever waits for it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take at shutdown, at which an orchestrator waits.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What makes traces; to be stopped at the end, for the last ones.
pub struct Traces(SdkTracerProvider);

/// Begins to make traces, for this collector, of this share of the calls whose caller has not
/// decided it. To be called in the process's runtime, once.
///
/// # Errors
/// The endpoint is no URL of a collector.
pub fn start(endpoint: &str, sample_ratio: f64) -> Result<Traces, String> {
    let mut exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    if endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().map_err(|error| error.to_string())?;
    // The environment's OTEL_RESOURCE_ATTRIBUTES are taken in, too.
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
    // Set already only if this was called before, which the caller does not.
    let _ = TRACER.set(provider.tracer("passbook"));
    Ok(Traces(provider))
}

impl Traces {
    /// Sends the last spans, or gives up after two seconds.
    pub async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || {
            self.0.shutdown_with_timeout(FLUSH_TIME_MAX).map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = stopping.await {
            tracing::warn!(error, "the last traces were not sent");
        }
    }
}

/// A transaction is recorded if any of the calls that it serves is; its own trace would decide
/// anew, and leave those calls with links to nothing.
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

/// What belongs to one call. Cheap to copy; None without traces, or if this one is not sampled
/// by whoever decides that.
#[derive(Clone, Default)]
pub struct CallTrace(Option<Context>);

impl CallTrace {
    /// Begins the span of a call: of this RPC, with these headers, from there.
    pub fn begin(method: &'static str, headers: &HeaderMap, peer: Option<IpAddr>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let parent = callers_context(headers).unwrap_or_default();
        let mut attributes =
            vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
        attributes.extend(peer.map(|peer| KeyValue::new("client.address", peer.to_string())));
        let builder =
            tracer.span_builder(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = tracer.build_with_context(builder, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Of whatever runs now; see [`Self::enter`].
    #[must_use]
    pub fn current() -> Self {
        Self(TRACER.get().map(|_| Context::current()))
    }

    /// The trace's id, as it is written in the log.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        self.sampled_or_not().map(|span| span.trace_id().to_string())
    }

    /// Until the guard is dropped, [`Self::current`] is this one, on this thread.
    #[must_use]
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    /// Runs a future in it, on whatever threads.
    pub async fn run<T>(self, future: impl Future<Output = T>) -> T {
        match self.0 {
            Some(context) => future.with_context(context).await,
            None => future.await,
        }
    }

    /// Ends the span. `code` is the status's, by its name in capitals; `is_fault` if it is the
    /// server's.
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

    fn sampled_or_not(&self) -> Option<SpanContext> {
        let context = self.0.as_ref()?.span().span_context().clone();
        context.is_valid().then_some(context)
    }
}

/// The id of the caller's trace, for the log of a process that makes none.
#[must_use]
pub fn callers_trace_id(headers: &HeaderMap) -> Option<String> {
    let context = callers_context(headers)?;
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// By W3C's `traceparent` and `tracestate`.
fn callers_context(headers: &HeaderMap) -> Option<Context> {
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

/// What a transaction's span says of it.
pub struct TransactionFacts {
    /// `sqlite` or `postgresql`, by OpenTelemetry's names.
    pub database: &'static str,
    /// Requests in it.
    pub batch_size: usize,
    /// How often this batch has been tried, this time included.
    pub attempts: usize,
    /// How long ago it began.
    pub since: Duration,
}

impl TransactionTrace {
    /// Begins the span of a transaction for these calls, if one of them is recorded.
    pub fn begin<'a>(
        calls: impl Iterator<Item = &'a CallTrace>,
        facts: impl FnOnce() -> TransactionFacts,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let recorded = |call: &&CallTrace| {
            call.sampled_or_not().is_some_and(|span_context| span_context.is_sampled())
        };
        let calls: Vec<&CallTrace> = calls.filter(recorded).take(LINKS_MAX as usize).collect();
        if calls.is_empty() {
            return Self(None);
        }
        let links = calls.iter().filter_map(|call| call.sampled_or_not());
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

    /// Ends it; with the cause if it failed.
    pub fn end(&self, failure: Option<&'static str>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        if let Some(cause) = failure {
            span.set_attribute(KeyValue::new("error.type", cause));
            span.set_status(Status::error(cause));
        }
        span.end();
    }
}
