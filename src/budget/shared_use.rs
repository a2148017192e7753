//! Whether several identities use something.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::Identity;

/// How long after another identity has come something counts as used by several. Shorter, and an identity
/// that comes seldom waits for what a busy one has begun; longer, and a busy identity is slowed down for
/// others that have gone.
const SHARED_TIME: Duration = Duration::from_secs(10);

/// Who came last, and when that was another identity than before.
#[derive(Default)]
pub struct SharedUse {
    last: Option<Identity>,
    shared_at: Option<Instant>,
}

impl SharedUse {
    /// Notes a use.
    pub fn note(&mut self, identity: &Identity) {
        if self.last.as_ref() != Some(identity) {
            self.shared_at = self.last.replace(identity.clone()).map(|_| Instant::now());
        }
    }

    /// Whether several identities have come of late.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared_at.is_some_and(|shared_at| shared_at.elapsed() < SHARED_TIME)
    }

    /// As if nobody else had come for long.
    #[cfg(test)]
    pub fn forget_others(&mut self) {
        self.shared_at = Instant::now().checked_sub(SHARED_TIME);
    }
}
