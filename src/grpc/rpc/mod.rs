//! The bodies of AccountService's RPCs, one file for each shape.
//!
//! An RPC splits its request into context and message, decodes, calls the ledger, and encodes. Rules belong to the
//! domain, and the order of locks and commits to the ledger.

pub mod commands;
pub mod queries;
pub mod stream_transactions;
pub mod watch_entries;
