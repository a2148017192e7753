//! The records of a call and of its changes, from their begin to their end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use crate::{
    audit::{
        Credential, Outcome,
        entry::{Change, Denial, Event, Origin},
        log::{AuditLog, Unavailable},
    },
    domain::{command::Command, ids::Identity},
};

/// The record of a call.
#[derive(Debug)]
pub struct Call {
    log: Arc<AuditLog>,
    origin: Arc<Origin>,
    /// Whether the denial of the call was recorded.
    is_denied: AtomicBool,
}

/// The record of a change that was begun. If it is dropped without an end, the change was not applied.
#[derive(Debug)]
pub struct PendingChange {
    log: Arc<AuditLog>,
    /// None after the end.
    change: Option<Arc<Change>>,
}

impl Call {
    /// A call of this method.
    #[must_use]
    pub fn new(
        log: Arc<AuditLog>,
        method: &'static str,
        peer: Option<SocketAddr>,
        credential: Credential,
    ) -> Self {
        let origin = Arc::new(Origin { method, peer, credential });
        Self { log, origin, is_denied: AtomicBool::new(false) }
    }

    /// Records that the policy denied a command of this call.
    pub fn deny(&self, identity: &Identity, command: &Command) {
        self.is_denied.store(true, Ordering::Relaxed);
        self.push_denial(identity, "permission_denied", Some(command.clone()));
    }

    /// Records that the call ended with a denial, unless [`Call::deny`] has recorded it.
    pub fn end_denied(&self, identity: &Identity, reason: &'static str) {
        if !self.is_denied.load(Ordering::Relaxed) {
            self.push_denial(identity, reason, None);
        }
    }

    fn push_denial(&self, identity: &Identity, reason: &'static str, command: Option<Command>) {
        let (origin, identity) = (self.origin.clone(), identity.clone());
        self.log.deny(Denial { origin, identity, reason, command });
    }

    /// Begins the record of a change. If the audit log is required, waits until its intent is
    /// written.
    ///
    /// # Errors
    /// The intent is required and cannot be written: the change must not be begun.
    pub async fn begin(
        &self,
        identity: &Identity,
        command: &Command,
    ) -> Result<PendingChange, Unavailable> {
        let (origin, identity, command) = (self.origin.clone(), identity.clone(), command.clone());
        let change = Arc::new(Change { change_id: Uuid::now_v7(), origin, identity, command });
        let written = self.log.push_intent(&change)?;
        let pending = PendingChange { log: self.log.clone(), change: Some(change) };
        if let Some(written) = written
            && written.await.is_err()
        {
            pending.end(Outcome::NotApplied("audit_unavailable"));
            return Err(Unavailable);
        }
        Ok(pending)
    }
}

impl PendingChange {
    /// Ends the record with what became of the change.
    pub fn end(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        if let Some(change) = self.change.take() {
            self.log.push_result(Event::Result(change, outcome));
        }
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        self.write(Outcome::NotApplied("abandoned"));
    }
}
