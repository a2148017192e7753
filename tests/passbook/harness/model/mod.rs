//! A sequential model of the contract, and random histories of calls to compare the service with.

mod accounts;
pub mod caller;
pub mod command;
pub mod double_entry;
mod events;
mod holds;
mod money;
pub mod random;
mod reads;
mod requests;
mod reversals;
mod state;

pub use state::*;
