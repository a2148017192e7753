//! The conformance suite: the real server, as processes of its own, on real databases.
//!
//! A folder a kind of promise, and in `rpc/` one file an RPC. Each test runs on SQLite and on PostgreSQL where
//! both have the behaviour (`on_both_databases!`). `scripts/test` brings the PostgreSQL.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test ends with a panic, and goes behind the program's back"
)]

mod harness;

mod concurrency;
mod faults;
mod operations;
mod rpc;
mod security;
mod validation;

mod tidy;
