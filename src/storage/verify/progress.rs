//! The progress of a verification.

use std::sync::atomic::AtomicU64;

/// The progress of a verification.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    /// How many entries, and names of entries in requests, will be read.
    pub expected: AtomicU64,
    /// How many were read so far.
    pub read: AtomicU64,
}
