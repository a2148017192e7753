//! The conformance suite: the real server, as processes of its own, on real databases.
//!
//! One folder per kind of promise, and in `rpc/` one file per RPC. Tests of behavior that both
//! databases share run on both (`on_both_databases!`). `scripts/test` starts the PostgreSQL.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test ends with a panic, and goes behind the program's back"
)]

mod harness;

mod attacks;
mod concurrency;
mod console;
mod faults;
mod operations;
mod rpc;
mod security;
mod terminal;
mod validation;

mod tidy;
