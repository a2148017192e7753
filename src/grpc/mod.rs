//! The wire: decodes requests into domain types, calls the ledger, and encodes results and errors.
//!
//! * `account_service`, `admin_service`: the tables of RPCs. Their bodies are in `rpc`.
//! * `decode`, `encode`, `page`: messages from and into domain types.
//! * `error`: errors into statuses. `metrics`: counts of outcomes.
//! * `middleware`: the layers that a call passes before its RPC. `services`: all routes.
//!
//! Messages and `Status` never leave this folder. No rule of money enters it: a malformed value is
//! rejected by the domain type into which it is decoded, everything else by the domain or the ledger.
//! Imports run one way: services -> account_service -> rpc -> decode -> page -> encode -> error.

mod account_service;
mod admin_service;
mod context;
mod decode;
mod encode;
mod error;
mod metrics;
mod middleware;
mod page;
mod page_token;
mod rpc;
pub mod services;

pub use middleware::{StackConfig, call_limit::CallLimits, deadline::DeadlinePolicy, stack};
