//! The file: one statement for each account.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// One account, and what the bank did on it.
pub struct Statement {
    /// The account's id in Passbook: the prefix, and the bank's id.
    pub account_id: String,
    /// In order: the first row is sequence 1.
    pub rows: Vec<Row>,
}

/// One line of the file.
#[derive(Deserialize)]
pub struct Row {
    pub account_id: String,
    pub sequence: i64,
    pub kind: Kind,
    /// Above zero.
    pub amount: String,
    /// The balance after this row.
    pub exact_balance: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Deposit,
    Withdraw,
}

impl Statement {
    pub fn balance(&self) -> &str {
        self.rows.last().map_or("0.00", |row| &row.exact_balance)
    }
}

impl Row {
    /// The amount as an entry shows it: negative if money went out.
    pub fn signed_amount(&self) -> String {
        match self.kind {
            Kind::Deposit => self.amount.clone(),
            Kind::Withdraw => format!("-{}", self.amount),
        }
    }
}

/// Reads the file, which has the accounts interleaved, and checks that every account's rows
/// come in the order of `sequence`.
pub fn read_statements(file: &Path, prefix: &str) -> anyhow::Result<Vec<Statement>> {
    let reader = csv::Reader::from_path(file);
    let mut reader = reader.with_context(|| format!("cannot open {}", file.display()))?;
    let mut statements: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in reader.deserialize() {
        let row: Row = row.with_context(|| format!("cannot read {}", file.display()))?;
        let rows = statements.entry(row.account_id.clone()).or_default();
        let expected = rows.len() as i64 + 1;
        ensure!(
            row.sequence == expected,
            "account {}: sequence {} where {expected} was expected",
            row.account_id,
            row.sequence,
        );
        rows.push(row);
    }
    let statements = statements
        .into_iter()
        .map(|(account_id, rows)| Statement { account_id: format!("{prefix}-{account_id}"), rows });
    Ok(statements.collect())
}
