//! `passbook export`: writes the whole ledger as JSON Lines.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use clap::Args;
use passbook_command::{CliError, output};

use crate::{
    cli::{heads, progress, published_file::PublishedFile, schema},
    config::DatabaseConfig,
    storage::{ExportError, Snapshot},
    witness::SigningKey,
};

/// Writes the whole ledger, as of one instant, as JSON Lines. `passbook import` reads them into
/// another database, of either kind. Servers may run during an export, but the export does not
/// contain the changes after its instant: stop all servers before a move.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    database: DatabaseConfig,

    /// The file to write. It appears under this name once it is complete. Default: standard
    /// output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Another file to write: the signed heads of the accounts of this export, as
    /// `passbook heads sign` writes them.
    #[arg(long, value_name = "FILE", requires = "heads_key")]
    heads: Option<PathBuf>,

    /// The file of the private key that signs the heads: Ed25519, PKCS#8, PEM.
    #[arg(long, value_name = "FILE", requires = "heads")]
    heads_key: Option<PathBuf>,
}

impl Export {
    pub async fn run(self) -> Result<(), CliError> {
        let mut inputs = self.database.files();
        inputs.extend(self.heads_key.clone());
        let heads_key = self.heads_key.as_deref().map(SigningKey::read);
        let heads_key = heads_key.transpose().map_err(CliError::Usage)?;
        let store = schema::connect_to_read(&self.database).await?;
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let snapshot = store.snapshot(1).await.map_err(CliError::run)?;
        if let (Some(path), Some(key)) = (&self.heads, &heads_key) {
            let mut file = PublishedFile::create(path, &inputs)?;
            heads::sign(&snapshot, key, &time, file.output()).await?;
            file.publish()?;
            inputs.push(path.clone());
        }
        let Some(path) = self.output else {
            let mut output = BufWriter::new(io::stdout());
            return write(&snapshot, &time, &mut output).await.map(drop);
        };
        let mut file = PublishedFile::create(&path, &inputs)?;
        let lines = write(&snapshot, &time, file.output()).await?;
        file.publish()?;
        output::line(format_args!("exported: {lines} lines to {}", path.display()))
    }
}

async fn write(
    snapshot: &Snapshot,
    time: &str,
    output: &mut (impl Write + Send),
) -> Result<u64, CliError> {
    let bar = output::bar(0, "exporting {spinner} {pos} lines, {per_sec}");
    let lines = AtomicU64::new(0);
    let exporting = async {
        snapshot.export(output, time, &lines).await.map_err(|error| match error {
            ExportError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                CliError::OutputClosed
            }
            error => CliError::run(error),
        })
    };
    progress::draw(&bar, |bar| bar.set_position(lines.load(Ordering::Relaxed)), exporting).await
}
