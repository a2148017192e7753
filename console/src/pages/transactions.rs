//! Transactions: a list of them, and one with its legs.

use axum::extract::Query;
use passbook_command::proto::{
    Entry, GetTransactionRequest, ListTransactionsRequest, TimeBasis, Transaction, TransactionKind,
    get_transaction_request::Lookup,
};
use serde::Deserialize;

use crate::{
    calls::Problem,
    page::{Cell, Column, Content, Form, Input, InputKind, Page, PageError, Section, Table},
    pages::{ById, pages},
    session::Session,
    view,
};

/// Transactions on a page.
const PAGE_SIZE: i32 = 50;
/// Legs of a transaction that its row names.
const LEGS_SHOWN: usize = 4;
const KINDS: &[(&str, &str)] = &[
    ("", "all"),
    ("DEPOSIT", "deposit"),
    ("WITHDRAWAL", "withdrawal"),
    ("TRANSFER", "transfer"),
    ("POSTING", "posting"),
    ("CAPTURE", "capture"),
    ("REVERSAL", "reversal"),
];
const COLUMNS: &[Column] = &[
    Column::text("Time (UTC)"),
    Column::text("Transaction"),
    Column::text("Kind"),
    Column::prose("Legs"),
    Column::prose("Description"),
    Column::text("By"),
];
const LEG_COLUMNS: &[Column] = &[
    Column::text("Account"),
    Column::number("Amount"),
    Column::number("Balance after"),
    Column::text("Currency"),
    Column::number("Entry"),
];

#[derive(Deserialize)]
pub struct Filter {
    #[serde(default)]
    account_id: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    page: String,
}

pub async fn list(session: Session, Query(filter): Query<Filter>) -> Result<Page, PageError> {
    let results = results(&session, &filter).await;
    let filter = Section::new("filter", "Filter").with(Content::Form(form(&filter)));
    Page::new("Transactions", &session).with(filter).with_result(results, &session)
}

async fn results(session: &Session, filter: &Filter) -> Result<Section, Problem> {
    let kind = TransactionKind::from_str_name(&format!("TRANSACTION_KIND_{}", filter.kind));
    let list = ListTransactionsRequest {
        account_id: filter.account_id.trim().to_owned(),
        kind: kind.unwrap_or_default().into(),
        start_time: view::parse_time(&filter.from).map_err(Problem::of_input)?,
        end_time: view::parse_time(&filter.until).map_err(Problem::of_input)?,
        labels: view::parse_label(&filter.label).map_err(Problem::of_input)?,
        page_size: PAGE_SIZE,
        page_token: filter.page.clone(),
        time_basis: TimeBasis::CreateTime.into(),
    };
    let list = session.calls.accounts().list_transactions(session.calls.request(list)).await;
    let list = list?.into_inner();
    let query = [
        ("account_id", &*filter.account_id),
        ("kind", &filter.kind),
        ("label", &filter.label),
        ("from", &filter.from),
        ("until", &filter.until),
    ];
    let empty = if list.next_page_token.is_empty() {
        "No transaction matches."
    } else {
        "No transaction in this part of the ledger matches. The next page has the next part."
    };
    let rows = list.transactions.iter().map(row).collect();
    let table = Table::new("Transactions, latest first", COLUMNS, rows, empty);
    let links = pages("/transactions", &query, &filter.page, &list.next_page_token);
    let results =
        Section::new("transactions", "Transactions").with(Content::Table(table)).links(links);
    Ok(if filter.page.is_empty() { results.live() } else { results })
}

fn form(filter: &Filter) -> Form {
    let input =
        |name, label, value: &str, kind| Input { name, label, value: value.to_owned(), kind };
    let label = InputKind::Text { placeholder: "key=value" };
    let account_id = InputKind::Text { placeholder: "" };
    let inputs = vec![
        input("account_id", "Account id", &filter.account_id, account_id),
        input("kind", "Kind", &filter.kind, InputKind::Choice(KINDS)),
        input("label", "Label", &filter.label, label),
        input("from", "From (UTC)", &filter.from, InputKind::Time),
        input("until", "Before (UTC)", &filter.until, InputKind::Time),
    ];
    Form { action: "/transactions", inputs, submit: "Show" }
}

/// The first legs.
pub fn legs(transaction: &Transaction) -> String {
    let leg =
        |entry: &Entry| format!("{} {}", entry.account_id, view::money(entry.amount.as_ref()));
    let shown = transaction.entries.iter().take(LEGS_SHOWN).map(leg);
    let mut legs = shown.collect::<Vec<_>>().join(", ");
    let others = transaction.entries.len().saturating_sub(LEGS_SHOWN);
    if others > 0 {
        legs += &format!(" and {others} more");
    }
    legs
}

fn row(transaction: &Transaction) -> Vec<Cell> {
    vec![
        view::time(transaction.create_time.as_ref()).into(),
        view::transaction(&transaction.transaction_id),
        kind_name(transaction).into(),
        legs(transaction).into(),
        Cell::from(&transaction.description),
        Cell::from(&transaction.created_by),
    ]
}

pub async fn show(session: Session, Query(transaction): Query<ById>) -> Result<Page, PageError> {
    page(&session, transaction.id).await
}

async fn page(session: &Session, transaction_id: String) -> Result<Page, PageError> {
    let title = format!("Transaction {transaction_id}");
    let request = GetTransactionRequest { lookup: Some(Lookup::TransactionId(transaction_id)) };
    let found = session.calls.accounts().get_transaction(session.calls.request(request)).await;
    let found = found.map_err(|status| PageError::of(status, session))?.into_inner();
    Ok(Page::new(title, session).with(section(&found.transaction.unwrap_or_default())))
}

/// A transaction with its legs.
pub fn section(transaction: &Transaction) -> Section {
    let leg = |entry: &Entry| -> Vec<Cell> {
        let currency = entry.amount.as_ref().map(|it| it.currency_code.clone());
        vec![
            view::account(&entry.account_id),
            view::value(entry.amount.as_ref()).into(),
            view::value(entry.balance_after.as_ref()).into(),
            currency.unwrap_or_default().into(),
            entry.sequence.into(),
        ]
    };
    let legs = transaction.entries.iter().map(leg).collect();
    Section::new("transaction", "Transaction").with(fields(transaction)).with(Content::Table(
        Table::new("The legs of the transaction", LEG_COLUMNS, legs, "You may read no leg of it."),
    ))
}

fn fields(transaction: &Transaction) -> Content {
    let mut fields = vec![
        ("Transaction", view::transaction(&transaction.transaction_id)),
        ("Kind", kind_name(transaction).into()),
        ("Time (UTC)", view::time(transaction.create_time.as_ref()).into()),
        ("By", Cell::from(&transaction.created_by)),
        ("Request", view::request(&transaction.request_id)),
        ("Description", Cell::from(&transaction.description)),
        ("Labels", view::labels(&transaction.labels).into()),
        ("Forced", if transaction.forced { "yes" } else { "no" }.into()),
    ];
    let reversals = [
        ("Reverses", view::transaction(&transaction.reverses_transaction_id)),
        ("Reversed by", view::transaction(&transaction.reversed_by_transaction_id)),
        ("Reversed amount", view::money(transaction.reversed_amount.as_ref()).into()),
    ];
    fields.extend(reversals.into_iter().filter(|(_, cell)| !cell.is_empty()));
    Content::Fields(fields)
}

fn kind_name(transaction: &Transaction) -> String {
    view::name(transaction.kind().as_str_name(), "TRANSACTION_KIND_")
}
