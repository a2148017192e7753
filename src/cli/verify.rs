//! `passbook verify`: recomputes the whole ledger.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use passbook_command::{CliError, output};
use tokio::time::Instant;

use crate::{
    cli::{progress, schema},
    config::DatabaseConfig,
    domain::{money::Currency, transaction::TransactionKind, verification::LedgerTotals},
    storage::{VerifyError, VerifyProgress},
};

/// The most connections of one verification. More connections do not make one disk or one database
/// server faster.
const CONNECTIONS_MAX: usize = 8;

/// Recomputes the whole ledger from its entries, as of one instant. Compares every stored balance,
/// sequence, hash and hold, every entry with its request, and the balances of each currency with
/// the sums of its transactions. Servers may run during a verification.
///
/// Exit codes: 0 if every value is right, 1 with the first fault, 2 for wrong usage.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    database: DatabaseConfig,
}

impl Verify {
    pub async fn run(self) -> Result<(), CliError> {
        let store = schema::connect_to_read(&self.database).await?;
        let began = Instant::now();
        let progress = Arc::new(VerifyProgress::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let verifying =
            async { store.snapshot(cores.min(CONNECTIONS_MAX)).await?.verify(&progress).await };
        let bar = output::bar(0, "{msg:10} {bar:40} {percent}%, {eta} left");
        let show = |bar: &ProgressBar| progress::show_verify(bar, &progress);
        let verified = progress::draw(&bar, show, verifying).await;
        match verified {
            Ok(totals) => {
                output::lines(&table(&totals))?;
                output::line(summary(&totals, began.elapsed()))
            }
            Err(VerifyError::Fault(fault)) => {
                output::line(format_args!("fault: {fault}"))?;
                Err(CliError::Run("the ledger has a fault".to_owned()))
            }
            Err(error @ VerifyError::Storage(_)) => Err(CliError::run(error)),
        }
    }
}

/// One line about a verification without a fault: counts, duration, and rate.
fn summary(totals: &LedgerTotals, elapsed: Duration) -> String {
    let (counts, seconds) = (counts(totals), elapsed.as_secs_f64());
    format!(
        "verified: {counts}, in {seconds:.1} s ({:.0} entries/s)",
        totals.entries as f64 / seconds
    )
}

/// The numbers of accounts, entries and requests, as text.
pub fn counts(totals: &LedgerTotals) -> String {
    let LedgerTotals { accounts, entries, requests, .. } = totals;
    format!("{accounts} accounts, {entries} entries, {requests} requests")
}

/// A table with one row for each currency: the sum of each kind of transaction, and of the balances.
pub fn table(totals: &LedgerTotals) -> String {
    let mut rows = vec![["currency", "accounts", "entries"].map(str::to_owned).to_vec()];
    rows[0].extend(TransactionKind::ALL.map(|kind| kind.name().to_owned()));
    rows[0].push("balances".to_owned());
    for ((code, scale), currency_totals) in &totals.currencies {
        let currency = Currency::from_parts(code, *scale);
        let mut row = vec![
            code.clone(),
            currency_totals.accounts.to_string(),
            currency_totals.entries.to_string(),
        ];
        row.extend(currency_totals.by_kind.map(|units| currency.format_units(units)));
        row.push(currency.format_units(currency_totals.balances));
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if index == 0 { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = match index {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "{gap}{cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}
