//! `passbook serve` as a child process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. It is killed on drop.
pub struct Server {
    pub process_id: u32,
    /// The URL of the server.
    pub target: String,
    _process: Child,
}

impl Server {
    /// Starts `passbook serve` on a free port and waits until it is ready.
    pub async fn start(program: &Path, database_url: &str, log: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--migrate"])
            // Not a flag: a URL may contain a password, and every user can read flags.
            .env("PASSBOOK_DATABASE_URL", database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let process_id = process.id().context("the server ended at once")?;
        let output = process.stdout.take().context("the server has no output")?;
        let Ok(line) = timeout(START_TIMEOUT, ready_line(output)).await else {
            bail!("the server was not ready after {START_TIMEOUT:?}");
        };
        let Some(address) = line?.and_then(|line| address(&line)) else {
            bail!("the server did not start:\n{}", fs::read_to_string(log)?);
        };
        Ok(Self { process_id, target: format!("http://{address}"), _process: process })
    }
}

/// The path of the program that cargo has built: target/<profile>/passbook.
pub fn built_program() -> anyhow::Result<PathBuf> {
    let example = std::env::current_exe()?;
    let profile = example.parent().and_then(Path::parent);
    let program = profile.context("no build folder")?.join("passbook");
    if !program.exists() {
        bail!(
            "{} is not there: run `cargo build` first (with `--release` if this ran with it), \
             or name running servers with --target",
            program.display()
        );
    }
    Ok(program)
}

async fn ready_line(output: tokio::process::ChildStdout) -> std::io::Result<Option<String>> {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("ready: ") {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

/// The address in a line like "ready: listening on 127.0.0.1:41235, database sqlite, ...".
fn address(ready: &str) -> Option<String> {
    let (_, rest) = ready.split_once("listening on ")?;
    let (address, _) = rest.split_once(',')?;
    Some(address.to_owned())
}
