//! How far a verification is.

use std::sync::atomic::AtomicU64;

/// How far a verification is.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// Entries that the accounts' rows count. Each is looked at twice.
    pub entries: AtomicU64,
    /// Entries that were looked at: along their accounts, and by the names that requests have
    /// for them.
    pub looked_at: AtomicU64,
}
