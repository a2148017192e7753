//! A run of entries that all watchers of an account share.

use std::sync::{Arc, OnceLock};

use crate::domain::transaction::Entry;

/// Consecutive entries of one account.
#[derive(Debug)]
pub struct Page {
    entries: Vec<Entry>,
    encoded: OnceLock<Arc<[u8]>>,
}

impl Page {
    /// A page of these entries, which follow on each other.
    pub fn new(entries: Vec<Entry>) -> Arc<Self> {
        Arc::new(Self { entries, encoded: OnceLock::new() })
    }

    /// The encoded entries. The first caller encodes them for all: a thousand watchers of one
    /// account would otherwise encode the same bytes a thousand times.
    pub fn encoded(&self, encode: impl FnOnce(&[Entry]) -> Vec<u8>) -> &Arc<[u8]> {
        self.encoded.get_or_init(|| encode(&self.entries).into())
    }

    /// The entries above `sequence`, possibly none. None if entries in between are missing.
    pub fn after(self: Arc<Self>, sequence: i64) -> Option<Arc<Self>> {
        let known = self.entries.partition_point(|entry| entry.sequence <= sequence);
        match self.entries.get(known) {
            Some(next) if next.sequence != sequence + 1 => None,
            _ if known == 0 => Some(self),
            _ => Some(Self::new(self.entries[known..].to_vec())),
        }
    }

    /// Whether the page has this many entries.
    pub fn has_length(&self, length: usize) -> bool {
        self.entries.len() == length
    }

    /// The sequence of the last entry; None if the page is empty.
    pub fn last_sequence(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.sequence)
    }
}
