//! `passbook heads`: creates the key of the witness, and signs the head of each account.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::{Args, Subcommand};
use passbook_command::{CliError, output};

use crate::{
    cli::{published_file::PublishedFile, schema},
    config::DatabaseConfig,
    storage::{HEADS_PAGE, Snapshot, VerifyError},
    witness::{HeadsReader, HeadsWriter, PublicKey, SigningKey},
};

#[derive(Args)]
pub struct Heads {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create an Ed25519 key. Its public key goes to standard output. A key of
    /// `openssl genpkey -algorithm ed25519` works as well.
    CreateKey {
        /// The file of the private key, which must not exist yet. Keep it where no writer of the
        /// database can read it.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign the sequence, hash and balance of every account, as of one instant, as JSON Lines.
    /// Servers may run. `passbook verify --heads` checks later whether the ledger continues from
    /// there.
    Sign {
        #[command(flatten)]
        database: DatabaseConfig,

        /// The file of the private key: Ed25519, PKCS#8, PEM.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,

        /// The file to write. It appears under this name once it is complete. Default: standard
        /// output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

impl Heads {
    pub async fn run(self) -> Result<(), CliError> {
        match self.action {
            Action::CreateKey { key } => {
                let key = SigningKey::create(&key).map_err(CliError::Run)?;
                output::lines(&key.public_key().to_pem())
            }
            Action::Sign { database, key, output } => {
                let mut inputs = database.files();
                inputs.push(key.clone());
                let key = SigningKey::read(&key).map_err(CliError::Usage)?;
                let store = schema::connect_to_read(&database).await?;
                let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
                let snapshot = store.snapshot(1).await.map_err(CliError::run)?;
                let Some(path) = output else {
                    let mut output = BufWriter::new(io::stdout());
                    return sign(&snapshot, &key, &time, &mut output).await.map(drop);
                };
                let mut file = PublishedFile::create(&path, &inputs)?;
                let heads = sign(&snapshot, &key, &time, file.output()).await?;
                file.publish()?;
                output::line(format_args!("signed: {heads} heads to {}", path.display()))
            }
        }
    }
}

/// Signs the head of every account of the snapshot, and returns their number.
pub async fn sign(
    snapshot: &Snapshot,
    key: &SigningKey,
    time: &str,
    output: &mut (impl Write + Send),
) -> Result<u64, CliError> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Run(format!("cannot write the heads: {error}")),
    };
    let mut writer = HeadsWriter::begin(output, key, time).map_err(cannot)?;
    let mut last = None;
    loop {
        let page = snapshot.heads_after(last.as_ref()).await.map_err(CliError::run)?;
        let is_last = page.len() < HEADS_PAGE;
        last = page.last().map(|head| head.account_id.clone());
        for head in page {
            writer.push(head).map_err(cannot)?;
        }
        if is_last {
            return writer.finish().map_err(cannot);
        }
    }
}

/// Why heads were not found to continue.
pub enum CheckError {
    /// The file is not as it was signed. One line.
    File(String),
    /// The ledger does not continue from it, or the database does not answer.
    Ledger(VerifyError),
}

/// Checks that the ledger continues from the heads of a file, and returns a sentence about them.
pub async fn check(
    snapshot: &Snapshot,
    path: &Path,
    expected: Option<&PublicKey>,
) -> Result<String, CheckError> {
    let named = |why: String| CheckError::File(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| named(error.to_string()))?;
    let mut reader = HeadsReader::begin(BufReader::new(file), expected).map_err(named)?;
    let mut page = Vec::with_capacity(HEADS_PAGE);
    let mut count = 0;
    loop {
        let head = reader.next_head().map_err(named)?;
        let is_last = head.is_none();
        page.extend(head);
        if page.len() == HEADS_PAGE || is_last {
            snapshot.check_heads(&page).await.map_err(CheckError::Ledger)?;
            count += page.len();
            page.clear();
        }
        if is_last {
            let (key, time) = (reader.key(), reader.create_time());
            return Ok(format!(
                "the ledger continues from the {count} heads of {time}, signed by the key {key}"
            ));
        }
    }
}
