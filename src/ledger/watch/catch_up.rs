//! Reads the pages that the feed has published before a watcher came, or faster than it could follow.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{
    budget::{Budgets, Gate},
    domain::ids::{AccountId, Identity},
    ledger::watch::{page::Page, read::read, shared::SharedPages},
    storage::{StorageError, Store, WatchedAccount},
};

/// Entries in a page that a watcher reads by itself: as many as always fit into one message, so that a
/// watcher that does not read keeps nothing of the page. Fewer than the contract allows.
pub const WATCHER_PAGE_SIZE: usize = 50;
/// Pages that one watcher has read and others may share: watchers that a restart cut together ask for
/// the same pages again. With [`WATCHER_PAGE_SIZE`] some ten megabytes.
const SHARED_PAGES_MAX: usize = 320;
/// Watchers that read the database at the same time: half of the connections that are reserved for
/// the service. Other watchers wait.
const RESERVED_DIVISOR: u32 = 2;

/// See the module.
pub struct CatchUp {
    store: Arc<Store>,
    reads: Semaphore,
    /// Half of them for the watchers of one identity.
    gate: Gate,
    shared: SharedPages<PageKey, Page>,
}

#[derive(PartialEq)]
struct PageKey {
    account_id: AccountId,
    /// The page begins after this sequence, a multiple of its size.
    after_sequence: i64,
    /// The page was read after the feed had published this entry, which may be the last of the page.
    /// A watcher that comes when the feed is no further needs nothing newer.
    published: i64,
    /// The page was read after so many failovers. A later one may have lost its entries.
    failovers: u64,
}

impl CatchUp {
    pub fn new(store: Arc<Store>, budgets: &Budgets) -> Self {
        let reads_max = (store.connection_counts().reserved / RESERVED_DIVISOR).max(1) as usize;
        let (reads, gate) = (Semaphore::new(reads_max), budgets.gate(reads_max / 2));
        Self { store, reads, gate, shared: SharedPages::new(SHARED_PAGES_MAX) }
    }

    /// Reads a page with the next entries of one account, for a watcher of this identity. The page may
    /// begin with entries that the watcher has. It has all later ones up to `published`, if there is
    /// room for them. There were so many failovers until now.
    pub async fn page_after(
        &self,
        account: &WatchedAccount,
        published: i64,
        failovers: u64,
        identity: &Identity,
    ) -> Result<Page, StorageError> {
        // Taken before the page: others that share the page must not wait for this identity.
        let _own = self.gate.enter(identity).await;
        let size = WATCHER_PAGE_SIZE as i64;
        let start = account.after_sequence - account.after_sequence % size;
        let whole = WatchedAccount { after_sequence: start, ..account.clone() };
        let key = PageKey {
            account_id: account.account_id.clone(),
            after_sequence: start,
            published: published.min(start + size),
            failovers,
        };
        self.shared.get_or_read(key, self.read_page(&whole)).await
    }

    async fn read_page(&self, account: &WatchedAccount) -> Result<Page, StorageError> {
        // Fails only if the semaphore were closed, which nothing does.
        let _permit = self.reads.acquire().await;
        let accounts = std::slice::from_ref(account);
        let pages = read(self.store.new_entries(accounts, WATCHER_PAGE_SIZE)).await?;
        let entries = pages.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(Page::new(entries))
    }
}
