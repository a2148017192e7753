//! One module a table; the columns are explained in the migration.

pub mod account_changes;
pub mod accounts;
pub mod currencies;
pub mod entries;
pub mod holds;
pub mod number;
pub mod requests;
