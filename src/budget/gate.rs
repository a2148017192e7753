//! A gate before something that callers wait for: an identity waits for itself, and not in front of
//! others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::{domain::ids::Identity, lock::lock};

/// Identities that are remembered. Beyond this number, those without a permit are forgotten.
const IDENTITIES_KEPT: usize = 1000;

/// Lets so many of one identity in at the same time. More of them wait, first come, first served.
pub struct Gate {
    /// None: the gate is open.
    identity_max: Option<usize>,
    by_identity: Mutex<HashMap<Identity, Weak<Semaphore>>>,
}

/// Lets another one in when it is dropped.
pub struct GatePermit(#[expect(dead_code, reason = "held, not used")] Option<OwnedSemaphorePermit>);

impl GatePermit {
    /// Lets another one in after this time.
    pub fn drop_after(self, time: Duration) {
        tokio::spawn(async move {
            sleep(time).await;
            drop(self);
        });
    }
}

impl Gate {
    pub(super) fn new(identity_max: Option<usize>) -> Self {
        Self { identity_max, by_identity: Mutex::default() }
    }

    /// Waits until one more of this identity may enter.
    pub async fn enter(&self, identity: &Identity) -> GatePermit {
        let Some(max) = self.identity_max else { return GatePermit(None) };
        // None only if the semaphore were closed, which nothing does.
        GatePermit(self.permits_of(identity, max).acquire_owned().await.ok())
    }

    /// The permits of an identity. They live for as long as somebody has or awaits one.
    fn permits_of(&self, identity: &Identity, max: usize) -> Arc<Semaphore> {
        let mut by_identity = lock(&self.by_identity);
        if let Some(permits) = by_identity.get(identity).and_then(Weak::upgrade) {
            return permits;
        }
        if by_identity.len() >= IDENTITIES_KEPT {
            by_identity.retain(|_, permits| permits.strong_count() > 0);
        }
        let permits = Arc::new(Semaphore::new(max));
        by_identity.insert(identity.clone(), Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_identity_waits_for_itself_only() {
        let gate = Gate::new(Some(2));
        let (one, other) = (Identity::from_stored("one"), Identity::from_stored("other"));
        let first = gate.enter(&one).await;
        let _second = gate.enter(&one).await;
        let mut third = std::pin::pin!(gate.enter(&one));
        assert!((&mut third).now_or_never().is_none());
        gate.enter(&other).await;
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn a_permit_can_be_returned_later() {
        let gate = Gate::new(Some(1));
        let one = Identity::from_stored("one");
        gate.enter(&one).await.drop_after(Duration::from_millis(50));
        let mut second = std::pin::pin!(gate.enter(&one));
        assert!((&mut second).now_or_never().is_none());
        second.await;
    }

    #[tokio::test]
    async fn identities_without_a_permit_are_forgotten() {
        let gate = Gate::new(Some(1));
        let kept = gate.enter(&Identity::from_stored("kept")).await;
        for number in 0..3 * IDENTITIES_KEPT {
            gate.enter(&Identity::from_stored(&number.to_string())).await;
        }
        assert!(lock(&gate.by_identity).len() <= IDENTITIES_KEPT);
        assert!(lock(&gate.by_identity).contains_key(&Identity::from_stored("kept")));
        drop(kept);
    }
}
