//! Pages that one watcher has read and others share.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use crate::lock::lock;

/// The pages that were asked for last, each by its key.
pub struct SharedPages<Key, Page> {
    pages: Mutex<VecDeque<(Key, Arc<OnceCell<Page>>)>>,
    pages_max: usize,
}

impl<Key: PartialEq, Page: Clone> SharedPages<Key, Page> {
    /// Keeps at most so many pages.
    pub fn new(pages_max: usize) -> Self {
        Self { pages: Mutex::default(), pages_max }
    }

    /// The page with this key, which the first watcher that needs it reads. An error is not kept.
    pub async fn get_or_read<E>(
        &self,
        key: Key,
        read: impl Future<Output = Result<Page, E>>,
    ) -> Result<Page, E> {
        self.cell(key).get_or_try_init(|| read).await.cloned()
    }

    /// Drops all pages. A page that is being read meanwhile is not kept.
    pub fn clear(&self) {
        lock(&self.pages).clear();
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Page>> {
        let mut pages = lock(&self.pages);
        if let Some((_, known)) = pages.iter().rev().find(|(it, _)| *it == key) {
            return known.clone();
        }
        if pages.len() == self.pages_max {
            pages.pop_front();
        }
        let page = Arc::<OnceCell<Page>>::default();
        pages.push_back((key, page.clone()));
        page
    }
}
