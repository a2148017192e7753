//! The one way to change anything.
//!
//! ```text
//!  enqueue -> queue -> worker -> executor { transaction } -> complete
//!               ^        |
//!               |        +- rows locked by another program: jobs parked, a lock wait waits for the row
//!               |        +- any other error: a retry repeats the batch
//!               +--------+- rows locked by another server: jobs back into the queue
//! ```
//!
//! # Round trips of a batch on PostgreSQL, however many jobs it has
//!
//! | step | statements |
//! |---|---|
//! | begin | 1 |
//! | take the turn | 1, only while servers collide |
//! | lock the accounts, read the clock | 1 |
//! | read records | 1 to 3, only if a request may be a repeat |
//! | read holds | 1, only if holds are named or accounts have holds |
//! | read transactions to reverse, their reversals, openings | 1 each, if needed; 1 more after partial reversals |
//! | read changes of accounts | 1, only if an update may have been committed before |
//! | write the commit, requests, entries, balances | 1, and 1 each for new accounts, holds, changes of accounts |
//! | commit | 1 |
//!
//! A change of an account is also that a forced request takes it below its limit, or that it gets above.
//!
//! After a collision with another server, locking takes 1 to 3 more: who has locked the rows that were
//! not granted, and whether they are free now.
//!
//! `tests/passbook/concurrency/round_trips.rs` counts them.
//!
//! In here: what happens to a job between the queue and its result. Not in here: SQL, rules about
//! money, types of the wire.

mod audited;
mod executor;
#[cfg(test)]
pub mod failpoints;
mod fair_queue;
#[cfg(test)]
mod fair_queue_tests;
pub mod job;
mod lock_wait;
pub mod queue;
#[cfg(test)]
mod queue_tests;
mod records;
mod retry;
mod shared;
#[cfg(test)]
mod tests;
pub mod transaction;
mod turns;
mod worker;

pub use shared::WritePath;
