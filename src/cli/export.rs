//! `passbook export`: writes the whole ledger as JSON Lines.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use clap::Args;
use passbook_command::{CliError, output};

use crate::{
    cli::{progress, schema},
    config::DatabaseConfig,
    storage::{ExportError, Store},
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
}

impl Export {
    pub async fn run(self) -> Result<(), CliError> {
        let store = schema::connect_to_read(&self.database).await?;
        let Some(path) = self.output else {
            let mut output = BufWriter::new(io::stdout());
            return write(&store, &mut output).await.map(drop);
        };
        let partial = partial_path(&path);
        let cannot = |error: io::Error| CliError::Run(format!("{}: {error}", partial.display()));
        let mut output = BufWriter::new(File::create(&partial).map_err(cannot)?);
        let written = write(&store, &mut output).await;
        let published = written.and_then(|lines| {
            publish(output, &partial, &path).map_err(cannot)?;
            Ok(lines)
        });
        if published.is_err() {
            // The caller gets the first error. A partial file that cannot be removed adds nothing.
            let _ = fs::remove_file(&partial);
        }
        output::line(format_args!("exported: {} lines to {}", published?, path.display()))
    }
}

async fn write(store: &Store, output: &mut (impl Write + Send)) -> Result<u64, CliError> {
    let bar = output::bar(0, "exporting {spinner} {pos} lines, {per_sec}");
    let lines = AtomicU64::new(0);
    let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let exporting = async {
        let snapshot = store.snapshot(1).await.map_err(CliError::run)?;
        snapshot.export(output, &time, &lines).await.map_err(|error| match error {
            ExportError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                CliError::OutputClosed
            }
            error => CliError::run(error),
        })
    };
    progress::draw(&bar, |bar| bar.set_position(lines.load(Ordering::Relaxed)), exporting).await
}

/// The path of the incomplete file, in the folder of the final one: a rename works within one file
/// system only.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Syncs the incomplete file to the disk, then gives it its final name.
fn publish(output: BufWriter<File>, partial: &Path, path: &Path) -> io::Result<()> {
    let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    // The new name is durable once the folder is synced.
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
