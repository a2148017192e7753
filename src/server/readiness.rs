//! Whether changes can be made now: looked at again and again, and told to whoever asks.
//!
//! Liveness is another matter: a process that answers at all is alive, whatever its database
//! does. To start it anew would not mend the database, and would lose what it knows of changes
//! whose commit was not confirmed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tonic_health::server::HealthReporter;

use crate::ledger::Ledger;

/// How often it is looked at while all is well.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same after a look that failed: soon, to tell a single slow answer from an outage, and then
/// to be back soon after the database is.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long the database may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// So many looks in a row must fail before the server is taken out of service: one slow answer, a
/// connection that was cut, is no outage, and callers who are sent elsewhere find the same
/// database there. One look that succeeds is enough to be back: it went all the way.
const FAILURES_MIN: usize = 2;

/// Why a server is not ready before the first look.
const STARTING: &str = "starting, waiting for the database";
/// The health service's name for liveness, beside those of readiness.
const LIVENESS: &str = "liveness";

/// Ready, or why not.
pub type Readiness = Result<(), String>;

/// Looks at the ledger from its start until its end, and is not ready before and after.
pub struct ReadinessWatch {
    told: Arc<watch::Sender<Readiness>>,
    health: HealthReporter,
    /// The names that are serving while the ledger is ready.
    names: &'static [&'static str],
    looking: JoinSet<()>,
}

impl ReadinessWatch {
    /// Alive, and not ready.
    pub async fn new(health: HealthReporter, names: &'static [&'static str]) -> Self {
        set_serving(&health, &[LIVENESS], true).await;
        set_serving(&health, names, false).await;
        let told = Arc::new(watch::Sender::new(Err(STARTING.to_owned())));
        Self { told, health, names, looking: JoinSet::new() }
    }

    /// Ready; whoever opens a server has just looked at the database.
    pub async fn start(&mut self, ledger: Arc<Ledger>) {
        let _ = self.told.send_replace(Ok(()));
        set_serving(&self.health, self.names, true).await;
        self.looking.spawn(look(ledger, self.told.clone(), self.health.clone(), self.names));
    }

    /// What it is, and what it becomes.
    pub fn subscribe(&self) -> watch::Receiver<Readiness> {
        self.told.subscribe()
    }

    /// From now on it is not ready: the server is shutting down.
    pub async fn end(&mut self) {
        self.looking.abort_all();
        let _ = self.told.send_replace(Err("shutting down".to_owned()));
        set_serving(&self.health, self.names, false).await;
    }

    /// Ends the streams of those who watch the health: they would keep their connections open.
    pub async fn end_streams(&mut self) {
        for name in self.names.iter().chain(&[LIVENESS]) {
            self.health.clear_service_status(name).await;
        }
    }
}

async fn look(
    ledger: Arc<Ledger>,
    told: Arc<watch::Sender<Readiness>>,
    health: HealthReporter,
    names: &'static [&'static str],
) {
    let mut hysteresis = Hysteresis::default();
    loop {
        let seen = ledger.check_ready(TIMEOUT).await;
        let interval = if seen.is_ok() { INTERVAL } else { INTERVAL_AFTER_FAILURE };
        if let Some(change) = hysteresis.after(seen) {
            match &change {
                Ok(()) => tracing::info!("ready"),
                Err(reason) => tracing::warn!(reason, "not ready"),
            }
            set_serving(&health, names, change.is_ok()).await;
            let _ = told.send_replace(change);
        }
        tokio::time::sleep(interval).await;
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

/// Makes of single looks what is told.
#[derive(Default)]
struct Hysteresis {
    failures: usize,
}

impl Hysteresis {
    /// What is to be told after this look, if that is news.
    fn after(&mut self, seen: Readiness) -> Option<Readiness> {
        let before = self.failures;
        self.failures = if seen.is_ok() { 0 } else { (before + 1).min(FAILURES_MIN) };
        let was_ready = before < FAILURES_MIN;
        let is_ready = self.failures < FAILURES_MIN;
        (was_ready != is_ready).then_some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_no_outage_and_one_success_ends_one() {
        let mut hysteresis = Hysteresis::default();
        let (fine, wrong) = (Ok(()), Err("gone".to_owned()));
        for seen in [&fine, &wrong, &fine, &wrong, &fine] {
            assert_eq!(hysteresis.after(seen.clone()), None);
        }
        assert_eq!(hysteresis.after(wrong.clone()), None);
        assert_eq!(hysteresis.after(wrong.clone()), Some(wrong.clone()));
        assert_eq!(hysteresis.after(wrong.clone()), None, "it is known");
        assert_eq!(hysteresis.after(fine.clone()), Some(fine.clone()));
        assert_eq!(hysteresis.after(wrong), None);
        assert_eq!(hysteresis.after(fine), None);
    }
}
