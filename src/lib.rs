//! Passbook, a ledger service: the only program of a company that changes account balances.
//!
//! # Modules, in reading order
//!
//! * [`domain`]: the rules, pure. What money is, when a withdrawal is rejected.
//! * [`budget`]: shares of what the server has, for all callers, an identity or a connection.
//! * [`ledger`]: the write path, the only code that begins and commits database transactions.
//! * [`storage`]: everything that knows SeaORM and SQL.
//! * [`audit`]: a line for each change, denial and reload, apart from the log.
//! * [`auth`]: authenticates callers, and authorizes their methods.
//! * [`proto`]: the contract, generated.
//! * [`grpc`]: the wire, the only code that knows messages and statuses.
//! * [`server`]: connections, readiness, shutdown.
//! * [`witness`]: signed heads, which show later whether the ledger was rewritten.
//! * [`config`], [`cli`]: settings and commands.
//! * [`telemetry`]: log, metrics, traces.
//!
//! `ARCHITECTURE.md` has the path of a deposit through these modules, the arrows between them, and
//! the invariants.

#[macro_use]
mod enum_values;

pub mod audit;
pub mod auth;
pub mod budget;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod ledger;
mod lock;
mod network;
mod panic_message;
pub mod proto;
mod regular_file;
mod restart;
pub mod server;
pub mod storage;
pub mod telemetry;
mod toml_text;
pub mod witness;
