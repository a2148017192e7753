//! One module a table; the columns are explained in the migration.

pub mod accounts;
pub mod currencies;
pub mod entries;
pub mod number;
pub mod requests;
