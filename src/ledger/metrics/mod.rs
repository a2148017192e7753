//! What the ledger counts: its write path, and accounts that many want at once.

pub mod contention;
pub mod write_path;
