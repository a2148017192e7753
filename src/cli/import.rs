//! `passbook import`: reads an export into an empty database.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    sync::atomic::Ordering,
};

use clap::Args;
use passbook_command::{CliError, output};

use crate::{
    cli::{progress, schema, verify},
    config::DatabaseConfig,
    domain::verification::LedgerTotals,
    storage::{ImportProgress, SchemaStatus, Store},
};

/// Bytes that one read takes from the input.
const BUFFER_BYTES: usize = 1 << 18;
/// A server that runs on the empty database has checked nothing of what it has now.
const RESTART: &str =
    "restart the servers that run on this database: they check a ledger only at their start";

/// Reads an export of `passbook export` into an empty database, of either kind: every account,
/// entry and hold, and every request with its result. The import verifies the whole ledger before
/// it commits. After an error or an interruption the database is as empty as before.
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    database: DatabaseConfig,

    /// The export to read. Default: standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Import {
    pub async fn run(self) -> Result<(), CliError> {
        let url = self.database.url().map_err(CliError::Usage)?;
        let (input, length): (Box<dyn BufRead + Send>, u64) = match &self.input {
            Some(path) => {
                let cannot =
                    |error: io::Error| CliError::Run(format!("{}: {error}", path.display()));
                let file = File::open(path).map_err(cannot)?;
                let length = file.metadata().map_err(cannot)?.len();
                (Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), length)
            }
            None => (Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())), 0),
        };
        let store = Store::connect(url, None).await.map_err(CliError::run)?;
        let imported = import(&store, input, length).await;
        schema::close(&store).await;
        let totals = imported?;
        output::lines(&verify::table(&totals))?;
        output::line(format_args!("imported: {}", verify::counts(&totals)))?;
        output::line(RESTART)
    }
}

/// Creates a missing schema, and imports.
async fn import(
    store: &Store,
    input: impl BufRead + Send,
    length: u64,
) -> Result<LedgerTotals, CliError> {
    match store.schema_status().await.map_err(CliError::run)? {
        SchemaStatus::Missing => store.migrate_up().await.map_err(CliError::run)?,
        status => schema::require_current(status)?,
    }
    let bar =
        output::bar(length, "{msg:10} {bar:40} {percent}%, {eta} left").with_message("reading");
    let progress = ImportProgress::default();
    let update = |bar: &indicatif::ProgressBar| {
        if progress.is_verifying.load(Ordering::Relaxed) {
            progress::show_verify(bar, &progress.verify);
        } else {
            bar.set_position(progress.bytes.load(Ordering::Relaxed));
        }
    };
    let imported = progress::draw(&bar, update, store.import(input, &progress)).await;
    imported.map_err(CliError::run)
}
