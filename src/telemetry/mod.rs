//! Telemetry of the process: log, metrics and traces.
//!
//! This module stands beside the layers. `cli` sets up [`log`] and [`metrics`], and all layers write
//! to them through the macros of `tracing` and `metrics`. Only [`traces`] knows OpenTelemetry: `grpc`
//! starts the spans of calls with it, and `ledger` those of database transactions.
//!
//! Telemetry never contains tokens or passwords, at any level. Amounts, account ids and the
//! `request_id` of a change are in no log line at INFO or above, in no metric and in no trace.

pub mod log;
pub mod metrics;
mod stderr;
pub mod traces;
