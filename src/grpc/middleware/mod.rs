//! The layers that every call passes before its RPC, whatever service it is of.

pub mod authentication;
pub mod body_budget;
pub mod call_limit;
pub mod deadline;
pub mod identity_budget;
pub mod telemetry;
pub mod unread_body;
