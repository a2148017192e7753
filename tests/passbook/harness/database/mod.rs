//! A database for each test, and what the tests read from its tables by SQL, past the service: a
//! dump of the whole ledger, a checker that recomputes it, and tampering with rows.

pub mod checker;
pub mod decimal;
pub mod ledger_dump;
mod tampering;
mod test_database;

pub use tampering::{Tampering, fingerprint_of_hold};
pub use test_database::*;
