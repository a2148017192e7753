//! Passbook, a ledger service: the only program of a company that changes account balances.
//!
//! # The way of a deposit
//!
//! ```text
//! proto request -> grpc (decode: shape errors) -> domain Request -> ledger: queue -> worker
//!    worker, a detached task that owns its connection, takes all queued jobs with free accounts:
//!      begin -> lock the touched accounts, one statement, in id order
//!            -> read request ids and holds that may exist (later statements)
//!            -> domain: apply each command in turn to the locked accounts, in memory
//!            -> write requests + entries + balances + holds, a constant number of statements
//!            -> commit -> only then complete every job with its own result
//! -> domain result -> grpc (encode) -> proto response
//! ```
//!
//! # Modules, in reading order
//!
//! * [`domain`]: the rules, pure. What money is, when a withdrawal is rejected.
//! * [`ledger`]: the write path, the only code that begins and commits database transactions.
//! * [`storage`]: everything that knows SeaORM and SQL.
//! * [`auth`]: authenticates callers, and authorizes their methods.
//! * [`proto`]: the contract, generated.
//! * [`grpc`]: the wire, the only code that knows messages and statuses.
//! * [`server`]: connections, readiness, shutdown.
//! * [`config`], [`cli`]: settings and commands.
//! * [`telemetry`]: log, metrics, traces.
//!
//! Imports run one way: cli -> server -> grpc -> ledger -> storage. All of them may use domain and
//! telemetry. `ARCHITECTURE.md` has the invariants; `tests/passbook/tidy/` checks the rules.

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
