//! What the ledger knows of the call that it works for.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    audit,
    budget::Share,
    domain::{
        authorization::{Caller, PermissionDenied},
        command::Command,
        ids::{RequestId, RequestKey},
    },
};

/// The caller, and the time until which the caller waits.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls, with what rights.
    pub caller: Caller,
    /// When the answer must be on its way.
    pub deadline: Instant,
    /// The call in the audit log, if there is one.
    pub audit: Option<Arc<audit::Call>>,
    /// The room for what the call keeps of its only message. None: it has none, or another one.
    pub share: Option<Arc<Share>>,
}

impl CallContext {
    /// The key of a request of this caller.
    pub fn request_key(&self, request_id: RequestId) -> RequestKey {
        RequestKey { caller: self.caller.recorded_as.clone(), request_id }
    }

    /// Checks the right to execute a command, and records a denial.
    pub(super) fn check(&self, command: &Command) -> Result<(), PermissionDenied> {
        self.caller.grant.check(command).inspect_err(|_| self.deny(command))
    }

    /// Records that a command was denied.
    pub(super) fn deny(&self, command: &Command) {
        if let Some(call) = &self.audit {
            call.deny(&self.caller.identity, Some(command));
        }
    }
}
