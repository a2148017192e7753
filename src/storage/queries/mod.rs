//! What is read, a file a noun. No function here locks (but for `accounts::lock`), begins or
//! commits.
//!
//! `page` bounds what a list reads, `settled_time` waits until the past is complete.

pub mod accounts;
pub mod balance_sums;
pub mod callers;
pub mod currencies;
pub mod effective_times;
pub mod entries;
pub mod events;
pub mod held;
pub mod holds;
pub mod new_entries;
pub mod opening_attributes;
pub mod page;
pub mod requests;
pub mod settled_time;
pub mod transactions;
