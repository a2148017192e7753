//! The wire: decodes requests into domain types, calls the ledger, and encodes results and errors.
//!
//! * `account_service`, `admin_service`: all RPCs. Those with streams are in `stream_transactions`
//!   (together with the batch of postings), `watch_entries` and `watch_events` (`watching` and
//!   `messages` are for both), those that open accounts in `create_accounts`, ListEntries,
//!   ListTransactions and GetBalance in `statements`.
//! * `context`: who calls, and until when.
//! * `decode`, `encode`, `page`: messages from and into domain types.
//! * `error`: errors into statuses. `metrics`: counts of outcomes.
//! * `middleware`: the layers that a call passes before its RPC. `services`: all routes.
//!
//! Messages and `Status` never leave this folder. No rule of money enters it: a malformed value is
//! rejected by the domain type into which it is decoded, everything else by the domain or the ledger.
//! Imports run one way: services -> account_service -> stream_transactions, create_accounts,
//! statements -> decode -> page -> encode -> error.

mod account_service;
mod admin_service;
mod context;
mod create_accounts;
mod decode;
mod encode;
mod error;
mod messages;
mod metrics;
mod middleware;
mod page;
pub mod services;
mod statements;
mod stream_transactions;
mod watch_entries;
mod watch_events;
mod watching;

pub use middleware::{
    StackConfig,
    deadline::{DeadlinePolicy, TIMEOUT_MAX},
    limits::SizeLimits,
    request_body::STREAM_WINDOW,
    stack,
};
