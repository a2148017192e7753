//! The statement of an account.

use axum::extract::Query;
use passbook_command::proto::{Entry, EntryOrder, ListEntriesRequest};
use serde::Deserialize;

use crate::{
    calls::Problem,
    page::{
        Cell, Column, Content, Form, Input, InputKind, Link, Page, PageError, Section, Table, href,
    },
    pages::pages,
    session::Session,
    view,
};

/// Entries on a page.
const PAGE_SIZE: i32 = 50;
const ORDERS: &[(&str, &str)] = &[("", "latest first"), ("oldest", "oldest first")];
const COLUMNS: &[Column] = &[
    Column::number("Number"),
    Column::text("Time (UTC)"),
    Column::number("Amount"),
    Column::number("Balance after"),
    Column::text("Currency"),
    Column::text("Transaction"),
];

#[derive(Deserialize)]
pub struct Statement {
    #[serde(default)]
    account_id: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    order: String,
    #[serde(default)]
    page: String,
}

pub async fn show(session: Session, Query(statement): Query<Statement>) -> Result<Page, PageError> {
    let account = Link::new("Account", href("/account", &[("id", &statement.account_id)]));
    let filter =
        Section::new("filter", "Filter").with(Content::Form(form(&statement))).links([account]);
    let entries = entries(&session, &statement).await;
    Page::new(format!("Statement of {}", statement.account_id), &session)
        .with(filter)
        .with_result(entries, &session)
}

async fn entries(session: &Session, statement: &Statement) -> Result<Section, Problem> {
    let time = |text| view::parse_time(text).map_err(Problem::of_input);
    let is_oldest_first = statement.order == "oldest";
    let order = if is_oldest_first { EntryOrder::Ascending } else { EntryOrder::Descending };
    let list = ListEntriesRequest {
        account_id: statement.account_id.clone(),
        start_time: time(&statement.from)?,
        end_time: time(&statement.until)?,
        order: order.into(),
        page_size: PAGE_SIZE,
        page_token: statement.page.clone(),
        ..Default::default()
    };
    let list = session.calls.accounts().list_entries(session.calls.request(list)).await;
    let list = list?.into_inner();
    let query = [
        ("account_id", &*statement.account_id),
        ("from", &statement.from),
        ("until", &statement.until),
        ("order", &statement.order),
    ];
    let links = pages("/statement", &query, &statement.page, &list.next_page_token);
    let entries = Section::new("entries", "Entries")
        .with(Content::Table(table(&list.entries, "The entries of the account")))
        .links(links);
    // Only the first page of the latest entries has new ones.
    let is_live = statement.page.is_empty() && !is_oldest_first;
    Ok(if is_live { entries.live() } else { entries })
}

fn form(statement: &Statement) -> Form {
    let input =
        |name, label, value: &str, kind| Input { name, label, value: value.to_owned(), kind };
    let inputs = vec![
        input("account_id", "", &statement.account_id, InputKind::Hidden),
        input("from", "From (UTC)", &statement.from, InputKind::Time),
        input("until", "Before (UTC)", &statement.until, InputKind::Time),
        input("order", "Order", &statement.order, InputKind::Choice(ORDERS)),
    ];
    Form { action: "/statement", inputs, submit: "Show" }
}

/// Entries, one a row.
pub fn table(entries: &[Entry], caption: &'static str) -> Table {
    let row = |entry: &Entry| -> Vec<Cell> {
        let currency = entry.amount.as_ref().map(|it| it.currency_code.clone());
        vec![
            entry.sequence.into(),
            view::time(entry.create_time.as_ref()).into(),
            view::value(entry.amount.as_ref()).into(),
            view::value(entry.balance_after.as_ref()).into(),
            currency.unwrap_or_default().into(),
            view::transaction(&entry.transaction_id),
        ]
    };
    Table::new(caption, COLUMNS, entries.iter().map(row).collect(), "There are no entries.")
}
