//! What the tests call a server with: clients, credentials, certificates, JWTs, raw HTTP/2 frames, the
//! admin port, the console, a collector of its traces, and requests with the usual fields filled in.

pub mod admin;
pub mod certificates;
pub mod chromium;
pub mod console;
pub mod credentials;
mod errors;
mod events;
mod fixtures;
pub mod http2;
pub mod jwt;
mod outcomes;
mod queries;
pub mod raw_codec;
pub mod request;
pub mod seen_events;
mod service_client;
pub mod trace_collector;
mod watch;

pub use errors::*;
pub use events::*;
pub use fixtures::*;
pub use outcomes::*;
pub use queries::*;
pub use request::{Answer, Change, RequestResult};
pub use service_client::{Client, Patient, ServiceClient};
pub use watch::*;
