//! The one way to change anything: a queue, workers that take all that waits into one
//! transaction, and what becomes of batches that failed or met a lock.

pub mod executor;
#[cfg(test)]
pub mod failpoints;
pub mod job;
mod lock_wait;
pub mod queue;
#[cfg(test)]
mod queue_tests;
mod retry;
#[cfg(test)]
mod tests;
pub mod transaction;
mod turns;
pub mod worker;
