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

use crate::{budget::shared_use::SharedUse, domain::ids::Identity, lock::lock};

/// Identities that are remembered. Beyond this number, those without a permit are forgotten.
const IDENTITIES_KEPT: usize = 1000;

/// Lets so many of one identity in at the same time. More of them wait, first come, first served.
pub struct Gate {
    /// None: the gate is open.
    identity_max: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_identity: HashMap<Identity, Weak<Semaphore>>,
    shared_use: SharedUse,
}

/// Lets another one in when it is dropped.
pub struct GatePermit(Option<OwnedSemaphorePermit>);

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
        Self { identity_max, state: Mutex::default() }
    }

    /// Waits until one more of this identity may enter.
    pub async fn enter(&self, identity: &Identity) -> GatePermit {
        self.enter_as(identity, 1).await
    }

    /// The same for one that counts as so many, or as all.
    pub async fn enter_as(&self, identity: &Identity, count: usize) -> GatePermit {
        let Some(max) = self.identity_max else { return GatePermit(None) };
        let count = u32::try_from(count.min(max)).unwrap_or(u32::MAX);
        // None only if the semaphore were closed, which nothing does.
        GatePermit(self.permits_of(identity, max).acquire_many_owned(count).await.ok())
    }

    /// Lets another one in, after this time if `paused_from` or more of the same identity wait while
    /// several identities come to this gate.
    pub fn leave(&self, permit: GatePermit, time: Duration, paused_from: usize) {
        let (Some(max), Some(own)) = (self.identity_max, &permit.0) else { return };
        // Each caller that has or awaits a permit has a reference.
        let used = Arc::strong_count(own.semaphore());
        if used >= max + paused_from && lock(&self.state).shared_use.is_shared() {
            permit.drop_after(time);
        }
    }

    /// The permits of an identity. They are kept while somebody has one or waits for one.
    fn permits_of(&self, identity: &Identity, max: usize) -> Arc<Semaphore> {
        let mut state = lock(&self.state);
        state.shared_use.note(identity);
        let by_identity = &mut state.by_identity;
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
    async fn one_may_count_as_many() {
        let gate = Gate::new(Some(3));
        let one = Identity::from_stored("one");
        let large = gate.enter_as(&one, 2).await;
        let small = gate.enter(&one).await;
        let mut another = std::pin::pin!(gate.enter(&one));
        assert!((&mut another).now_or_never().is_none());
        drop(large);
        let (another, last) = (another.await, gate.enter(&one).await);
        let mut largest = std::pin::pin!(gate.enter_as(&one, 1000));
        assert!((&mut largest).now_or_never().is_none());
        drop((small, another, last));
        largest.await;
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
    async fn permits_rest_only_while_many_wait_beside_others() {
        let gate = Gate::new(Some(1));
        let (busy, other) = (Identity::from_stored("busy"), Identity::from_stored("other"));
        let rest = Duration::from_secs(60);
        let wait = || Box::pin(gate.enter(&busy));
        let first = gate.enter(&busy).await;
        let mut waiting = [wait(), wait()];
        assert!(waiting.iter_mut().all(|it| it.now_or_never().is_none()));
        gate.leave(first, rest, 2);
        let [second, mut third] = waiting;
        let second = second.now_or_never().expect("nobody else comes to this gate");
        gate.enter(&other).await;
        assert!((&mut third).now_or_never().is_none());
        gate.leave(second, rest, 2);
        let third = third.now_or_never().expect("only one waits");
        let mut waiting = [wait(), wait()];
        assert!(waiting.iter_mut().all(|it| it.now_or_never().is_none()));
        gate.leave(third, rest, 2);
        assert!(
            waiting.iter_mut().all(|it| it.now_or_never().is_none()),
            "the permit does not rest"
        );
    }

    #[tokio::test]
    async fn identities_without_a_permit_are_forgotten() {
        let gate = Gate::new(Some(1));
        let kept = gate.enter(&Identity::from_stored("kept")).await;
        for number in 0..3 * IDENTITIES_KEPT {
            gate.enter(&Identity::from_stored(&number.to_string())).await;
        }
        assert!(lock(&gate.state).by_identity.len() <= IDENTITIES_KEPT);
        assert!(lock(&gate.state).by_identity.contains_key(&Identity::from_stored("kept")));
        drop(kept);
    }
}
