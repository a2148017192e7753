//! Rows of the tables, a file each, and their conversion to types of the domain. The migration
//! explains the columns. No entity leaves storage.

pub mod account_changes;
pub mod accounts;
pub mod commits;
pub mod currencies;
pub mod details;
pub mod entries;
pub mod holds;
pub mod number;
pub mod requests;
