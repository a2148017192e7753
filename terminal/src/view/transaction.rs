//! Transactions, their entries, and what became of requests.

use passbook_command::{
    proto::{Entry, GetRequestOutcomeResponse, Transaction},
    table::{Column, Fields, Table},
};

use crate::{
    output::Row,
    server::CallError,
    view::{currency_code, enum_name, hold_text, labels, time, value, value_and_currency},
};

fn kind_name(transaction: &Transaction) -> String {
    enum_name(transaction.kind().as_str_name(), "TRANSACTION_KIND_")
}

/// A transaction and its entries.
pub fn transaction_text(transaction: &Transaction) -> String {
    let fields = Fields::default()
        .with("transaction_id", &transaction.transaction_id)
        .with("request_id", &transaction.request_id)
        .with("kind", kind_name(transaction))
        .with("description", &transaction.description)
        .with("labels", labels(&transaction.labels))
        .with("create_time", time(transaction.create_time.as_ref()))
        .with("created_by", &transaction.created_by)
        .with("reverses", &transaction.reverses_transaction_id)
        .with("reversed_by", &transaction.reversed_by_transaction_id)
        .with("reversed_amount", value_and_currency(transaction.reversed_amount.as_ref()))
        .with("forced", if transaction.forced { "yes" } else { "" });
    let columns = [
        Column::text("account_id"),
        Column::number("sequence"),
        Column::number("amount"),
        Column::number("balance_after"),
        Column::text("currency_code"),
    ];
    let rows = transaction.entries.iter().map(|entry| {
        vec![
            entry.account_id.clone(),
            entry.sequence.to_string(),
            value(entry.amount.as_ref()),
            value(entry.balance_after.as_ref()),
            currency_code(entry.amount.as_ref()),
        ]
    });
    let entries = Table::new(&columns).part(&rows.collect::<Vec<_>>());
    format!("{}\n{entries}", fields.text())
}

/// The accounts of a transaction, with their amounts.
pub fn entries_text(transaction: &Transaction) -> String {
    let entries = transaction
        .entries
        .iter()
        .map(|entry| format!("{} {}", entry.account_id, value_and_currency(entry.amount.as_ref())));
    entries.collect::<Vec<_>>().join(", ")
}

/// What became of a request.
pub fn outcome_text(response: &GetRequestOutcomeResponse) -> String {
    let outcome = enum_name(response.outcome().as_str_name(), "REQUEST_OUTCOME_");
    let mut fields = Fields::default().with("outcome", outcome);
    if response.fenced {
        fields = fields.with("fenced", "yes: no request with this id is ever applied");
    }
    if let Some(error) = &response.error {
        let error = CallError::of_result(error);
        fields = fields.with("reason", error.reason()).with("message", error.message());
    }
    let transaction = response.transaction.as_ref().map(transaction_text);
    let hold = response.hold.as_ref().map(hold_text);
    let parts = [Some(fields.text()), transaction, hold];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

impl Row for Transaction {
    const COLUMNS: &'static [Column] = &[
        Column::text("transaction_id"),
        Column::text("create_time"),
        Column::text("kind"),
        Column::text("entries"),
        Column::text("description"),
        Column::text("created_by"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.transaction_id.clone(),
            time(self.create_time.as_ref()),
            kind_name(self),
            entries_text(self),
            self.description.clone(),
            self.created_by.clone(),
        ]
    }
}

impl Row for Entry {
    const COLUMNS: &'static [Column] = &[
        Column::number("sequence"),
        Column::text("create_time"),
        Column::number("amount"),
        Column::number("balance_after"),
        Column::text("currency_code"),
        Column::text("transaction_id"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.sequence.to_string(),
            time(self.create_time.as_ref()),
            value(self.amount.as_ref()),
            value(self.balance_after.as_ref()),
            currency_code(self.amount.as_ref()),
            self.transaction_id.clone(),
        ]
    }
}
