//! `passbook verify`: recomputes the whole ledger.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use passbook_command::{
    CliError, output,
    table::{Column, Table},
};
use tokio::time::Instant;

use crate::{
    cli::{
        heads::{self, CheckError},
        progress, schema,
    },
    config::DatabaseConfig,
    domain::{money::Currency, transaction::TransactionKind, verification::LedgerTotals},
    storage::{VerifyError, VerifyProgress},
    witness::PublicKey,
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

    /// Signed heads of `passbook heads sign` or `export --heads`: checks that the ledger continues
    /// from them.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,

    /// The public key that must have signed the heads: Ed25519, PEM. Default: the key in the file of
    /// heads, which is printed.
    #[arg(long, value_name = "FILE", requires = "heads")]
    heads_public_key: Option<PathBuf>,

    /// Double entry: the balances of each currency must sum to zero. See `contra_account` of `serve`.
    #[arg(long)]
    require_balanced: bool,
}

impl Verify {
    pub async fn run(self) -> Result<(), CliError> {
        let public_key = self.heads_public_key.as_deref().map(PublicKey::read);
        let public_key = public_key.transpose().map_err(CliError::Usage)?;
        let store = schema::connect_to_read(&self.database).await?;
        let began = Instant::now();
        let progress = Arc::new(VerifyProgress::default());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let verifying = async {
            let snapshot = store.snapshot(cores.min(CONNECTIONS_MAX)).await;
            let snapshot = snapshot.map_err(|error| CheckError::Ledger(error.into()))?;
            let continued = match &self.heads {
                Some(path) => Some(heads::check(&snapshot, path, public_key.as_ref()).await?),
                None => None,
            };
            let totals = snapshot.verify(&progress).await.map_err(CheckError::Ledger)?;
            if self.require_balanced {
                totals.check_balanced().map_err(|fault| CheckError::Ledger(fault.into()))?;
            }
            Ok((totals, continued))
        };
        let bar = output::bar(0, "{msg:10} {bar:40} {percent}%, {eta} left");
        let show = |bar: &ProgressBar| progress::show_verify(bar, &progress);
        match progress::draw(&bar, show, verifying).await {
            Ok((totals, continued)) => {
                output::lines(&table(&totals))?;
                output::line(summary(&totals, began.elapsed()))?;
                if totals.unknown_openings > 0 {
                    output::line(format_args!(
                        "not verified: the attributes at the opening of {} accounts, which are not recorded",
                        totals.unknown_openings
                    ))?;
                }
                continued.map_or(Ok(()), |it| output::line(format_args!("heads: {it}")))
            }
            Err(CheckError::Ledger(VerifyError::Fault(fault))) => {
                output::line(format_args!("fault: {}", output::printable(&fault.to_string())))?;
                Err(CliError::Run("the ledger has a fault".to_owned()))
            }
            Err(CheckError::Ledger(error @ VerifyError::Storage(_))) => Err(CliError::run(error)),
            Err(CheckError::File(why)) => Err(CliError::Run(why)),
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
    let mut columns = vec![Column::text("currency")];
    columns.extend(["accounts", "entries"].map(Column::number));
    columns.extend(TransactionKind::ALL.map(|kind| Column::number(kind.name())));
    columns.push(Column::number("balances"));
    let rows = totals.currencies.iter().map(|((code, scale), currency_totals)| {
        let currency = Currency::from_parts(code, *scale);
        let mut row = vec![
            code.clone(),
            currency_totals.accounts.to_string(),
            currency_totals.entries.to_string(),
        ];
        row.extend(currency_totals.by_kind.map(|units| currency.format_units(units)));
        row.push(currency.format_units(currency_totals.balances));
        row
    });
    Table::new(&columns).part(&rows.collect::<Vec<_>>())
}
