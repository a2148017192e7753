//! The room for the pages that the feed keeps for watchers that are slower than the feed.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    domain::transaction::Entry,
    ledger::watch::{catch_up::WATCHER_PAGE_SIZE, page::Page},
};

/// Entries that all pages of the feed keep together, some 350 bytes each. Small pages, which accounts with
/// few changes have, may have as many again. Beside them each page without room keeps one. With more, slow
/// watchers take more memory; with fewer, watchers read the database while many others are slow.
const ENTRIES_KEPT_MAX: usize = 50_000;

/// See the module.
pub struct Room {
    /// A permit for each entry, those for small pages included.
    permits: Arc<Semaphore>,
    /// The permits that only small pages may have.
    for_small_pages: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(ENTRIES_KEPT_MAX)
    }
}

impl Room {
    fn of(max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(2 * max)), for_small_pages: max }
    }

    /// A page of these entries, of which there is at least one. If there is no room for them, it has only
    /// the last one: watchers find that entries are missing, and read the database.
    pub fn page(&self, mut entries: Vec<Entry>) -> Page {
        let is_small = entries.len() <= WATCHER_PAGE_SIZE;
        let left = if is_small { 0 } else { self.for_small_pages };
        let has_room = self.permits.available_permits() >= entries.len() + left;
        let count = u32::try_from(entries.len()).ok().filter(|_| has_room);
        let room = count.and_then(|it| self.permits.clone().try_acquire_many_owned(it).ok());
        if room.is_none() {
            entries = entries.split_off(entries.len().saturating_sub(1));
        }
        Page::with_room(entries, room)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::domain::{
        fixtures::{transaction, usd},
        transaction::TransactionKind,
    };

    fn entry(sequence: i64) -> Entry {
        let posting = transaction(TransactionKind::Posting, &usd(), &[("a", "1.00")]);
        Entry { sequence, ..posting.entries[0].clone() }
    }

    #[test]
    fn pages_without_room_have_only_their_last_entry() {
        let room = Room::of(100);
        let page = |sequences: RangeInclusive<i64>| room.page(sequences.map(entry).collect());
        let large = page(1..=60);
        let second = page(61..=120);
        assert!(second.clone().after(60).is_none(), "entries are missing");
        assert_eq!(second.clone().after(119).and_then(|it| it.last_sequence()), Some(120));
        let small = page(121..=130);
        assert!(small.clone().after(120).is_some(), "a small page has more room");
        drop((large.clone(), second, small));
        assert!(page(121..=180).after(120).is_none(), "the first page is kept");
        drop(large);
        assert!(page(121..=180).after(120).is_some());
    }
}
