//! The conformance suite: the real server, as processes of its own, on real databases.
//!
//! One folder per kind of promise, and in `rpc/` one file per RPC. Tests of behavior that both
//! databases share run on both (`on_both_databases!`). `scripts/test` starts the PostgreSQL.

mod harness;

mod concurrency;
mod faults;
mod operations;
mod rpc;
mod security;
mod validation;

mod tidy;
