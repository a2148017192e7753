//! Metrics for Prometheus. Everyone counts through the macros of the crate `metrics`; without
//! [`install`] that does nothing and costs next to nothing.
//!
//! No label has a value that callers make up: its values would be without bound, and each is a
//! time series in Prometheus. In particular no account id is one.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Calls, in seconds: from a commit on a fast disk, some milliseconds, to what is far too long,
/// the default deadline (10 s) and beyond. Two to three in a decade tell a median from a p99.
const CALL_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Steps of the write path, in seconds: a tenth of a call, so they begin a decade earlier. 20 ms,
/// the lock timeout of a batch, is a boundary: beyond it someone else held a row.
const STEP_BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Requests in a transaction: 1 is nobody to share with, 1000 the default of `batch_size_max`,
/// 10,000 the most that this can be.
const BATCH_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 10_000.0];
/// How often what histograms were told is put into their buckets. It waits in memory until then,
/// 8 bytes a value: at 50,000 calls a second some megabytes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What was counted, as text for Prometheus.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
    process: metrics_process::Collector,
}

/// From now on counts what the process does. To be called in its runtime, and before what counts
/// is started.
///
/// # Errors
/// It was called before.
pub fn install() -> Result<Metrics, BuildError> {
    let named = |name: &str| Matcher::Full(name.to_owned());
    let mut builder = PrometheusBuilder::new()
        .set_buckets_for_metric(named("grpc_server_handling_seconds"), &CALL_BUCKETS)?
        .set_buckets_for_metric(named("passbook_batch_size"), &BATCH_BUCKETS)?;
    for step in ["passbook_queue_seconds", "passbook_lock_wait_seconds", "passbook_commit_seconds"]
    {
        builder = builder.set_buckets_for_metric(named(step), &STEP_BUCKETS)?;
    }
    let prometheus = builder.install_recorder()?;
    describe();
    begin_at_zero();
    let process = metrics_process::Collector::default();
    process.describe();
    let upkeep = prometheus.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    Ok(Metrics { prometheus, process })
}

impl Metrics {
    /// All so far, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.prometheus.render()
    }
}

fn describe() {
    describe_counter!("grpc_server_started_total", "Calls that came in.");
    describe_counter!(
        "grpc_server_handled_total",
        "Calls that ended, by the code of their status."
    );
    describe_histogram!(
        "grpc_server_handling_seconds",
        "How long calls took, until their last byte was handed to the connection."
    );
    describe_gauge!("passbook_calls_in_flight", "Calls under way, streams included.");
    describe_counter!("passbook_calls_shed_total", "What was refused because of a limit.");
    describe_counter!(
        "passbook_requests_total",
        "Changes that were asked for, by what their callers were told; those of batches and \
         streams one by one, dry runs not."
    );
    describe_counter!("passbook_replays_total", "Of those, repeats that got the first answer.");
    describe_histogram!("passbook_batch_size", "Requests in one database transaction.");
    describe_histogram!(
        "passbook_queue_seconds",
        "From a request's acceptance to the begin of the transaction that decided it."
    );
    describe_histogram!(
        "passbook_lock_wait_seconds",
        "From BEGIN until all row locks are held and the accounts are read."
    );
    describe_histogram!("passbook_commit_seconds", "The COMMIT.");
    describe_counter!("passbook_retries_total", "Attempts at a transaction that failed.");
    describe_gauge!("passbook_queue_length", "Changes accepted and not yet answered.");
    describe_gauge!("passbook_queue_capacity", "The most that may be so.");
    describe_gauge!("passbook_database_connections", "Open connections to the database.");
    describe_gauge!(
        "passbook_database_oldest_snapshot_seconds",
        "Age of the oldest snapshot of the database: vacuum clears nothing away that is younger."
    );
    describe_gauge!("passbook_ready", "1 if changes can be made now, 0 if not.");
    describe_gauge!(
        "passbook_tls_certificate_expiry_timestamp_seconds",
        "When the server's certificate expires."
    );
    describe_counter!(
        "passbook_tls_handshake_failures_total",
        "Connections that did not get as far as HTTP/2."
    );
    describe_gauge!("passbook_build_info", "1, labelled with the version.");
    describe_gauge!("passbook_watchers", "WatchEntries under way.");
}

/// A counter that appears with its first count has no increase to alert on.
fn begin_at_zero() {
    gauge!("passbook_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Until the first look at the database.
    gauge!("passbook_database_oldest_snapshot_seconds").set(0.0);
    for limit in ["calls", "identity_calls", "identity_rate", "buffered_bytes", "queue"] {
        counter!("passbook_calls_shed_total", "limit" => limit).absolute(0);
    }
    counter!("passbook_requests_total", "outcome" => "applied", "reason" => "").absolute(0);
    for reason in ["deadline_exceeded", "database_unavailable", "internal"] {
        counter!("passbook_requests_total", "outcome" => "unknown", "reason" => reason).absolute(0);
    }
    counter!("passbook_replays_total").absolute(0);
}
