//! An account: its fields, the chart of its balance, the end of its statement, its open holds and its
//! changes.

use axum::extract::Query;
use passbook_command::proto::{
    Account, Entry, EntryOrder, GetAccountRequest, HoldState, ListAccountChangesRequest,
    ListEntriesRequest, ListHoldsRequest,
};

use crate::{
    chart::{Chart, Point},
    page::{Cell, Content, Link, Page, PageError, Section, href},
    pages::{ById, changes, holds, part, statement},
    session::Session,
    view,
};

/// The latest entries, of which the chart consists.
const CHART_ENTRIES: i32 = 200;
/// The latest entries that are shown.
const ENTRIES_SHOWN: usize = 10;
/// Open holds that are shown.
const HOLDS_SHOWN: i32 = 10;
/// Changes that are shown.
const CHANGES_SHOWN: i32 = 10;

pub async fn show(session: Session, Query(account): Query<ById>) -> Result<Page, PageError> {
    page(&session, &account.id).await
}

async fn page(session: &Session, account_id: &str) -> Result<Page, PageError> {
    let (calls, id) = (&session.calls, || account_id.to_owned());
    let (mut of_account, mut of_entries) = (calls.accounts(), calls.accounts());
    let (mut of_holds, mut of_changes) = (calls.accounts(), calls.accounts());
    let (account, entries, open_holds, history) = tokio::join!(
        of_account.get_account(calls.request(GetAccountRequest { account_id: id() })),
        of_entries.list_entries(calls.request(ListEntriesRequest {
            account_id: id(),
            order: EntryOrder::Descending.into(),
            page_size: CHART_ENTRIES,
            ..Default::default()
        })),
        of_holds.list_holds(calls.request(ListHoldsRequest {
            account_id: id(),
            state: HoldState::Open.into(),
            page_size: HOLDS_SHOWN,
            ..Default::default()
        })),
        of_changes.list_account_changes(calls.request(ListAccountChangesRequest {
            account_id: id(),
            page_size: CHANGES_SHOWN,
            ..Default::default()
        })),
    );
    let account = account.map_err(|status| PageError::of(status, session))?.into_inner();
    let account = account.account.unwrap_or_default();
    let entries = part(entries, session)?.map(|list| list.entries);
    let chart = entries.as_ref().ok().and_then(|entries| balance_chart(entries));
    let latest = entries.map(|entries| {
        statement::table(&entries[..entries.len().min(ENTRIES_SHOWN)], "The latest entries")
    });
    let open_holds = part(open_holds, session)?.map(|list| holds::table(&list.holds));
    let history = part(history, session)?.map(|list| changes::table(&list.changes));
    let of_this = |path: &str| href(path, &[("account_id", account_id)]);
    let mut balance = Section::new("balance", "Balance").live().with(fields(&account));
    if let Some(chart) = chart {
        balance = balance.with(Content::Chart(chart));
    }
    let latest = Section::new("statement", "Latest entries").live().with_result(latest).links([
        Link::new("Statement", of_this("/statement")),
        Link::new("Transactions with their descriptions", of_this("/transactions")),
    ]);
    let open_holds = Section::new("holds", "Open holds")
        .live()
        .with_result(open_holds)
        .links([Link::new("All holds", of_this("/holds"))]);
    let history = Section::new("changes", "Changes of state and attributes")
        .with_result(history)
        .links([Link::new("All changes", of_this("/changes"))]);
    let verification = Section::new("verify", "Verification")
        .with(Content::Note("Recomputes balance and hashes from all entries.".to_owned()))
        .links([Link::new("Verify this account", of_this("/verify"))]);
    Ok(Page::new(format!("Account {account_id}"), session)
        .with(balance)
        .with(latest)
        .with(open_holds)
        .with(history)
        .with(verification))
}

fn fields(account: &Account) -> Content {
    let limit =
        view::overdraft_limit(account.unlimited_overdraft, account.overdraft_limit.as_ref());
    Content::Fields(vec![
        ("Balance", view::money(account.balance.as_ref()).into()),
        ("Held", view::money(account.held.as_ref()).into()),
        ("Available", view::money(account.available.as_ref()).into()),
        ("State", view::account_state(account).into()),
        ("Overdraft limit", limit.into()),
        ("Labels", view::labels(&account.labels).into()),
        ("Entries", account.sequence.into()),
        ("Version", account.version.into()),
        ("Opened", view::time(account.create_time.as_ref()).into()),
        ("Opened by", Cell::from(&account.created_by)),
        ("Changed", view::time(account.update_time.as_ref()).into()),
    ])
}

/// The balance after each of these entries, which are the latest first.
fn balance_chart(entries: &[Entry]) -> Option<Chart> {
    let points = entries.iter().rev().map(|entry| {
        let text = view::money(entry.balance_after.as_ref());
        let value = view::value(entry.balance_after.as_ref()).parse().unwrap_or_default();
        Point { at: entry.sequence as f64, value, text }
    });
    let points: Vec<_> = points.collect();
    let end = |entry: Option<&Entry>| view::time(entry.and_then(|it| it.create_time.as_ref()));
    let title = format!("Balance over the latest {} entries", points.len());
    Chart::new(&title, &points, [end(entries.last()), end(entries.first())])
}
