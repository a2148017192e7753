//! RPCs that are more than decode, execute, encode: those with streams.

pub mod stream_transactions;
pub mod watch_entries;
