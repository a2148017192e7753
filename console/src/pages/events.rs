//! What happens in the ledger, while it happens.
//!
//! A page has the events after a token, and the address of the page after it. The script of an open page
//! loads that one, and puts its rows above those that are there. A page without a token begins now.

use axum::extract::Query;
use passbook_command::proto::{
    Account, AccountChange, Event, EventKind, Hold, Transaction, WatchEventsRequest,
    watch_events_request::Start,
};
use prost_types::Timestamp;
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout};

use crate::{
    calls::Problem,
    page::{
        Cell, Column, Content, FEED_ROWS_MAX, Form, Input, InputKind, Link, Page, PageError,
        Section, Table, href,
    },
    pages::transactions,
    session::Session,
    view,
};

/// How long a page waits for the first message of the stream, which comes at once unless the server
/// searches for events that match. Above the time after which it sends a heartbeat, which is 5 s.
const FIRST_MESSAGE_TIME_MAX: Duration = Duration::from_secs(7);
/// How long it waits for each message after that. Without one, the next page goes on behind this one.
const NEXT_MESSAGE_TIME_MAX: Duration = Duration::from_millis(100);
/// How long a page reads after the first message. There are more events than a person could follow if
/// that is not enough.
const READ_TIME_MAX: Duration = Duration::from_secs(2);
/// The events after which a page reads no more, likewise.
const EVENTS_READ_MAX: usize = 2000;
/// The error of a token whose event the ledger does not have, as after a restore.
const TOKEN_UNKNOWN: &str = "EVENT_TOKEN_UNKNOWN";
const KINDS: &[(&str, &str)] = &[
    ("", "all"),
    ("TRANSACTION", "transaction"),
    ("HOLD_PLACED", "hold placed"),
    ("HOLD_UPDATED", "hold updated"),
    ("HOLD_CAPTURED", "hold captured"),
    ("HOLD_RELEASED", "hold released"),
    ("HOLD_EXPIRED", "hold expired"),
    ("ACCOUNT_OPENED", "account opened"),
    ("ACCOUNT_UPDATED", "account updated"),
    ("ACCOUNT_FROZEN", "account frozen"),
    ("ACCOUNT_UNFROZEN", "account unfrozen"),
    ("ACCOUNT_CLOSED", "account closed"),
];
const COLUMNS: &[Column] = &[
    Column::text("Time (UTC)"),
    Column::text("Event"),
    Column::text("Of"),
    Column::prose("What"),
    Column::prose("Description or reason"),
    Column::prose("Labels"),
    Column::text("By"),
];

#[derive(Deserialize)]
pub struct Filter {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    currency: String,
    /// The token after which the page begins. Empty: now.
    #[serde(default)]
    after: String,
}

/// The events that a page has read.
#[derive(Default)]
struct Part {
    /// The latest of them, in order, as many as are shown: events can be large.
    events: Vec<Event>,
    /// The number of those before.
    older: usize,
    /// The token behind them. Empty: there is none.
    token: String,
    /// Whether more has happened than the page reads. Then the next page begins with what happens then.
    is_behind: bool,
    /// Since when events are delayed.
    delayed_since: Option<Timestamp>,
    /// Why the stream has ended.
    problem: Option<Problem>,
}

impl Part {
    fn add(&mut self, events: Vec<Event>) {
        self.events.extend(events);
        let left_out = self.events.len().saturating_sub(FEED_ROWS_MAX);
        self.events.drain(..left_out);
        self.older += left_out;
    }
}

pub async fn show(session: Session, Query(filter): Query<Filter>) -> Result<Page, PageError> {
    let results = results(&session, &filter).await;
    let filter = Section::new("filter", "Filter").with(Content::Form(form(&filter)));
    Page::new("Events", &session).with(filter).with_result(results, &session)
}

async fn results(session: &Session, filter: &Filter) -> Result<Section, Problem> {
    let part = match read(session, filter).await {
        // The reason is shown, and the next page begins with what happens then.
        Err(problem) if problem.reason == TOKEN_UNKNOWN => {
            Part { problem: Some(problem), ..Part::default() }
        }
        part => part?,
    };
    let after = if part.is_behind { "" } else { &*part.token };
    let query =
        [("prefix", &*filter.prefix), ("kind", &filter.kind), ("currency", &filter.currency)];
    let next = href("/events", &[&query[..], &[("after", after)]].concat());
    let mut section = Section::new("events", "Events, latest first").feed(next.clone());
    if let Some(since) = &part.delayed_since {
        section = section.with(Content::Note(format!(
            "Delayed: a database transaction of a Passbook server has not ended since {}. What happens \
             meanwhile is shown when it has ended.",
            view::time(Some(since))
        )));
    }
    let rows = rows(&part);
    let table = Table::new("Events, latest first", COLUMNS, rows, "No new event.");
    section = section.with(Content::Table(table));
    if let Some(problem) = part.problem {
        section = section.with(Content::Problem(problem));
    }
    Ok(section.links([Link::new("Newer events", next)]))
}

/// Reads what has happened since the token of the page. Without a token nothing has, and the next page
/// begins now.
async fn read(session: &Session, filter: &Filter) -> Result<Part, Problem> {
    let given = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
    let kind = EventKind::from_str_name(&format!("EVENT_KIND_{}", filter.kind));
    let kind = (!filter.kind.is_empty()).then(|| kind.unwrap_or_default().into());
    let start = match given(&filter.after) {
        Some(token) => Start::AfterToken(token),
        None => Start::FromNow(()),
    };
    let watch = WatchEventsRequest {
        account_id_prefixes: given(&filter.prefix).into_iter().collect(),
        kinds: kind.into_iter().collect(),
        currency_code: given(&filter.currency).unwrap_or_default(),
        start: Some(start),
        ..WatchEventsRequest::default()
    };
    let stream = session.calls.accounts().watch_events(session.calls.request(watch)).await;
    let mut stream = stream?.into_inner();
    let mut part = Part { token: filter.after.clone(), ..Part::default() };
    let (mut time_max, mut first_at) = (FIRST_MESSAGE_TIME_MAX, None);
    while !part.is_behind {
        let Ok(message) = timeout(time_max, stream.message()).await else { break };
        match message {
            Ok(Some(message)) => {
                (part.token, part.delayed_since) = (message.token, message.delayed_since);
                // A heartbeat without more: the server still searches, or waits for a database transaction.
                let is_last = message.caught_up || message.events.is_empty();
                part.add(message.events);
                if is_last {
                    break;
                }
                time_max = NEXT_MESSAGE_TIME_MAX;
                part.is_behind = part.older + part.events.len() >= EVENTS_READ_MAX
                    || first_at.get_or_insert_with(Instant::now).elapsed() >= READ_TIME_MAX;
            }
            Ok(None) => break,
            Err(status) if part.events.is_empty() => return Err(status.into()),
            Err(status) => {
                part.problem = Some(status.into());
                break;
            }
        }
    }
    Ok(part)
}

fn form(filter: &Filter) -> Form {
    let input =
        |name, label, value: &str, kind| Input { name, label, value: value.to_owned(), kind };
    let text = || InputKind::Text { placeholder: "" };
    let inputs = vec![
        input("prefix", "Account id, or its beginning", &filter.prefix, text()),
        input("kind", "Event", &filter.kind, InputKind::Choice(KINDS)),
        input("currency", "Currency", &filter.currency, text()),
    ];
    Form { action: "/events", inputs, submit: "Watch" }
}

/// The latest of these events, one a row, with a row in place of those that are left out.
fn rows(part: &Part) -> Vec<Vec<Cell>> {
    let (latest, older) = (part.events.last(), part.older);
    let gap = |time: String, what: String| {
        let cells = [time, "left out".to_owned(), String::new(), what];
        let cells = cells.into_iter().map(Cell::from);
        cells.chain(<[Cell; 3]>::default()).collect::<Vec<Cell>>()
    };
    let newer = latest.filter(|_| part.is_behind).map(|event| {
        let what = "More happens than the page can show: what happened after this time is left out, \
                    and the page goes on with what happens now. A filter leaves out less.";
        gap(view::time(time_of(event)), what.to_owned())
    });
    let older = (older > 0)
        .then(|| gap(String::new(), format!("{older} events that happened before are left out.")));
    newer.into_iter().chain(part.events.iter().rev().map(row)).chain(older).collect()
}

fn time_of(event: &Event) -> Option<&Timestamp> {
    let of_transaction = event.transaction.as_ref().and_then(|it| it.create_time.as_ref());
    let of_hold = event.hold.as_ref().and_then(|it| it.update_time.as_ref());
    let of_account = event.account.as_ref().and_then(|it| it.create_time.as_ref());
    let of_change = event.account_change.as_ref().and_then(|it| it.create_time.as_ref());
    of_transaction.or(of_hold).or(of_account).or(of_change)
}

fn row(event: &Event) -> Vec<Cell> {
    let kind = event.kind();
    let what = match event {
        Event { transaction: Some(transaction), .. } => of_transaction(transaction),
        Event { hold: Some(hold), .. } => of_hold(hold, kind),
        Event { account: Some(account), .. } => of_account(account),
        Event { account_change: Some(change), .. } => of_change(change),
        _ => Default::default(),
    };
    let kind = view::name(kind.as_str_name(), "EVENT_KIND_");
    [view::time(time_of(event)).into(), kind.into()].into_iter().chain(what).collect()
}

/// The cells from [`COLUMNS`] that are left.
type What = [Cell; 5];

fn of_transaction(transaction: &Transaction) -> What {
    [
        view::transaction(&transaction.transaction_id),
        transactions::legs(transaction).into(),
        Cell::from(&transaction.description),
        view::labels(&transaction.labels).into(),
        Cell::from(&transaction.created_by),
    ]
}

fn of_hold(hold: &Hold, kind: EventKind) -> What {
    // A hold does not say who has updated it.
    let by = match kind {
        EventKind::HoldPlaced => &*hold.created_by,
        EventKind::HoldReleased => &*hold.ended_by,
        _ => "",
    };
    [
        view::hold(&hold.hold_id),
        format!("{} {}", hold.account_id, view::money(hold.amount.as_ref())).into(),
        Cell::from(&hold.description),
        view::labels(&hold.labels).into(),
        by.into(),
    ]
}

fn of_account(account: &Account) -> What {
    [
        view::account(&account.account_id),
        Cell::from(&account.currency_code),
        Cell::default(),
        view::labels(&account.labels).into(),
        Cell::from(&account.created_by),
    ]
}

fn of_change(change: &AccountChange) -> What {
    let labels = change.after.as_ref().map(|after| view::labels(&after.labels));
    [
        view::account(&change.account_id),
        view::difference(change.before.as_ref(), change.after.as_ref()).into(),
        Cell::from(&change.reason),
        labels.unwrap_or_default().into(),
        Cell::from(&change.created_by),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the rows for so many events, each with its number in place of the currency.
    fn texts(count: usize, is_behind: bool) -> Vec<String> {
        let event = |number: usize| {
            let account = Account { currency_code: number.to_string(), ..Account::default() };
            Event { account: Some(account), ..Event::default() }
        };
        let mut part = Part { is_behind, ..Part::default() };
        for first in (1..=count).step_by(90) {
            part.add((first..first + 90).take_while(|it| *it <= count).map(event).collect());
            assert!(part.events.len() <= FEED_ROWS_MAX);
        }
        rows(&part).iter().map(|row| format!("{:?}", row[3])).collect()
    }

    #[test]
    fn rows_have_the_latest_events_and_say_what_is_left_out() {
        assert!(texts(0, false).is_empty());
        let few = texts(2, false);
        assert!(few[0].contains("\"2\"") && few[1].contains("\"1\"") && few.len() == 2, "{few:?}");
        let many = texts(FEED_ROWS_MAX + 3, false);
        assert_eq!(many.len(), FEED_ROWS_MAX + 1);
        assert!(many[0].contains(&format!("\"{}\"", FEED_ROWS_MAX + 3)), "{}", many[0]);
        assert!(many[FEED_ROWS_MAX - 1].contains("\"4\""), "{}", many[FEED_ROWS_MAX - 1]);
        assert!(many[FEED_ROWS_MAX].contains("3 events"), "{}", many[FEED_ROWS_MAX]);
        let behind = texts(2, true);
        assert!(behind[0].contains("More happens") && behind[1].contains("\"2\""), "{behind:?}");
    }
}
