//! The record of the reloads of files.

use std::sync::Arc;

use crate::audit::{AuditLog, Source};

/// Files that are in force together, and the record of their reloads.
pub struct Reloads {
    log: Option<Arc<AuditLog>>,
    in_force: Vec<Source>,
}

impl Reloads {
    /// The record of these files.
    #[must_use]
    pub fn new(log: Option<Arc<AuditLog>>, in_force: Vec<Source>) -> Self {
        Self { log, in_force }
    }

    /// Records that the files have a new content, and whether it is in force now, or why not. The
    /// content that is in force already gets no line.
    pub fn record<T>(&mut self, read: Vec<Source>, result: &Result<T, String>) {
        let Some(log) = &self.log else { return };
        let is_same = |(old, new): (&Source, &Source)| old.sha256 == new.sha256;
        if result.is_ok() && self.in_force.iter().zip(&read).all(is_same) {
            return;
        }
        log.reloaded(&self.in_force, &read, result.as_ref().err());
        if result.is_ok() {
            self.in_force = read;
        }
    }
}
