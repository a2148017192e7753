//! Who may run at the same time: tests that start many processes or measure time would disturb
//! each other on a small machine.

use std::{sync::LazyLock, thread::available_parallelism, time::Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::times;

/// How much of the machine a test takes.
#[derive(Clone, Copy, Debug)]
pub enum Weight {
    /// One server and a few calls.
    Light,
    /// Several servers under load.
    Heavy,
    /// It measures time: nothing beside it where times count.
    Alone,
}

/// What a heavy test takes.
const HEAVY: u32 = 2;
/// Most tests wait most of the time, for a time-out or for the disk. With fewer the cores are idle;
/// with more each test takes longer.
const PLACES_PER_CORE: u32 = 3;
/// A heavy test may have 40 connections to the one PostgreSQL, which takes 300.
const PLACES_MAX: u32 = 12;

static PLACES: LazyLock<u32> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    cores.saturating_mul(PLACES_PER_CORE).min(PLACES_MAX)
});

static SEMAPHORE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*PLACES as usize));

/// Given back when dropped. A test takes one only, with its first database: two would be able to
/// wait for each other for ever.
pub struct Turn {
    began: Instant,
    _places: SemaphorePermit<'static>,
}

pub async fn take(weight: Weight) -> Turn {
    let places = match weight {
        Weight::Light => 1,
        Weight::Alone if times::count() => *PLACES,
        Weight::Heavy | Weight::Alone => HEAVY,
    };
    let _places = SEMAPHORE.acquire_many(places).await.expect("the semaphore is never closed");
    Turn { began: Instant::now(), _places }
}

impl Drop for Turn {
    /// What the test itself took: what the test runner says of it is with the wait for its turn.
    fn drop(&mut self) {
        let (thread, taken) = (std::thread::current(), self.began.elapsed().as_secs_f64());
        println!("turn: {taken:.1} s, {}", thread.name().unwrap_or_default());
    }
}
