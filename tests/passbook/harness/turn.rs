//! Who may run at the same time: tests that start many processes or measure time would disturb
//! each other on a small machine.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How much of the machine a test takes.
#[derive(Clone, Copy, Debug)]
pub enum Weight {
    /// One server and a few calls.
    Light = 1,
    /// Several servers under load: no second one of these beside it.
    Heavy = 3,
    /// It measures time: nothing beside it.
    Alone = PLACES as isize,
}

const PLACES: usize = 4;

static SEMAPHORE: Semaphore = Semaphore::const_new(PLACES);

/// Given back when dropped. A test takes one only, with its first database: two would be able to
/// wait for each other for ever.
pub type Turn = SemaphorePermit<'static>;

pub async fn take(weight: Weight) -> Turn {
    SEMAPHORE.acquire_many(weight as u32).await.expect("the semaphore is never closed")
}
