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
mod rpc;

pub use account_service::AccountServiceImpl;
pub use admin_service::AdminServiceImpl;
pub use error::{panic_response, remap_protocol_errors, waiting_for_database};
pub use middleware::{
    authentication::AuthenticationLayer,
    body_budget::BodyBudget,
    call_limit::{CallLimits, LimitLayer},
    deadline::{DeadlinePolicy, stamp},
    telemetry::ObserveLayer,
    unread_body::{Leftovers, discard},
};
