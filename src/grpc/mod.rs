//! The wire: requests into domain types, results into responses, failures into statuses.
//! Proto types and `Status` never leave this module; there are no rules in it.

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
