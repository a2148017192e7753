//! The records of a call and of its changes, from their begin to their end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    audit::{
        Origin, Outcome,
        entry::{Change, Denial},
        log::{AuditLog, Unavailable},
    },
    domain::{command::Command, ids::Identity},
};

/// The record of a call.
#[derive(Debug)]
pub struct Call {
    log: Arc<AuditLog>,
    origin: Arc<Origin>,
    /// Whether a command of the call was denied.
    is_denied: AtomicBool,
}

/// The records of changes that have begun, and what to wait for before the changes may begin.
pub struct Begun {
    changes: Vec<PendingChange>,
    /// Answered when all intents are written. None: none is required.
    written: Option<oneshot::Receiver<()>>,
}

/// The record of a change that was begun. If it is dropped without an end, the change was not applied.
#[derive(Debug)]
pub struct PendingChange {
    log: Arc<AuditLog>,
    /// None after the end.
    change: Option<Arc<Change>>,
}

impl Call {
    /// The record of a call from there.
    #[must_use]
    pub fn new(log: Arc<AuditLog>, origin: Origin) -> Self {
        Self { log, origin: Arc::new(origin), is_denied: AtomicBool::new(false) }
    }

    /// Records that the policy denied a command of this call. None: it was not read.
    pub fn deny(&self, identity: &Identity, command: Option<&Command>) {
        self.is_denied.store(true, Ordering::Relaxed);
        self.push_denial(identity, true, "permission_denied", command.cloned());
    }

    /// Records that the call ended with a denial. A unary call ends so when its command is denied,
    /// which [`Call::deny`] has recorded. `has_rights`: the policy allows the identity anything.
    pub fn end_denied(&self, identity: &Identity, has_rights: bool, reason: &'static str) {
        let is_recorded = self.origin.is_unary && self.is_denied.load(Ordering::Relaxed);
        if !is_recorded {
            self.push_denial(identity, has_rights, reason, None);
        }
    }

    fn push_denial(
        &self,
        identity: &Identity,
        has_rights: bool,
        reason: &'static str,
        command: Option<Command>,
    ) {
        let (origin, identity) = (self.origin.clone(), identity.clone());
        self.log.deny(Denial { origin, identity, has_rights, reason, command });
    }

    /// Begins the records of changes. If the audit log is required, their intents go into its queue.
    ///
    /// # Errors
    /// The intents are required and cannot be written: there is no record, and no change must be begun.
    pub fn begin(&self, identity: &Identity, commands: Vec<Command>) -> Result<Begun, Unavailable> {
        let change = |command| {
            let (origin, identity) = (self.origin.clone(), identity.clone());
            Arc::new(Change { change_id: Uuid::now_v7(), origin, identity, command })
        };
        let changes: Vec<_> = commands.into_iter().map(change).collect();
        let written = self.log.push_intents(&changes)?;
        let pending = |change| PendingChange { log: self.log.clone(), change: Some(change) };
        Ok(Begun { changes: changes.into_iter().map(pending).collect(), written })
    }

    /// About the length of the lines of a change, in bytes.
    #[must_use]
    pub fn lines_bytes(&self, command: &Command) -> usize {
        self.log.lines_bytes(command)
    }
}

impl Begun {
    /// Waits until all intents are written, with one write.
    ///
    /// # Errors
    /// They are not, although they are required: no change must be begun. Their lines follow.
    pub async fn written(self) -> Result<Vec<PendingChange>, Unavailable> {
        if let Some(written) = self.written
            && written.await.is_err()
        {
            for change in self.changes {
                change.end(Outcome::NotApplied("audit_unavailable"));
            }
            return Err(Unavailable);
        }
        Ok(self.changes)
    }
}

impl PendingChange {
    /// Ends the record with what became of the change.
    pub fn end(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        if let Some(change) = self.change.take() {
            self.log.push_result(change, outcome);
        }
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        self.write(Outcome::NotApplied("abandoned"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        audit::{AuditConfig, Credential},
        domain::fixtures::new_account,
    };

    /// The denials of a call in which a command was denied and that then ended with a denial.
    async fn denials(is_unary: bool) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("audit");
        let config = AuditConfig { file: file.clone(), is_required: false, has_amounts: false };
        let log = AuditLog::start(config, &[]).unwrap();
        let (method, peer, credential) = ("m", None, Credential::None);
        let call = Call::new(log.clone(), Origin { method, is_unary, peer, credential });
        let identity = Identity::from_stored("a");
        call.deny(&identity, Some(&Command::CreateAccount(new_account("a"))));
        call.end_denied(&identity, true, "permission_denied");
        log.stop().await;
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter(|line| line.contains("\"event\":\"denial\"")).count()
    }

    #[tokio::test]
    async fn a_stream_can_be_denied_after_one_of_its_requests() {
        assert_eq!(denials(true).await, 1, "the same denial");
        assert_eq!(denials(false).await, 2);
    }
}
