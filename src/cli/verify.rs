//! `passbook verify`.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use passbook_command::{CliError, output};
use tokio::time::Instant;

use crate::{
    cli::{progress, schema},
    config::DatabaseConfig,
    domain::{money::Currency, transaction::TransactionKind, verification::LedgerTotals},
    storage::{Store, VerifyError, VerifyProgress},
};

/// The most connections: more would not make one disk or one database server faster.
const CONNECTIONS_MAX: usize = 8;

/// Recomputes the whole ledger from its entries, as of one instant: every balance, sequence, hash
/// and hold, every entry against the request that made it, and the money of each currency against
/// where it came from. Servers may go on meanwhile.
///
/// Exit code 0 if all is right, 1 with the first thing that is wrong, 2 for wrong usage.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    database: DatabaseConfig,
}

impl Verify {
    pub async fn run(self) -> Result<(), CliError> {
        let store = Store::connect_to_read(self.database.url().map_err(CliError::Usage)?)
            .await
            .map_err(CliError::run)?;
        schema::require_current(&store).await?;
        let began = Instant::now();
        let progress = Arc::new(VerifyProgress::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let verifying =
            async { store.snapshot(cores.min(CONNECTIONS_MAX)).await?.verify(&progress).await };
        let bar = output::bar(0, "{msg:10} {bar:40} {percent}%, {eta} left");
        let show = |bar: &ProgressBar| progress::show_verify(bar, &progress);
        let verified = progress::draw(&bar, show, verifying).await;
        match verified {
            Ok(books) => {
                output::lines(&table(&books))?;
                output::line(summary(&books, began.elapsed()))
            }
            Err(VerifyError::Fault(fault)) => {
                output::line(format_args!("wrong: {fault}"))?;
                Err(CliError::Run("the books are not right".to_owned()))
            }
            Err(error @ VerifyError::Storage(_)) => Err(CliError::run(error)),
        }
    }
}

/// What was found right, and how fast.
fn summary(books: &LedgerTotals, elapsed: Duration) -> String {
    let (counts, seconds) = (counts(books), elapsed.as_secs_f64());
    format!("right: {counts}, in {seconds:.1} s ({:.0} entries/s)", books.entries as f64 / seconds)
}

/// How many there are.
pub fn counts(books: &LedgerTotals) -> String {
    let LedgerTotals { accounts, entries, requests, .. } = books;
    format!("{accounts} accounts, {entries} entries, {requests} requests")
}

/// Where the money of each currency came from, and where it is.
pub fn table(books: &LedgerTotals) -> String {
    let mut rows = vec![["currency", "accounts", "entries"].map(str::to_owned).to_vec()];
    rows[0].extend(TransactionKind::ALL.map(|movement| movement.name().to_owned()));
    rows[0].push("balances".to_owned());
    for ((code, scale), totals) in &books.currencies {
        let currency = Currency::from_parts(code, *scale);
        let mut row = vec![code.clone(), totals.accounts.to_string(), totals.entries.to_string()];
        row.extend(totals.by_kind.map(|units| currency.format_units(units)));
        row.push(currency.format_units(totals.balances));
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
