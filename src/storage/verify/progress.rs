//! The progress of a verification.

use std::sync::atomic::AtomicU64;

/// The progress of a verification.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// The number of entries by the accounts' rows. Each entry is read twice.
    pub entries: AtomicU64,
    /// The number of entries read so far: by account, and by the names in requests.
    pub looked_at: AtomicU64,
}
