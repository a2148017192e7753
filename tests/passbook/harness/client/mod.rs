//! What the tests call a server with: clients, credentials, certificates, raw HTTP/2 frames, the
//! admin port, a collector of its traces, and requests with the usual fields filled in.

pub mod admin;
pub mod certificates;
pub mod change;
pub mod credentials;
mod fixtures;
mod holds;
pub mod http2;
pub mod request;
pub mod trace_collector;

pub use change::{Answer, Change, Verdict};
pub use fixtures::*;
pub use holds::*;
