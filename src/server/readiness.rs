//! Readiness: whether changes can be applied now. Probed in a loop, and published to the health
//! service and the admin port.
//!
//! Liveness is another matter: a process that answers at all is live, whatever its database does.
//! A restart would not repair the database, and would lose what the process knows of commits that
//! nobody confirmed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tonic_health::server::HealthReporter;

use crate::{
    grpc::services::READY_NAMES,
    ledger::{Ledger, NotReady},
};

/// The pause between probes while the server is ready.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a probe that failed: short, to distinguish one slow answer from an outage, and
/// to be ready again soon after the database is.
const PROBE_INTERVAL_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long the database may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Failed probes in a row that make the server not ready. One slow answer or one connection that
/// was cut is no outage, and callers that are sent elsewhere find the same database there. One
/// successful probe makes the server ready again, because it went all the way to the database.
const FAILURES_MIN: usize = 2;

/// The reason before the first probe.
const WAITING_FOR_DATABASE: &str = "starting, waiting for the database";
/// The health service's name for liveness, beside the names for readiness.
const LIVENESS: &str = "liveness";

/// Ready, or the kind of reason why not. The log has the reason itself, with the names of hosts.
pub type Readiness = Result<(), &'static str>;

/// Probes the ledger between [`ReadinessWatch::start`] and [`ReadinessWatch::end`]. Before and
/// after, the server is not ready.
pub struct ReadinessWatch {
    state: Arc<watch::Sender<Readiness>>,
    health: HealthReporter,
    /// One task at most. A set, because dropping it aborts the task.
    probe_task: JoinSet<()>,
}

impl ReadinessWatch {
    /// Live, and not ready. Publishes the state in `state`, too.
    pub async fn new(health: HealthReporter, state: Arc<watch::Sender<Readiness>>) -> Self {
        set_serving(&health, &[LIVENESS], true).await;
        set_serving(&health, &READY_NAMES, false).await;
        let _ = state.send_replace(Err(WAITING_FOR_DATABASE));
        Self { state, health, probe_task: JoinSet::new() }
    }

    /// Becomes ready, and starts to probe. Call it when the database has just answered.
    pub async fn start(&mut self, ledger: Arc<Ledger>) {
        let _ = self.state.send_replace(Ok(()));
        set_serving(&self.health, &READY_NAMES, true).await;
        self.probe_task.spawn(probe(ledger, self.state.clone(), self.health.clone()));
    }

    /// Becomes not ready for the rest of the process: the server is shutting down.
    pub async fn end(&mut self) {
        self.probe_task.abort_all();
        let _ = self.state.send_replace(Err("shutting down"));
        set_serving(&self.health, &READY_NAMES, false).await;
    }

    /// Ends the streams of clients that watch the health service. They would keep their connections
    /// open.
    pub async fn end_streams(&mut self) {
        for name in READY_NAMES.iter().chain(&[LIVENESS]) {
            self.health.clear_service_status(name).await;
        }
    }
}

async fn probe(ledger: Arc<Ledger>, state: Arc<watch::Sender<Readiness>>, health: HealthReporter) {
    let mut hysteresis = Hysteresis::default();
    loop {
        let probed = ledger.check_ready(PROBE_TIMEOUT).await;
        let interval = if probed.is_ok() { PROBE_INTERVAL } else { PROBE_INTERVAL_AFTER_FAILURE };
        if let Some(change) = hysteresis.update(probed) {
            match &change {
                Ok(()) => tracing::info!("ready"),
                Err(reason) => tracing::warn!(%reason, "not ready"),
            }
            set_serving(&health, &READY_NAMES, change.is_ok()).await;
            let _ = state.send_replace(change.map_err(|reason| kind(&reason)));
        }
        tokio::time::sleep(interval).await;
    }
}

fn kind(reason: &NotReady) -> &'static str {
    match reason {
        NotReady::Schema(_) => "the schema of the database is not this server's",
        NotReady::Unsafe(_) => "the database lacks a key or a guard, or may hide or lose rows",
        NotReady::Database(_) => "the database cannot be reached or written",
    }
}

async fn set_serving(health: &HealthReporter, names: &[&str], is_serving: bool) {
    let status = if is_serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    for name in names {
        health.set_service_status(*name, status).await;
    }
}

/// Derives the state from single probes, beginning with ready.
#[derive(Default)]
struct Hysteresis {
    failures: usize,
}

impl Hysteresis {
    /// Returns the new state if this probe changes it.
    fn update(&mut self, probed: Result<(), NotReady>) -> Option<Result<(), NotReady>> {
        let before = self.failures;
        self.failures = if probed.is_ok() { 0 } else { (before + 1).min(FAILURES_MIN) };
        let was_ready = before < FAILURES_MIN;
        let is_ready = self.failures < FAILURES_MIN;
        (was_ready != is_ready).then_some(probed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_no_outage_and_one_success_ends_one() {
        let mut hysteresis = Hysteresis::default();
        let (success, failure) = (Ok(()), Err(NotReady::Database("gone".to_owned())));
        for probed in [&success, &failure, &success, &failure, &success] {
            assert_eq!(hysteresis.update(probed.clone()), None);
        }
        assert_eq!(hysteresis.update(failure.clone()), None);
        assert_eq!(hysteresis.update(failure.clone()), Some(failure.clone()));
        assert_eq!(hysteresis.update(failure.clone()), None, "it is known");
        assert_eq!(hysteresis.update(success.clone()), Some(success.clone()));
        assert_eq!(hysteresis.update(failure), None);
        assert_eq!(hysteresis.update(success), None);
    }
}
