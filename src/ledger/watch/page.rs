//! A run of entries that all watchers of an account share.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::domain::transaction::Entry;

/// Consecutive entries of one account. A clone shares the entries and their encoding.
#[derive(Clone, Debug)]
pub struct Page {
    run: Arc<Run>,
    /// The entries of the run that are in the page.
    range: Range<usize>,
}

#[derive(Debug)]
struct Run {
    entries: Vec<Entry>,
    encoded: OnceLock<Encoded>,
    /// Of a page of the feed: returned when its last watcher has it.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each entry begins in the bytes, and where the last one ends.
    bounds: Vec<usize>,
}

impl Page {
    /// A page of these entries, which follow on each other.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self::with_room(entries, None)
    }

    /// The same with its share of the room for pages of the feed.
    pub fn with_room(entries: Vec<Entry>, _room: Option<OwnedSemaphorePermit>) -> Self {
        let range = 0..entries.len();
        Self { run: Arc::new(Run { entries, encoded: OnceLock::new(), _room }), range }
    }

    /// Takes the first entries out of the page: as many as have at most `size_max` bytes when they are
    /// encoded, and at least one. Returns their encoding, one after another, and the sequence of the
    /// last one; or None if the page is empty.
    ///
    /// The first caller encodes the run, for all: a thousand watchers of one account would otherwise
    /// encode the same entries a thousand times.
    pub fn take_encoded(
        &mut self,
        size_max: usize,
        encode: impl Fn(&Entry, &mut Vec<u8>),
    ) -> Option<(Bytes, i64)> {
        if self.range.is_empty() {
            return None;
        }
        let Run { entries, encoded, .. } = &*self.run;
        let Encoded { bytes, bounds } = encoded.get_or_init(|| Encoded::of(entries, encode));
        let begin = bounds[self.range.start];
        let fitting = bounds.partition_point(|bound| *bound <= begin.saturating_add(size_max));
        let end = (fitting - 1).clamp(self.range.start + 1, self.range.end);
        self.range.start = end;
        Some((bytes.slice(begin..bounds[end]), entries[end - 1].sequence))
    }

    /// The entries above `sequence`, possibly none. None if entries in between are missing.
    pub fn after(self, sequence: i64) -> Option<Self> {
        let entries = &self.run.entries;
        let start = entries.partition_point(|entry| entry.sequence <= sequence);
        let follows_on = entries.get(start).is_none_or(|next| next.sequence == sequence + 1);
        let range = start..entries.len();
        follows_on.then_some(Self { range, ..self })
    }

    /// Whether the page was read with this many entries.
    pub fn has_length(&self, length: usize) -> bool {
        self.run.entries.len() == length
    }

    /// The sequence of the last entry; None if the page is empty.
    pub fn last_sequence(&self) -> Option<i64> {
        self.run.entries[self.range.clone()].last().map(|entry| entry.sequence)
    }
}

impl Encoded {
    fn of(entries: &[Entry], encode: impl Fn(&Entry, &mut Vec<u8>)) -> Self {
        let (mut bytes, mut bounds) = (Vec::new(), vec![0]);
        for entry in entries {
            encode(entry, &mut bytes);
            bounds.push(bytes.len());
        }
        Self { bytes: bytes.into(), bounds }
    }
}
