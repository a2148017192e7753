//! The wire: requests into domain types, results into responses, failures into statuses.
//! Proto types and `Status` never leave this module; there are no rules in it.

mod account_service;
mod admin_service;
mod answer_size;
mod auth;
mod deadline;
mod decode;
mod encode;
mod leftover;
mod limits;
mod observe;
mod outcomes;
mod page_token;
mod receiving;
mod status;
mod stream;
mod watch;
mod watch_message;

#[cfg(test)]
mod status_tests;

pub use account_service::AccountServiceImpl;
pub use admin_service::AdminServiceImpl;
pub use auth::{
    AuthenticationLayer, Authenticator, Caller, Credentials, Grant, Methods, MethodsError, Peer,
    Permission, Policy, Token, Tokens,
};
pub use deadline::{DeadlinePolicy, stamp};
pub use leftover::{Leftovers, discard};
pub use limits::{CallLimits, LimitLayer};
pub use observe::ObserveLayer;
pub use receiving::{Unfinished, receive};
pub use status::{blame_request, panicked, waiting_for_database};
pub use watch_message::WatchEntriesResponse;
