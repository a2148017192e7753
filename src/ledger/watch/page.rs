//! A run of entries that all watchers of an account share.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::transaction::Entry;

/// Consecutive entries of one account. A clone shares the entries and their encoding.
#[derive(Clone, Debug)]
pub struct Page {
    run: Arc<Run>,
    /// How many entries at the beginning of the run are left out.
    skipped: usize,
}

#[derive(Debug)]
struct Run {
    entries: Vec<Entry>,
    encoded: OnceLock<Encoded>,
}

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each entry begins in the bytes.
    starts: Vec<usize>,
}

impl Page {
    /// A page of these entries, which follow on each other.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { run: Arc::new(Run { entries, encoded: OnceLock::new() }), skipped: 0 }
    }

    /// The encoded entries, one after another. The first caller encodes them, for all: a thousand
    /// watchers of one account would otherwise encode the same entries a thousand times.
    pub fn encoded(&self, encode: impl Fn(&Entry, &mut Vec<u8>)) -> Bytes {
        let encoded = self.run.encoded.get_or_init(|| {
            let mut bytes = Vec::new();
            let encode = |entry: &Entry| {
                let start = bytes.len();
                encode(entry, &mut bytes);
                start
            };
            let starts = self.run.entries.iter().map(encode).collect();
            Encoded { bytes: bytes.into(), starts }
        });
        let start = encoded.starts.get(self.skipped).copied();
        encoded.bytes.slice(start.unwrap_or(encoded.bytes.len())..)
    }

    /// The entries above `sequence`, possibly none. None if entries in between are missing.
    pub fn after(self, sequence: i64) -> Option<Self> {
        let skipped = self.run.entries.partition_point(|entry| entry.sequence <= sequence);
        let next = self.run.entries.get(skipped);
        let follows_on = next.is_none_or(|next| next.sequence == sequence + 1);
        follows_on.then_some(Self { skipped, ..self })
    }

    /// Whether the page was read with this many entries.
    pub fn has_length(&self, length: usize) -> bool {
        self.run.entries.len() == length
    }

    /// The sequence of the last entry; None if the page is empty.
    pub fn last_sequence(&self) -> Option<i64> {
        self.run.entries[self.skipped..].last().map(|entry| entry.sequence)
    }
}
