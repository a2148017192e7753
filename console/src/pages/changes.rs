//! The changes of an account's state and attributes.

use axum::extract::Query;
use passbook_command::proto::{AccountChange, ListAccountChangesRequest};

use crate::{
    page::{Cell, Column, Content, Link, Page, PageError, Section, Table, href},
    pages::{OfAccount, pages},
    session::Session,
    view,
};

/// Changes on a page.
const PAGE_SIZE: i32 = 50;
const COLUMNS: &[Column] = &[
    Column::number("Version"),
    Column::text("Time (UTC)"),
    Column::text("Kind"),
    Column::text("By"),
    Column::prose("Reason"),
    Column::prose("Change"),
];

pub async fn list(session: Session, Query(of): Query<OfAccount>) -> Result<Page, PageError> {
    page(&session, &of).await
}

async fn page(session: &Session, of: &OfAccount) -> Result<Page, PageError> {
    let list = ListAccountChangesRequest {
        account_id: of.account_id.clone(),
        page_size: PAGE_SIZE,
        page_token: of.page.clone(),
    };
    let list = session.calls.accounts().list_account_changes(session.calls.request(list)).await;
    let list = list.map_err(|status| PageError::of(status, session))?.into_inner();
    let query = [("account_id", &*of.account_id)];
    let account = Link::new("Account", href("/account", &[("id", &of.account_id)]));
    let links = pages("/changes", &query, &of.page, &list.next_page_token);
    let section = Section::new("changes", "Changes, oldest first")
        .with(Content::Table(table(&list.changes)))
        .links(links.into_iter().chain([account]));
    Ok(Page::new(format!("Changes of {}", of.account_id), session).with(section))
}

/// Changes, one a row.
pub fn table(changes: &[AccountChange]) -> Table {
    let row = |change: &AccountChange| -> Vec<Cell> {
        vec![
            change.version.into(),
            view::time(change.create_time.as_ref()).into(),
            view::name(change.kind().as_str_name(), "ACCOUNT_CHANGE_KIND_").into(),
            Cell::from(&change.created_by),
            Cell::from(&change.reason),
            view::difference(change.before.as_ref(), change.after.as_ref()).into(),
        ]
    };
    let rows = changes.iter().map(row).collect();
    Table::new("Changes of state and attributes", COLUMNS, rows, "There are no changes.")
}
