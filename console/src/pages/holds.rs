//! Holds: those of an account, and one of them.

use axum::extract::Query;
use passbook_command::proto::{GetHoldRequest, Hold, HoldState, ListHoldsRequest};
use serde::Deserialize;

use crate::{
    page::{
        Cell, Column, Content, Form, Input, InputKind, Link, Page, PageError, Section, Table, href,
    },
    pages::{ById, pages},
    session::Session,
    view,
};

/// Holds on a page.
const PAGE_SIZE: i32 = 50;
const STATES: &[(&str, &str)] = &[
    ("", "all"),
    ("OPEN", "open"),
    ("CAPTURED", "captured"),
    ("RELEASED", "released"),
    ("EXPIRED", "expired"),
];
const COLUMNS: &[Column] = &[
    Column::text("Hold"),
    Column::number("Amount"),
    Column::number("Captured"),
    Column::text("State"),
    Column::text("Expires (UTC)"),
    Column::prose("Description"),
    Column::text("By"),
];

#[derive(Deserialize)]
pub struct Filter {
    #[serde(default)]
    account_id: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    page: String,
}

pub async fn list(session: Session, Query(filter): Query<Filter>) -> Result<Page, PageError> {
    list_page(&session, &filter).await
}

async fn list_page(session: &Session, filter: &Filter) -> Result<Page, PageError> {
    let state = HoldState::from_str_name(&format!("HOLD_STATE_{}", filter.state));
    let list = ListHoldsRequest {
        account_id: filter.account_id.clone(),
        state: state.unwrap_or_default().into(),
        page_size: PAGE_SIZE,
        page_token: filter.page.clone(),
    };
    let list = session.calls.accounts().list_holds(session.calls.request(list)).await;
    let list = list.map_err(|status| PageError::of(status, session))?.into_inner();
    let query = [("account_id", &*filter.account_id), ("state", &filter.state)];
    let links = pages("/holds", &query, &filter.page, &list.next_page_token);
    let inputs = vec![
        Input {
            name: "account_id",
            label: "",
            value: filter.account_id.clone(),
            kind: InputKind::Hidden,
        },
        Input {
            name: "state",
            label: "State",
            value: filter.state.clone(),
            kind: InputKind::Choice(STATES),
        },
    ];
    let form = Form { action: "/holds", inputs, submit: "Show" };
    let results =
        Section::new("holds", "Holds").with(Content::Table(table(&list.holds))).links(links);
    let account = Link::new("Account", href("/account", &[("id", &filter.account_id)]));
    let section = Section::new("filter", "Filter").with(Content::Form(form)).links([account]);
    Ok(Page::new(format!("Holds on {}", filter.account_id), session).with(section).with(results))
}

/// Holds, one a row.
pub fn table(holds: &[Hold]) -> Table {
    let row = |hold: &Hold| -> Vec<Cell> {
        vec![
            view::hold(&hold.hold_id),
            view::money(hold.amount.as_ref()).into(),
            view::money(hold.captured_amount.as_ref()).into(),
            state_name(hold).into(),
            view::time(hold.expire_time.as_ref()).into(),
            Cell::from(&hold.description),
            Cell::from(&hold.created_by),
        ]
    };
    Table::new("Holds", COLUMNS, holds.iter().map(row).collect(), "There are no such holds.")
}

pub async fn show(session: Session, Query(hold): Query<ById>) -> Result<Page, PageError> {
    page(&session, hold.id).await
}

async fn page(session: &Session, hold_id: String) -> Result<Page, PageError> {
    let title = format!("Hold {hold_id}");
    let request = session.calls.request(GetHoldRequest { hold_id });
    let found = session.calls.accounts().get_hold(request).await;
    let found = found.map_err(|status| PageError::of(status, session))?.into_inner();
    Ok(Page::new(title, session).with(section(&found.hold.unwrap_or_default())))
}

/// All fields of a hold.
pub fn section(hold: &Hold) -> Section {
    let fields = vec![
        ("Hold", view::hold(&hold.hold_id)),
        ("Account", view::account(&hold.account_id)),
        ("Amount", view::money(hold.amount.as_ref()).into()),
        ("Captured", view::money(hold.captured_amount.as_ref()).into()),
        ("State", state_name(hold).into()),
        ("Expires (UTC)", view::time(hold.expire_time.as_ref()).into()),
        ("Placed (UTC)", view::time(hold.create_time.as_ref()).into()),
        ("Placed by", Cell::from(&hold.created_by)),
        ("Request", view::request(&hold.request_id)),
        ("Changed (UTC)", view::time(hold.update_time.as_ref()).into()),
        ("Ended by", Cell::from(&hold.ended_by)),
        ("Transaction of the capture", view::transaction(&hold.transaction_id)),
        ("Description", Cell::from(&hold.description)),
        ("Labels", view::labels(&hold.labels).into()),
    ];
    Section::new("hold", "Hold").with(Content::Fields(fields))
}

fn state_name(hold: &Hold) -> String {
    view::name(hold.state().as_str_name(), "HOLD_STATE_")
}
