//! Telling of entries as they are made, by this process or another.
//!
//! ```text
//! Watcher: reads what is there, a page at a time, until there is no more;
//!          then takes what the hub tells, and reads again where that does not follow on
//! Hub:     every POLL_INTERVAL one statement for all watched accounts -> a page an account
//!                -> all who watch it
//! ```
//!
//! The hub asks the database and nobody tells it anything: what another server commits is found
//! in the same way as what this one does, and a writer does nothing for those who watch. (NOTIFY
//! would have all commits wait for each other.) It is a short cut, never the truth: a watcher
//! gives out entry n + 1 after entry n and nothing else, wherever it has them from.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, broadcast},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    domain::{account::Account, ids::AccountId, transaction::Entry},
    ledger::Failure,
    storage::{StorageError, Store, WatchedAccount},
};

/// Who may watch at the same time in one process. Each may leave an unread page or two in memory.
pub const WATCHERS_MAX: usize = 10_000;
/// How often the hub asks for what is new. Entries made within it travel together: shorter costs
/// more statements and messages, longer is told later.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The hub rests for this many times as long as it took to ask, at least: with very many accounts
/// it asks less often rather than take the database's time.
const REST_FACTOR: u32 = 3;
/// And no longer than this, however long it took.
const REST_TIME_MAX: Duration = Duration::from_secs(2);
/// Entries that the hub takes in with one statement, of all accounts together.
const POLL_ENTRIES_MAX: usize = 20_000;
/// Entries in a page from the hub: what the contract allows in one message.
const HUB_PAGE_SIZE_MAX: usize = 1000;
/// Entries in a page that a watcher reads for itself. A slow reader leaves one or two of them in
/// memory, of some 200 bytes an entry: less than the contract allows in one message.
const OWN_PAGE_SIZE: usize = 250;
/// Pages that the hub keeps for watchers of an account that are slower than it. Who falls
/// further behind reads the database.
const PAGES_KEPT_MAX: usize = 16;
/// Full pages that watchers have read and others may take: those who were cut together, by a
/// restart say, ask for the same ones again. With [`OWN_PAGE_SIZE`] some ten megabytes.
const SHARED_PAGES_MAX: usize = 64;
/// Watchers that read the database at the same time, of the connections that are reserved for the
/// service: half of them; others wait.
const OWN_READS_SHARE: u32 = 2;
/// How long one read may take before it is given up and made again.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// How long after a failed read the next one is made.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How long the database may stay away until those who watch are told.
const OUTAGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Entries of one account that follow on each other, shared by all who watch it.
#[derive(Debug)]
pub struct Page {
    entries: Vec<Entry>,
    wire_form: OnceLock<Arc<[u8]>>,
}

impl Page {
    fn new(entries: Vec<Entry>) -> Arc<Self> {
        Arc::new(Self { entries, wire_form: OnceLock::new() })
    }

    /// The entries as they travel: made by the first who asks, the same bytes for all others.
    pub fn wire_form(&self, encode: impl FnOnce(&[Entry]) -> Vec<u8>) -> &Arc<[u8]> {
        self.wire_form.get_or_init(|| encode(&self.entries).into())
    }

    /// What is above this sequence, if the page follows on it; an empty one if there is nothing.
    fn after(self: Arc<Self>, sequence: i64) -> Option<Arc<Self>> {
        let known = self.entries.partition_point(|entry| entry.sequence <= sequence);
        match self.entries.get(known) {
            Some(next) if next.sequence != sequence + 1 => None,
            _ if known == 0 => Some(self),
            _ => Some(Self::new(self.entries[known..].to_vec())),
        }
    }

    fn last_sequence(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.sequence)
    }
}

type Told = Result<Arc<Page>, Failure>;

/// One account that someone watches.
struct Watched {
    /// With the last sequence that was told.
    account: WatchedAccount,
    tell: broadcast::Sender<Told>,
}

/// Knows what is watched, and asks for what is new there; one a process.
pub struct Hub {
    store: Arc<Store>,
    watched: Mutex<HashMap<AccountId, Watched>>,
    /// Somebody has begun to watch.
    begun: Notify,
    places: Arc<Semaphore>,
    own_reads: Semaphore,
    shared: Mutex<VecDeque<SharedPage>>,
}

/// A page that never changes any more, read by the first who needs it.
struct SharedPage {
    account_id: AccountId,
    after_sequence: i64,
    page: Arc<OnceCell<Arc<Page>>>,
}

impl Hub {
    /// Starts it.
    pub fn start(store: Arc<Store>) -> Arc<Self> {
        let own_reads_max = (store.budget().reserved / OWN_READS_SHARE).max(1);
        let hub = Arc::new(Self {
            store,
            watched: Mutex::default(),
            begun: Notify::new(),
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
            own_reads: Semaphore::new(own_reads_max as usize),
            shared: Mutex::default(),
        });
        let running = hub.clone();
        tokio::spawn(async move {
            loop {
                let run = running.clone();
                if let Err(error) = tokio::spawn(async move { run.run().await }).await {
                    tracing::error!(%error, "watching panicked and is started again");
                }
                sleep(RETRY_INTERVAL).await;
            }
        });
        hub
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        WATCHERS_MAX - self.places.available_permits()
    }

    /// A place among those who watch.
    ///
    /// # Errors
    /// There is none.
    pub fn place(&self) -> Result<Place, Failure> {
        let place = self.places.clone().try_acquire_owned();
        place.map(Place).map_err(|_| Failure::TooManyWatchers { limit: WATCHERS_MAX })
    }

    /// Begins to watch an account, as it was read just now, from the entry after this one.
    pub fn watch(self: &Arc<Self>, account: Account, after_sequence: i64, place: Place) -> Watcher {
        let Account { account_id, currency, sequence, .. } = account;
        let account = WatchedAccount { account_id, currency, after_sequence };
        let told = {
            let mut watched = self.watched();
            let watched = watched.entry(account.account_id.clone()).or_insert_with(|| Watched {
                account: WatchedAccount { after_sequence: sequence, ..account.clone() },
                tell: broadcast::Sender::new(PAGES_KEPT_MAX),
            });
            watched.tell.subscribe()
        };
        self.begun.notify_one();
        Watcher { hub: self.clone(), account, told, is_behind: true, failing_since: None, place }
    }

    async fn run(&self) {
        let mut failing_since: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let accounts = self.take_stock();
            if accounts.is_empty() {
                self.begun.notified().await;
                continue;
            }
            let told = self.tell_news(accounts, began).await;
            let rest = match told {
                Ok(()) => (began.elapsed() * REST_FACTOR).min(REST_TIME_MAX),
                // What hung was long enough.
                Err(_) => RETRY_INTERVAL,
            };
            match (told, failing_since) {
                (Ok(()), None) => {}
                (Ok(()), Some(_)) => {
                    tracing::info!("those who watch are told of new entries again");
                    failing_since = None;
                }
                (Err(error), None) => {
                    tracing::warn!(
                        error = error.summary(),
                        "cannot read what is new for those who watch"
                    );
                    failing_since = Some(began);
                }
                (Err(error), Some(since)) if since.elapsed() > OUTAGE_TIME_MAX => {
                    self.give_up(&Failure::of_read(error));
                    failing_since = None;
                }
                (Err(_), Some(_)) => {}
            }
            sleep_until((began + POLL_INTERVAL).max(Instant::now() + rest)).await;
        }
    }

    /// What is watched now; what nobody watches any more is forgotten.
    fn take_stock(&self) -> Vec<WatchedAccount> {
        let mut watched = self.watched();
        watched.retain(|_, it| it.tell.receiver_count() > 0);
        watched.values().map(|it| it.account.clone()).collect()
    }

    /// Asks until there is no more, or it is time to look at all accounts again.
    async fn tell_news(
        &self,
        mut accounts: Vec<WatchedAccount>,
        began: Instant,
    ) -> Result<(), StorageError> {
        while !accounts.is_empty() {
            let limit = (POLL_ENTRIES_MAX / accounts.len()).clamp(1, HUB_PAGE_SIZE_MAX);
            let news = read(self.store.new_entries(&accounts, limit)).await?;
            let mut has_more = Vec::new();
            for (account, news) in accounts.into_iter().zip(news) {
                let is_full = news.as_ref().is_ok_and(|entries| entries.len() == limit);
                if let Some(account) = self.tell(account, news)
                    && is_full
                {
                    has_more.push(account);
                }
            }
            if began.elapsed() > POLL_INTERVAL {
                break;
            }
            accounts = has_more;
        }
        Ok(())
    }

    /// Tells all who watch this account; returns it as far as it was told, unless it cannot be
    /// read.
    fn tell(
        &self,
        account: WatchedAccount,
        news: Result<Vec<Entry>, StorageError>,
    ) -> Option<WatchedAccount> {
        let told = match news {
            Ok(entries) if entries.is_empty() => return Some(account),
            Ok(entries) => Ok(Page::new(entries)),
            Err(error) => Err(Failure::of_read(error)),
        };
        let mut all = self.watched();
        let watched = all.get_mut(&account.account_id)?;
        let last = told.as_ref().ok().and_then(|page| page.last_sequence());
        // Fails only if nobody watches it any more.
        let _ = watched.tell.send(told);
        let Some(last) = last else {
            all.remove(&account.account_id);
            return None;
        };
        watched.account.after_sequence = last;
        Some(watched.account.clone())
    }

    /// Ends all who watch.
    fn give_up(&self, failure: &Failure) {
        for (_, watched) in self.watched().drain() {
            // Fails only if nobody watches it any more.
            let _ = watched.tell.send(Err(failure.clone()));
        }
    }

    /// The next entries of one account; a full page is kept for others, if the hub knows that it
    /// is full: what it has told is there and does not change.
    async fn page_after(&self, account: &WatchedAccount) -> Result<Arc<Page>, StorageError> {
        let size = OWN_PAGE_SIZE as i64;
        let start = account.after_sequence - account.after_sequence % size;
        let known = {
            let watched = self.watched();
            watched.get(&account.account_id).map_or(0, |it| it.account.after_sequence)
        };
        if start + size > known {
            return self.read_page(account).await;
        }
        let cell = self.shared_page(&account.account_id, start);
        let whole = WatchedAccount { after_sequence: start, ..account.clone() };
        cell.get_or_try_init(|| self.read_page(&whole)).await.cloned()
    }

    async fn read_page(&self, account: &WatchedAccount) -> Result<Arc<Page>, StorageError> {
        // Fails only if the semaphore were closed, which nobody does.
        let _turn = self.own_reads.acquire().await;
        let news =
            read(self.store.new_entries(std::slice::from_ref(account), OWN_PAGE_SIZE)).await?;
        let entries = news.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(Page::new(entries))
    }

    fn shared_page(&self, account_id: &AccountId, start: i64) -> Arc<OnceCell<Arc<Page>>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |it: &&SharedPage| it.after_sequence == start && it.account_id == *account_id;
        if let Some(found) = shared.iter().rev().find(is_it) {
            return found.page.clone();
        }
        if shared.len() == SHARED_PAGES_MAX {
            shared.pop_front();
        }
        let page = Arc::default();
        let account_id = account_id.clone();
        shared.push_back(SharedPage { account_id, after_sequence: start, page: Arc::clone(&page) });
        page
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<AccountId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who watch, until it is dropped.
pub struct Place(#[expect(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

/// The entries of one account from some sequence on: all of them, each once, in order.
pub struct Watcher {
    hub: Arc<Hub>,
    /// With the last sequence that was given out.
    account: WatchedAccount,
    told: broadcast::Receiver<Told>,
    /// There may be entries that the hub has told, or will not tell.
    is_behind: bool,
    failing_since: Option<Instant>,
    place: Place,
}

impl Watcher {
    /// The last sequence that was given out.
    #[must_use]
    pub fn sequence(&self) -> i64 {
        self.account.after_sequence
    }

    /// The next entries, as soon as there are any. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The database stays away, or it holds what cannot be read.
    pub async fn next(&mut self) -> Result<Arc<Page>, Failure> {
        loop {
            let page = if self.is_behind {
                self.read().await?
            } else {
                match self.told.recv().await {
                    Ok(told) => told?.after(self.sequence()),
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    // The hub says why before it ends; who was too slow to hear it asks again.
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Failure::DatabaseUnavailable(None));
                    }
                }
            };
            let Some(page) = page else {
                self.is_behind = true;
                continue;
            };
            if let Some(last) = page.last_sequence() {
                self.account.after_sequence = last;
                return Ok(page);
            }
        }
    }

    /// Ends it, but for its place.
    #[must_use]
    pub fn end(self) -> Place {
        self.place
    }

    /// Reads the next page from the database; None: try again.
    async fn read(&mut self) -> Result<Option<Arc<Page>>, Failure> {
        match self.hub.page_after(&self.account).await {
            Ok(page) => {
                self.failing_since = None;
                // What is made from now on is told by the hub: it was asked to before this read.
                self.is_behind = page.entries.len() == OWN_PAGE_SIZE;
                Ok(page.after(self.sequence()))
            }
            Err(error) => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if !may_pass(&error) || since.elapsed() > OUTAGE_TIME_MAX {
                    return Err(Failure::of_read(error));
                }
                sleep(RETRY_INTERVAL).await;
                Ok(None)
            }
        }
    }
}

/// A read holds nothing that a dropped future could leak.
async fn read<T>(query: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    let late = |_| StorageError::Unavailable(format!("no answer within {READ_TIME_MAX:?}"));
    timeout(READ_TIME_MAX, query).await.map_err(late)?
}

/// Whether the same read may succeed a little later.
fn may_pass(error: &StorageError) -> bool {
    match error {
        StorageError::LockTimeout(_)
        | StorageError::Aborted(_)
        | StorageError::RepeatedRequest(_)
        | StorageError::Unavailable(_)
        | StorageError::Forbidden(_)
        | StorageError::SchemaNotMigrated(_) => true,
        StorageError::Data(_) | StorageError::Corrupt(_) => false,
    }
}
