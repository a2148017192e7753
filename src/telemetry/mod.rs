//! What the process tells of itself: its log, its metrics, its traces.
//!
//! Beside the layers rather than in one: [`log`] and [`metrics`] are set up by `cli`, and then
//! written to by everyone through the macros of `tracing` and `metrics`. [`traces`] is the only
//! place that knows OpenTelemetry; `grpc` begins a call's span with it, `ledger` a transaction's.
//!
//! What must never be told: tokens and passwords, at any level; amounts, account ids and the
//! ledger's request ids, at info or above, in a metric or in a trace.

pub mod log;
pub mod metrics;
pub mod traces;
