//! The events of the model, and their comparison with those of WatchEvents.

use std::collections::{BTreeMap, BTreeSet};

use passbook::proto::*;

use crate::harness::{
    all_events, events_after,
    model::caller::Caller,
    model::command::{Command, Response},
    model::double_entry::take_contra_entries,
    model::random::Generator,
    model::{Model, microseconds},
    read_events,
};

/// What a caller has received from WatchEvents about its accounts.
#[derive(Default)]
pub struct Received {
    events: Vec<Event>,
    token: String,
}

impl Model {
    /// The event of a request that was applied.
    pub(super) fn add_event(&mut self, command: &Command, response: &Response) {
        let kind = match command {
            Command::PlaceHold(_) => EventKind::HoldPlaced,
            Command::UpdateHold(_) => EventKind::HoldUpdated,
            Command::CaptureHold(_) => EventKind::HoldCaptured,
            Command::ReleaseHold(_) => EventKind::HoldReleased,
            _ => EventKind::Transaction,
        };
        let (transaction, hold) = (response.transactions.first(), response.holds.first());
        let (transaction, hold) = (transaction.cloned(), hold.cloned());
        self.events.push(Event { transaction, hold, ..new(kind) });
    }

    pub(super) fn add_expiry(&mut self, hold: Hold) {
        self.events.push(Event { hold: Some(hold), ..new(EventKind::HoldExpired) });
    }

    pub(super) fn add_opening(&mut self, account: Account) {
        self.events.push(Event { account: Some(account), ..new(EventKind::AccountOpened) });
    }

    pub(super) fn add_change(&mut self, change: AccountChange) {
        let kind = match change.kind() {
            AccountChangeKind::Frozen => EventKind::AccountFrozen,
            AccountChangeKind::Unfrozen => EventKind::AccountUnfrozen,
            AccountChangeKind::Closed => EventKind::AccountClosed,
            _ => EventKind::AccountUpdated,
        };
        self.events.push(Event { account_change: Some(change), ..new(kind) });
    }

    /// The events of the caller's accounts, as the model has them.
    fn own(&self, mut events: Vec<Event>) -> Vec<Event> {
        let is_own = |id: &String| self.accounts.contains_key(id);
        events.retain(|it| accounts_of(it).iter().any(is_own));
        if self.has_contra_accounts {
            let transactions = events.iter_mut().filter_map(|it| it.transaction.as_mut());
            transactions.for_each(take_contra_entries);
        }
        events
    }

    /// The events of an account in their order: an expiry comes with the next change of the account.
    /// Returns also how many there must be: expiries after the last change need not be recorded.
    fn events_of(&self, account_id: &str) -> (Vec<Event>, usize) {
        let (expiries, changes): (Vec<_>, Vec<_>) =
            of_account(&self.events, account_id).partition(is_expiry);
        let mut expiries = sorted_expiries(expiries).into_iter().peekable();
        let mut events = Vec::new();
        for change in changes {
            let time = time_of(&change);
            while let Some(expiry) = expiries.next_if(|it| time_of(it) <= time) {
                events.push(expiry);
            }
            events.push(change);
        }
        let recorded = events.len();
        events.extend(expiries);
        (events, recorded)
    }
}

impl Caller {
    /// Compares the events of each account, all there are, and checks that filters select of them.
    pub(super) async fn compare_events(&mut self) {
        let client = &self.clients[self.generator.random.usize(0..self.clients.len())];
        let request = match self.received.token.as_str() {
            "" => all_events(),
            token => events_after(token),
        };
        let (new, token) = read_events(client, request).await;
        self.received.events.extend(self.model.own(new));
        self.received.token = token;
        for account_id in self.model.accounts.keys() {
            let received: Vec<_> = of_account(&self.received.events, account_id).collect();
            let received = sorted_runs(received);
            let (expected, recorded) = self.model.events_of(account_id);
            let (first, rest) = received.split_at(recorded.min(received.len()));
            assert_eq!(first, &expected[..recorded], "events of {account_id}");
            assert!(rest.iter().all(|it| expected[recorded..].contains(it)), "{rest:#?}");
        }

        let filter = filter(&mut self.generator);
        let (selected, _) = read_events(client, filter.clone()).await;
        let selected = self.model.own(selected);
        let expected = self.received.events.iter();
        let expected: Vec<_> = expected.filter(|it| self.matches(it, &filter)).cloned().collect();
        assert_eq!(selected, expected, "{filter:#?}");
        if !selected.is_empty() {
            *self.results.entry("WatchEvents".to_owned()).or_default() += 1;
        }
    }

    fn matches(&self, event: &Event, filter: &WatchEventsRequest) -> bool {
        let prefixes = &filter.account_id_prefixes;
        let has_prefix = |id: &String| prefixes.iter().any(|prefix| id.starts_with(prefix));
        let is_kind = |kind: EventKind| filter.kinds.contains(&kind.into());
        let kind = match event.kind() {
            EventKind::HoldCaptured => {
                is_kind(EventKind::HoldCaptured) || is_kind(EventKind::Transaction)
            }
            kind => is_kind(kind),
        };
        let mut labels = labels_of(event).clone();
        labels.retain(|key, _| filter.labels.contains_key(key));
        (prefixes.is_empty() || accounts_of(event).iter().any(has_prefix))
            && (filter.kinds.is_empty() || kind)
            && labels == filter.labels
            && (filter.currency_code.is_empty()
                || currencies_of(event, &self.model).contains(&filter.currency_code))
    }
}

fn new(kind: EventKind) -> Event {
    Event { kind: kind.into(), ..Event::default() }
}

/// Few events or many, with an account of the caller or of all.
fn filter(generator: &mut Generator) -> WatchEventsRequest {
    let mut filter = all_events();
    if generator.random.bool() {
        filter.account_id_prefixes = vec![format!("{}:", generator.caller)];
    }
    for _ in 0..generator.random.u8(0..3) {
        filter.kinds.push(generator.random.i32(1..=11));
    }
    if generator.one_in(3) {
        filter.currency_code = (*generator.pick(&["USD", "EUR", "JPY"])).to_owned();
    }
    if generator.one_in(3) {
        filter.labels = generator.labels();
    }
    filter
}

fn of_account(events: &[Event], account_id: &str) -> impl Iterator<Item = Event> {
    events.iter().filter(|it| accounts_of(it).contains(account_id)).cloned()
}

fn accounts_of(event: &Event) -> BTreeSet<String> {
    let entries = event.transaction.iter().flat_map(|it| &it.entries);
    let mut accounts: BTreeSet<String> = entries.map(|it| it.account_id.clone()).collect();
    accounts.extend(event.hold.iter().map(|it| it.account_id.clone()));
    accounts.extend(event.account.iter().map(|it| it.account_id.clone()));
    accounts.extend(event.account_change.iter().map(|it| it.account_id.clone()));
    accounts
}

fn currencies_of(event: &Event, model: &Model) -> BTreeSet<String> {
    accounts_of(event).iter().map(|it| model.accounts[it].currency_code.clone()).collect()
}

fn labels_of(event: &Event) -> &BTreeMap<String, String> {
    let transaction = event.transaction.as_ref().map(|it| &it.labels);
    let hold = || event.hold.as_ref().map(|it| &it.labels);
    let account = || event.account.as_ref().map(|it| &it.labels);
    let change = || event.account_change.as_ref()?.after.as_ref().map(|it| &it.labels);
    transaction.or_else(hold).or_else(account).or_else(change).expect("labels")
}

/// When the event happened: an expiry at its own time, although it is recorded later.
fn time_of(event: &Event) -> i64 {
    let transaction = event.transaction.as_ref().and_then(|it| it.create_time);
    let hold = || event.hold.as_ref().and_then(|it| it.update_time);
    let account = || event.account.as_ref().and_then(|it| it.create_time);
    let change = || event.account_change.as_ref().and_then(|it| it.create_time);
    let time = transaction.or_else(hold).or_else(account).or_else(change);
    microseconds(&time.expect("a time"))
}

fn is_expiry(event: &Event) -> bool {
    event.kind() == EventKind::HoldExpired
}

fn sorted_expiries(mut expiries: Vec<Event>) -> Vec<Event> {
    expiries.sort_by_key(|it| (time_of(it), it.hold.clone().map(|hold| hold.hold_id)));
    expiries
}

/// The expiries that one change has recorded have no order.
fn sorted_runs(events: Vec<Event>) -> Vec<Event> {
    let runs = events.chunk_by(|a, b| is_expiry(a) && is_expiry(b));
    runs.flat_map(|run| sorted_expiries(run.to_vec())).collect()
}
