//! Lists are paged while two servers add to them. No row from before the start is skipped, and none
//! is repeated. Pages alternate between the servers.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use tokio::task::JoinSet;

use crate::harness::{checker::hex, *};

/// The minimum of rows before the paging begins.
const TRANSACTIONS_BEFORE: usize = 60;
const HOLDS_BEFORE: usize = 40;
/// Pages that are read while writers add rows. Then the writers pause, and the paging continues to
/// its end.
const PAGES_UNDER_WRITES: usize = 40;
const PAGE_SIZE: i32 = 3;
/// More than any list here has.
const PAGES_MAX: usize = 5_000;
const TASKS_PER_SERVER: usize = 2;

on_both_databases! {
    an_ascending_statement_sees_all_that_is_added_until_it_catches_up,
    a_descending_statement_goes_back_to_the_first_entry_without_a_gap,
    transactions_of_one_account_are_each_listed_once,
    transactions_of_all_accounts_are_each_listed_once,
    holds_are_each_listed_once,
    holds_that_stay_in_a_state_are_each_listed_once,
}

/// What the writers have been acknowledged.
#[derive(Clone, Default)]
struct Made {
    transactions: Vec<Transaction>,
    /// Holds that no writer ends.
    left_open: Vec<Hold>,
    captured: Vec<Hold>,
    released: Vec<Hold>,
    /// Short holds: some expire before the paging, some during it.
    expiring: Vec<Hold>,
}

impl Made {
    fn holds(&self) -> impl Iterator<Item = &Hold> {
        let ended = self.captured.iter().chain(&self.released).chain(&self.expiring);
        self.left_open.iter().chain(ended)
    }

    /// The database shares this machine's clock.
    fn expired(&self) -> impl Iterator<Item = &Hold> {
        let now = SystemTime::now();
        self.expiring.iter().filter(move |hold| {
            let time = hold.expire_time.expect("a time");
            SystemTime::try_from(time).expect("within range") < now
        })
    }

    fn count(&self) -> usize {
        self.transactions.len() + self.holds().count()
    }
}

/// Writers on both servers that change the account `busy` until they are dropped.
struct Writers {
    clients: Vec<Client>,
    made: Arc<Mutex<Made>>,
    paused: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    _servers: Vec<Server>,
}

impl Writers {
    /// Two servers on this database, with some rows of every kind.
    async fn start(database: &TestDatabase) -> Self {
        let servers = Server::start_fleet(database, 2).await;
        let clients: Vec<Client> = servers.iter().map(Server::client).collect();
        open_with_overdraft(&clients[0], "busy", "1000000").await;
        open_with_overdraft(&clients[0], "other", "1000000").await;
        let mut random = fastrand::Rng::with_seed(seed());
        let (made, paused) = (Arc::<Mutex<Made>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for client in clients.iter().cycle().take(clients.len() * TASKS_PER_SERVER) {
            let writer = Writer { client: client.clone(), made: made.clone() };
            tasks.spawn(writer.write(random.fork(), paused.clone()));
        }
        let writers = Self { clients, made, paused, tasks, _servers: servers };
        eventually("there is something to list", async || {
            let made = writers.made();
            let ended = made.captured.len().min(made.released.len()).min(made.expired().count());
            made.transactions.len() >= TRANSACTIONS_BEFORE
                && made.holds().count() >= HOLDS_BEFORE
                && ended > 3
        })
        .await;
        writers
    }

    fn made(&self) -> Made {
        self.made.lock().expect("the lock").clone()
    }

    /// Reads all pages, alternating between the servers, while rows are added.
    async fn pages<Item: Debug>(
        &mut self,
        ask: impl AsyncFn(Client, String) -> (Vec<Item>, String),
    ) -> Vec<Item> {
        let (mut items, mut page_token) = (Vec::new(), String::new());
        let began_with = self.made().count();
        for page in 0..PAGES_MAX {
            if page < PAGES_UNDER_WRITES {
                let before = self.made().count();
                let more = async || self.made().count() > before;
                eventually("rows are added", more).await;
            } else {
                self.paused.store(true, Relaxed);
            }
            let client = self.clients[page % self.clients.len()].clone();
            let (rows, next_page_token) = ask(client, page_token).await;
            assert!(rows.len() <= PAGE_SIZE as usize, "a page of {}", rows.len());
            items.extend(rows);
            page_token = next_page_token;
            if page_token.is_empty() {
                let (pages, added) = (page + 1, self.made().count() - began_with);
                println!("{} in {pages} pages while {added} were added", items.len());
                assert!(pages > 3 && added > 3, "too few rows were added to be meaningful");
                assert!(self.tasks.try_join_next().is_none(), "a writer has failed");
                self.paused.store(false, Relaxed);
                return items;
            }
        }
        panic!("paging does not end");
    }
}

/// One writer that makes one change after another.
struct Writer {
    client: Client,
    made: Arc<Mutex<Made>>,
}

impl Writer {
    async fn write(mut self, mut random: fastrand::Rng, paused: Arc<AtomicBool>) {
        loop {
            tokio::time::sleep(ms(random.u64(1..8))).await;
            match random.u8(0..6) {
                _ if paused.load(Relaxed) => {}
                0..3 => self.hold(&mut random).await,
                _ => self.post(&mut random).await,
            }
        }
    }

    async fn post(&mut self, random: &mut fastrand::Rng) {
        let client = &mut self.client;
        let transaction = match random.u8(0..4) {
            0 => {
                let answer = client.deposit(deposit("busy", "1")).await;
                answer.expect("applied").transaction
            }
            1 => {
                let answer = client.transfer(transfer("busy", "other", "1")).await;
                answer.expect("applied").transaction
            }
            // Several entries on one account, which a page may split.
            2 => {
                let legs = [leg("busy", "2"), leg("other", "1"), leg("busy", "-1")];
                let answer = client.post_transaction(post(&legs)).await;
                answer.expect("applied").transaction
            }
            _ => {
                let answer = client.deposit(deposit("other", "1")).await;
                answer.expect("applied").transaction
            }
        };
        let mut made = self.made.lock().expect("the lock");
        made.transactions.push(transaction.expect("a transaction"));
    }

    /// Places a hold with an id anywhere in the order, and may end it at once.
    async fn hold(&mut self, random: &mut fastrand::Rng) {
        let hold_id = format!("{:08x}", random.u32(..));
        let expire_time =
            (random.u8(0..4) == 0).then(|| (SystemTime::now() + ms(random.u64(2000..3000))).into());
        let request =
            PlaceHoldRequest { hold_id: hold_id.clone(), expire_time, ..hold("busy", "0.01") };
        let placed = match self.client.place_hold(request).await {
            // The machine is slow: the time had passed on arrival.
            Err(status) if reason(&status) == "EXPIRE_TIME_PASSED" => return,
            placed => placed.expect("it is placed"),
        };
        let placed = placed.hold.expect("a hold");
        let request_id = new_request_id();
        match random.u8(0..3) {
            _ if expire_time.is_some() => {
                self.made.lock().expect("the lock").expiring.push(placed);
            }
            0 => {
                let request = CaptureHoldRequest { request_id, hold_id, ..Default::default() };
                let answer = self.client.capture_hold(request).await.expect("it is captured");
                let mut made = self.made.lock().expect("the lock");
                made.transactions.extend(answer.transaction);
                made.captured.extend(answer.hold);
            }
            1 => {
                let request = ReleaseHoldRequest { request_id, hold_id };
                let answer = self.client.release_hold(request).await.expect("it is released");
                let mut made = self.made.lock().expect("the lock");
                made.released.extend(answer.hold);
            }
            _ => self.made.lock().expect("the lock").left_open.push(placed),
        }
    }
}

async fn entries(client: Client, page_token: String, order: EntryOrder) -> (Vec<Entry>, String) {
    let request = ListEntriesRequest {
        order: order.into(),
        page_size: PAGE_SIZE,
        page_token,
        ..entries_of("busy")
    };
    let page = client.list_entries(request).await.expect("a page");
    (page.entries, page.next_page_token)
}

/// The entries of the account in the database: sequence and hash.
async fn kept(database: &TestDatabase) -> Vec<(i64, String)> {
    let dump = ledger_dump::LedgerDump::read(database).await;
    dump.entries["busy"].iter().map(|entry| (entry.sequence, entry.hash.clone())).collect()
}

fn numbers_and_hashes(entries: &[Entry]) -> Vec<(i64, String)> {
    entries.iter().map(|entry| (entry.sequence, hex(&entry.hash))).collect()
}

async fn an_ascending_statement_sees_all_that_is_added_until_it_catches_up(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    let witness = writers.clients[0].clone();
    // Counts the rows before the last page was read, since that page may end the list.
    let there = Mutex::new(0);

    let listed = writers
        .pages(async |client, page_token| {
            let sequence = get(&witness, "busy").await.sequence;
            *there.lock().expect("a number") = sequence;
            entries(client, page_token, EntryOrder::Ascending).await
        })
        .await;

    let there = usize::try_from(there.into_inner().expect("a number")).expect("a count");
    assert!(listed.len() >= there, "{} of {there} listed, and no next page", listed.len());
    assert_eq!(numbers_and_hashes(&listed), kept(&database).await[..listed.len()]);
}

async fn a_descending_statement_goes_back_to_the_first_entry_without_a_gap(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    let there = get(&writers.clients[0], "busy").await.sequence;

    let mut listed = writers
        .pages(async |client, token| entries(client, token, EntryOrder::Descending).await)
        .await;

    assert!(listed[0].sequence >= there, "begins at {}, not {there}", listed[0].sequence);
    listed.reverse();
    assert_eq!(numbers_and_hashes(&listed), kept(&database).await[..listed.len()]);
}

async fn transactions(
    client: Client,
    page_token: String,
    account_id: &str,
    kind: TransactionKind,
) -> (Vec<Transaction>, String) {
    let request = ListTransactionsRequest {
        account_id: account_id.to_owned(),
        kind: kind.into(),
        page_size: PAGE_SIZE,
        page_token,
        ..Default::default()
    };
    let page = client.list_transactions(request).await.expect("a page");
    (page.transactions, page.next_page_token)
}

/// The sequences of a transaction's entries on `busy`, latest first.
fn sequences(transaction: &Transaction) -> impl Iterator<Item = i64> {
    let entries = transaction.entries.iter().rev();
    entries.filter(|entry| entry.account_id == "busy").map(|entry| entry.sequence)
}

async fn transactions_of_one_account_are_each_listed_once(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    let there = get(&writers.clients[0], "busy").await.sequence;

    let listed = writers
        .pages(async |client, token| {
            transactions(client, token, "busy", TransactionKind::Unspecified).await
        })
        .await;

    // Together their entries are the statement, without a gap.
    let sequences: Vec<i64> = listed.iter().flat_map(sequences).collect();
    assert!(sequences[0] >= there, "begins at {}, not {there}", sequences[0]);
    assert_eq!(sequences, (1..=sequences[0]).rev().collect::<Vec<_>>());
}

async fn transactions_of_all_accounts_are_each_listed_once(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    for wanted in [TransactionKind::Unspecified, TransactionKind::Transfer] {
        let is_wanted =
            |it: &Transaction| wanted == TransactionKind::Unspecified || it.kind() == wanted;
        let there = writers.made().transactions;
        let there = ids(there.iter().filter(|it| is_wanted(it)).map(|it| &it.transaction_id));

        let listed =
            writers.pages(async |client, token| transactions(client, token, "", wanted).await);
        let listed = listed.await;

        assert!(listed.iter().all(is_wanted), "not only {wanted:?}");
        let listed: Vec<_> = listed.into_iter().map(|it| it.transaction_id).collect();
        let is_ordered = listed.windows(2).all(|pair| pair[0] > pair[1]);
        assert!(is_ordered, "out of order, or twice: {listed:?}");
        lists_all(&there, &listed);
    }
}

fn ids<'a>(ids: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    ids.cloned().collect()
}

#[track_caller]
fn lists_all(there: &BTreeSet<String>, listed: &[String]) {
    assert!(there.len() > 3, "there was too little to show anything: {there:?}");
    let listed = ids(listed.iter());
    let skipped: Vec<_> = there.difference(&listed).collect();
    assert!(skipped.is_empty(), "{} of {} skipped: {skipped:?}", skipped.len(), there.len());
}

async fn holds(client: Client, page_token: String, state: HoldState) -> (Vec<Hold>, String) {
    let request = ListHoldsRequest {
        account_id: "busy".to_owned(),
        state: state.into(),
        page_size: PAGE_SIZE,
        page_token,
    };
    let page = client.list_holds(request).await.expect("a page");
    (page.holds, page.next_page_token)
}

async fn holds_are_each_listed_once(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    let there = ids(writers.made().holds().map(|hold| &hold.hold_id));

    let listed =
        writers.pages(async |client, token| holds(client, token, HoldState::Unspecified).await);
    let listed = listed.await;

    are_in_order(&listed);
    lists_all(&there, &listed.into_iter().map(|hold| hold.hold_id).collect::<Vec<_>>());
}

async fn holds_that_stay_in_a_state_are_each_listed_once(kind: Kind) {
    let database = TestDatabase::create_for(kind, Load::Heavy).await;
    let mut writers = Writers::start(&database).await;
    for state in [HoldState::Open, HoldState::Captured, HoldState::Released, HoldState::Expired] {
        let made = writers.made();
        let there = match state {
            HoldState::Open => ids(made.left_open.iter().map(|hold| &hold.hold_id)),
            HoldState::Captured => ids(made.captured.iter().map(|hold| &hold.hold_id)),
            HoldState::Released => ids(made.released.iter().map(|hold| &hold.hold_id)),
            _ => ids(made.expired().map(|hold| &hold.hold_id)),
        };

        let listed = writers.pages(async |client, token| holds(client, token, state).await).await;

        assert!(listed.iter().all(|hold| hold.state() == state), "not only {state:?}: {listed:?}");
        are_in_order(&listed);
        lists_all(&there, &listed.into_iter().map(|hold| hold.hold_id).collect::<Vec<_>>());
    }
}

#[track_caller]
fn are_in_order(listed: &[Hold]) {
    let is_ordered = listed.windows(2).all(|pair| pair[0].hold_id < pair[1].hold_id);
    assert!(is_ordered, "out of order, or twice: {listed:?}");
}
