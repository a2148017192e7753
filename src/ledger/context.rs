//! What the ledger knows of the call that it works for.

use tokio::time::Instant;

use crate::domain::{
    authorization::Caller,
    ids::{RequestId, RequestKey},
};

/// The caller, and the time until which the caller waits.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls, with what rights.
    pub caller: Caller,
    /// When the answer must be on its way.
    pub deadline: Instant,
}

impl CallContext {
    /// The key of a request of this caller.
    pub fn request_key(&self, request_id: RequestId) -> RequestKey {
        RequestKey { caller: self.caller.recorded_as.clone(), request_id }
    }
}
