//! Limits how many tests run at the same time: those that start many processes or measure time would
//! disturb each other on a small machine.

use std::{
    io::Write,
    process::exit,
    sync::{
        LazyLock,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::times;

/// How much of the machine a test takes.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// One server and a few calls.
    Light,
    /// Several servers under load.
    Heavy,
    /// The test measures time: it runs alone where times are asserted.
    Alone,
}

/// Permits of a heavy test.
const HEAVY: u32 = 2;
/// Most tests wait most of the time, for a timeout or for the disk. With fewer permits the cores
/// are idle; with more each test takes longer.
const PERMITS_PER_CORE: u32 = 3;
/// A heavy test may have 40 connections to the one PostgreSQL, which takes 300.
const PERMITS_MAX: u32 = 12;

/// A test that runs longer hangs: the slowest takes a minute, or three on a busy machine. Too low ends
/// a run on a slow machine; too high leaves the run to CI's timeout, which does not name the test.
const TEST_TIME_MAX: Duration = Duration::from_secs(15 * 60);

static PERMITS: LazyLock<u32> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    cores.saturating_mul(PERMITS_PER_CORE).min(PERMITS_MAX)
});

static SEMAPHORE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*PERMITS as usize));

/// A test's share of the machine, returned when dropped. A test takes only one, with its first
/// database: tests that take two could deadlock.
pub struct Slot {
    started_at: Instant,
    _permits: SemaphorePermit<'static>,
    /// Dropped with the slot.
    _running: Sender<()>,
}

pub async fn take(load: Load) -> Slot {
    let permits = match load {
        Load::Light => 1,
        Load::Alone if times::count() => *PERMITS,
        Load::Heavy | Load::Alone => HEAVY,
    };
    let _permits = SEMAPHORE.acquire_many(permits).await.expect("the semaphore is never closed");
    Slot { started_at: Instant::now(), _permits, _running: end_the_run_if_this_hangs() }
}

/// Ends the whole run and names the test if it takes too long, unless the result is dropped before.
#[expect(clippy::exit, reason = "the runner has no other end for a test that hangs")]
fn end_the_run_if_this_hangs() -> Sender<()> {
    let (running, ended) = channel();
    let test = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(TEST_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
            // The test runner captures what the macros print.
            let _ = writeln!(std::io::stderr(), "HANGS: {test}, for {TEST_TIME_MAX:?}");
            exit(1);
        }
    });
    running
}

impl Drop for Slot {
    /// Prints how long the test ran. The test runner's own figure includes the wait for the slot.
    fn drop(&mut self) {
        let (test, taken) = (thread::current(), self.started_at.elapsed().as_secs_f64());
        println!("slot: {taken:.1} s, {}", test.name().unwrap_or_default());
    }
}
