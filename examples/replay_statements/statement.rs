//! The CSV file, as one statement for each account.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The statement of one account.
pub struct Statement {
    /// The id of the account in Passbook: the prefix and the id in the file.
    pub account_id: String,
    /// The rows in the order of their sequences, from 1.
    pub rows: Vec<Row>,
}

/// One line of the file.
#[derive(Deserialize)]
pub struct Row {
    pub account_id: String,
    pub sequence: i64,
    pub kind: Kind,
    /// The amount without a sign, above zero.
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
    /// The amount of the entry: negative for a withdrawal.
    pub fn signed_amount(&self) -> String {
        match self.kind {
            Kind::Deposit => self.amount.clone(),
            Kind::Withdraw => format!("-{}", self.amount),
        }
    }
}

/// Reads the file, in which the rows of different accounts are mixed. Checks that the rows of each
/// account are in the order of `sequence`.
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
