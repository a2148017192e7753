//! The audit log: a line of JSON for each change, each denial and each reload of files, apart from the
//! log. docs/operations/audit.md has the format and what is guaranteed.
//!
//! One thread writes ([`AuditLog`]); calls only put entries into its queue. If the audit log is
//! required, a change waits until a line with its intent is on the disk, and is not begun otherwise.
//! The ledger begins and ends the record of a change, because it alone knows what became of a change
//! whose caller has gone. Denials are limited and counted by caller (`denials`).

mod call;
mod credential;
mod denials;
mod entry;
mod file;
mod log;
mod queue;
mod reloads;
mod source;

pub use crate::audit::{
    call::{Call, PendingChange},
    credential::Credential,
    entry::{Origin, Outcome},
    log::{AuditConfig, AuditLog, Unavailable},
    reloads::Reloads,
    source::Source,
};
