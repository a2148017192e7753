//! The rules of accounts and money. Pure: no clock, no randomness, no I/O, no async.
//!
//! Reading order: [`money`] and [`ids`] (the types that carry their checks), [`account`]
//! and [`hold`], [`command`] (the changes), [`unit_of_work`] (applies commands to locked
//! accounts), [`transaction`] (what it leaves behind), [`rejection`] (why not), [`query`]
//! (what lists select), [`authorization`] (rights of callers), [`verification`] (checks of what is stored).
//!
//! In here: rules as functions of their arguments. Not in here: anything of the wire, the database
//! or the runtime.

pub mod account;
pub mod authorization;
pub mod command;
pub mod hold;
pub mod ids;
pub mod money;
pub mod query;
pub mod rejection;
pub mod transaction;
pub mod unit_of_work;
pub mod verification;

#[cfg(test)]
mod money_tests;
