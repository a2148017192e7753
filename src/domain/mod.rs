//! The rules of accounts and money. Pure: no clock, no randomness, no I/O, no async.
//!
//! Reading order: [`money`] and [`ids`] (the types that carry their checks), [`text`] (labels and
//! texts for people), [`account`] and [`hold`], [`command`] (the changes), [`fingerprint`] (whether a
//! repeat is the same), [`unit_of_work`] (applies commands to locked accounts), [`balancing`] (sums of
//! zero), [`transaction`] (what it leaves behind), [`effective_time`] (when that counts), [`rejection`]
//! (why not), [`event`] (what happened), [`query`] (what lists select), [`balance_sum`] (what they
//! add up to), [`authorization`] (rights of callers), [`verification`] (checks of what is stored),
//! [`hex`] (bytes as text).
//!
//! In here: rules as functions of their arguments. Not in here: anything of the wire, the database
//! or the runtime.

pub mod account;
pub mod authorization;
pub mod balance_sum;
pub mod balancing;
pub mod command;
pub mod effective_time;
pub mod event;
pub mod fingerprint;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod hex;
pub mod hold;
pub mod ids;
pub mod money;
pub mod query;
pub mod rejection;
pub mod text;
pub mod transaction;
pub mod unit_of_work;
pub mod verification;

#[cfg(test)]
mod money_tests;
