//! What is read, a file a noun: no locks, no transactions of its own.

pub mod accounts;
pub mod callers;
pub mod currencies;
pub mod entries;
pub mod holds;
pub mod new_entries;
pub mod opening_attributes;
pub mod page;
pub mod requests;
pub mod settled_time;
pub mod transactions;
