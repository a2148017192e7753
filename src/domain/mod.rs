//! The rules of accounts and money. Pure: no clock, no randomness, no I/O, no async.
//!
//! Reading order: [`money`] and [`ids`] (the types that carry their checks), [`account`]
//! and [`hold`], [`command`] (what may be asked), [`book`] (the fold of commands over locked
//! accounts), [`transaction`] (what it leaves behind), [`rejection`] (why not), [`access`]
//! (who may ask for it), [`verification`] and [`books`] (whether what is stored is what it says).

pub mod access;
pub mod account;
pub mod book;
pub mod books;
pub mod command;
pub mod hold;
pub mod ids;
pub mod money;
pub mod rejection;
pub mod transaction;
pub mod verification;

#[cfg(test)]
mod money_tests;
#[cfg(test)]
mod verification_tests;
