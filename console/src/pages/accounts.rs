//! The search for accounts.

use axum::extract::Query;
use passbook_command::proto::{Account, AccountState, ListAccountsRequest};
use serde::Deserialize;

use crate::{
    calls::Problem,
    page::{Cell, Column, Content, Form, Input, InputKind, Page, PageError, Section, Table},
    pages::pages,
    session::Session,
    view,
};

/// Accounts on a page.
const PAGE_SIZE: i32 = 50;
const STATES: &[(&str, &str)] =
    &[("", "all"), ("OPEN", "open"), ("FROZEN", "frozen"), ("CLOSED", "closed")];
const COLUMNS: &[Column] = &[
    Column::text("Account"),
    Column::number("Balance"),
    Column::number("Held"),
    Column::number("Available"),
    Column::text("Currency"),
    Column::text("State"),
    Column::prose("Labels"),
];

#[derive(Deserialize)]
pub struct Search {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    page: String,
}

pub async fn search(session: Session, Query(search): Query<Search>) -> Result<Page, PageError> {
    let results = results(&session, &search).await;
    Page::new("Accounts", &session).with(form(&search)).with_result(results, &session)
}

async fn results(session: &Session, search: &Search) -> Result<Section, Problem> {
    let labels = view::parse_label(&search.label).map_err(Problem::of_input)?;
    let state = AccountState::from_str_name(&format!("ACCOUNT_STATE_{}", search.state));
    let list = ListAccountsRequest {
        page_size: PAGE_SIZE,
        page_token: search.page.clone(),
        account_id_prefix: search.prefix.trim().to_owned(),
        state: state.unwrap_or_default().into(),
        labels,
        ..Default::default()
    };
    let list = session.calls.accounts().list_accounts(session.calls.request(list)).await;
    let list = list?.into_inner();
    let rows = list.accounts.iter().map(row).collect();
    // A search by label or state looks at a part of the accounts at a time.
    let empty = if list.next_page_token.is_empty() {
        "No account matches."
    } else {
        "No account in this part of the ledger matches. The next page has the next part."
    };
    let query = [("prefix", &*search.prefix), ("label", &search.label), ("state", &search.state)];
    let links = pages("/", &query, &search.page, &list.next_page_token);
    Ok(Section::new("accounts", "Accounts")
        .with(Content::Table(Table::new("Accounts in order of their ids", COLUMNS, rows, empty)))
        .links(links))
}

fn form(search: &Search) -> Section {
    let inputs = vec![
        Input {
            name: "prefix",
            label: "Account id, or its beginning",
            value: search.prefix.clone(),
            kind: InputKind::Text { placeholder: "" },
        },
        Input {
            name: "label",
            label: "Label",
            value: search.label.clone(),
            kind: InputKind::Text { placeholder: "key=value" },
        },
        Input {
            name: "state",
            label: "State",
            value: search.state.clone(),
            kind: InputKind::Choice(STATES),
        },
    ];
    let form = Form { action: "/", inputs, submit: "Search" };
    Section::new("search", "Search accounts").with(Content::Form(form))
}

fn row(account: &Account) -> Vec<Cell> {
    vec![
        view::account(&account.account_id),
        view::value(account.balance.as_ref()).into(),
        view::value(account.held.as_ref()).into(),
        view::value(account.available.as_ref()).into(),
        Cell::from(&account.currency_code),
        view::account_state(account).into(),
        view::labels(&account.labels).into(),
    ]
}
