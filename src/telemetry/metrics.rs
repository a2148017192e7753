//! Metrics for Prometheus. All layers record them through the macros of the crate `metrics`, which
//! have no effect and nearly no cost until [`install`] is called.
//!
//! No label has a value that callers choose, such as an account id: the values would have no bound,
//! and each value is a time series in Prometheus.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets of the duration of calls, in seconds. They begin below a commit on a fast disk (some
/// milliseconds) and end above the default deadline (10 s). Two to three buckets in a decade are
/// enough to distinguish a median from a p99.
const CALL_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets of the steps of the write path, in seconds. A step takes about a tenth of a call, so these
/// buckets begin a decade lower. A wait for a lock may include one for the turn (up to 0.5 s): a longer
/// one means a foreign lock.
const STEP_BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Buckets of the batch size, in requests: from one to 10,000, the largest value of `batch_size_max`,
/// which counts the legs of these requests. Its default of 1000 is a boundary.
const BATCH_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 10_000.0];
/// The interval at which recorded values move into the buckets of histograms. Until then each value
/// takes 8 bytes of memory, some megabytes at 50,000 calls a second.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorded metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
    process: metrics_process::Collector,
}

/// Installs the recorder of metrics for the process. The caller calls this within the tokio runtime,
/// and before it starts tasks that record metrics.
///
/// # Errors
/// A recorder is already installed.
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
    /// All metrics, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.prometheus.render()
    }
}

fn describe() {
    describe_counter!("grpc_server_started_total", "Calls that were received.");
    describe_counter!("grpc_server_handled_total", "Calls that ended, by status code.");
    describe_histogram!(
        "grpc_server_handling_seconds",
        "Duration of calls in seconds, until the last byte of the response was written."
    );
    describe_gauge!("passbook_calls_in_flight", "Calls in flight, streams included.");
    describe_counter!(
        "passbook_calls_shed_total",
        "Calls and requests that were shed, by the limit that was reached and its scope."
    );
    describe_counter!(
        "passbook_log_lines_lost_total",
        "Lines of the log that were dropped because nobody read standard error in time."
    );
    describe_counter!(
        "passbook_requests_total",
        "Requests that ended, by outcome and reason. Each request of a batch or a stream counts. \
         Dry runs do not count."
    );
    describe_counter!(
        "passbook_replays_total",
        "Repeated requests that got the stored result of the first one."
    );
    describe_histogram!("passbook_batch_size", "Requests in a database transaction.");
    describe_histogram!(
        "passbook_queue_seconds",
        "Time from the acceptance of a request to the BEGIN of its database transaction, in seconds."
    );
    describe_histogram!(
        "passbook_lock_wait_seconds",
        "Time from BEGIN until all rows are locked and read, in seconds."
    );
    describe_histogram!("passbook_commit_seconds", "Duration of COMMIT in seconds.");
    describe_counter!("passbook_retries_total", "Database transactions that failed, by cause.");
    describe_gauge!("passbook_queue_length", "Changes that are accepted and not yet answered.");
    describe_gauge!(
        "passbook_queue_capacity",
        "The limit of passbook_queue_length. Changes beyond it are shed."
    );
    describe_gauge!("passbook_database_connections", "Open connections to the database, by state.");
    describe_gauge!(
        "passbook_database_oldest_snapshot_seconds",
        "Age of the oldest snapshot of the database in seconds. VACUUM removes no row version that \
         became dead within this time."
    );
    describe_gauge!("passbook_ready", "1 if the server can apply changes now, 0 if it cannot.");
    describe_gauge!(
        "passbook_tls_certificate_expiry_timestamp_seconds",
        "Time at which the certificate of the server expires, in seconds since 1970."
    );
    describe_gauge!(
        "passbook_files_reload_failed",
        "1 if the files, as they are now, could not be reloaded and their old content is in force."
    );
    describe_gauge!(
        "passbook_files_in_force_timestamp_seconds",
        "Time at which the content of the files that is in force was loaded, in seconds since 1970."
    );
    describe_counter!("passbook_tls_handshake_failures_total", "TLS handshakes that failed.");
    describe_counter!(
        "passbook_unauthenticated_total",
        "Calls without a valid credential, by what was wrong with it."
    );
    describe_gauge!(
        "passbook_jwks_fetch_timestamp_seconds",
        "Time of the last successful fetch of the keys for JWTs, in seconds since 1970."
    );
    describe_gauge!(
        "passbook_jwt_keys",
        "Keys for JWTs in force. Without any, no JWT is accepted."
    );
    describe_gauge!(
        "passbook_build_info",
        "Always 1. The label `version` has the version of the server."
    );
    describe_counter!("passbook_audit_lines_total", "Lines of the audit log that were written.");
    describe_counter!(
        "passbook_audit_lines_lost_total",
        "Lines that are missing in the audit log, because it could not be written for long."
    );
    describe_counter!(
        "passbook_audit_write_failures_total",
        "Attempts to write the audit log that failed."
    );
    describe_gauge!(
        "passbook_watchers",
        "Open WatchEntries streams, and 20 for each open WatchEvents stream."
    );
    describe_gauge!(
        "passbook_event_feed_delay_seconds",
        "How long events have waited for a database transaction of a server."
    );
}

/// Publishes counters with 0. A counter that appears with its first value has no increase on which
/// an alert could fire.
fn begin_at_zero() {
    gauge!("passbook_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // The value until the first query of the database.
    gauge!("passbook_database_oldest_snapshot_seconds").set(0.0);
    gauge!("passbook_event_feed_delay_seconds").set(0.0);
    counter!("passbook_requests_total", "outcome" => "applied", "reason" => "").absolute(0);
    for reason in ["deadline_exceeded", "database_unavailable", "internal"] {
        counter!("passbook_requests_total", "outcome" => "unknown", "reason" => reason).absolute(0);
    }
    counter!("passbook_replays_total").absolute(0);
    counter!("passbook_log_lines_lost_total").absolute(0);
    counter!("passbook_audit_lines_total").absolute(0);
    counter!("passbook_audit_lines_lost_total").absolute(0);
    counter!("passbook_audit_write_failures_total").absolute(0);
}
