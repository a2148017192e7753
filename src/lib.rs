//! Passbook: the one place in a company where account balances change.
//!
//! # The way of a deposit
//!
//! ```text
//! proto request -> grpc (decode: shape errors) -> domain Request -> ledger: line -> worker
//!    worker, a detached task that owns its connection, takes all that waits and is free (1..N):
//!      begin -> lock the touched accounts, one statement, in id order
//!            -> read request ids and holds, if some may be there (later statements)
//!            -> domain: apply each command in turn to the locked accounts, in memory
//!            -> write requests + entries + balances + holds, a constant number of statements
//!            -> commit -> only now answer every caller with its own verdict
//! -> domain result -> grpc (encode) -> proto response
//! ```
//!
//! # Modules, in reading order
//!
//! * [`domain`]: the rules, pure. What money is, when a withdrawal is refused.
//! * [`ledger`]: the write path; the only place that begins and commits.
//! * [`storage`]: everything that knows SeaORM and SQL.
//! * [`grpc`]: the wire, and the only place that knows proto types and statuses.
//! * [`server`], [`config`], [`cli`]: how it is run.
//! * [`telemetry`]: what it tells of itself: log, metrics, traces.
//!
//! Arrows run one way: cli -> server -> grpc -> ledger -> storage, and all may use domain and
//! telemetry.
//! `ARCHITECTURE.md` says what must never happen; `tests/passbook/tidy/` holds the lines.

pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod ledger;
mod lock;
mod panic_message;
pub mod proto;
mod restart;
pub mod server;
pub mod storage;
pub mod telemetry;
mod toml_text;
