//! `passbook watch`: prints the entries of an account as they are written.

use std::time::Duration;

use clap::Args;
use passbook_command::{
    CliError, output,
    proto::{Entry, GetAccountRequest, WatchEntriesRequest},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use crate::{
    output::{ListArguments, Rows},
    server::{CallError, CallKind, Server, backoff},
};

/// How long a stream may be silent: three heartbeats of the server.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a broken watch looks for its server before it gives up.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// Prints the entries of an account as they are written, in order and without a gap, until ctrl-c. A
/// broken connection is opened again, and the watch continues after the last entry.
#[derive(Args)]
pub struct Watch {
    /// The id of the account.
    account_id: String,

    /// Begin after the entry with this sequence. 0 prints the whole statement first. Default: the
    /// latest entry, so that only new ones are printed.
    #[arg(long, value_name = "N")]
    after_sequence: Option<i64>,

    #[command(flatten)]
    list: ListArguments,
}

impl Watch {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let sequence = match self.after_sequence {
            Some(sequence) => sequence,
            None => latest_sequence(server, &self.account_id).await?,
        };
        let rows = Rows::new(&self.list, server.format());
        let last_message = Instant::now();
        let mut watcher = Watcher { account_id: self.account_id, sequence, last_message, rows };
        let mut attempt = 0;
        loop {
            let before = watcher.last_message;
            let error = match watcher.stream(server).await? {
                Ended::Complete => return Ok(()),
                Ended::Broken(error) => error,
            };
            if error.is_final() || watcher.last_message.elapsed() > OUTAGE_MAX {
                return Err(server.fail(CallKind::Read, &error));
            }
            attempt = if watcher.last_message > before { 1 } else { attempt + 1 };
            if attempt == 1 {
                let (sequence, why) = (watcher.sequence, output::printable(error.message()));
                output::error_line(format_args!("watching again after sequence {sequence}: {why}"));
            }
            sleep(backoff(attempt) + error.retry_delay()).await;
        }
    }
}

async fn latest_sequence(server: &Server, account_id: &str) -> Result<i64, CliError> {
    let request = GetAccountRequest { account_id: account_id.to_owned() };
    let send = async |request| server.accounts().get_account(request).await;
    let response = server.call(CallKind::Read, request, send).await?;
    Ok(response.account.unwrap_or_default().sequence)
}

/// How a stream ended.
enum Ended {
    /// All entries that were wanted are printed.
    Complete,
    Broken(CallError),
}

/// A watch, over all of its streams.
struct Watcher {
    account_id: String,
    /// The sequence of the last entry that was printed.
    sequence: i64,
    last_message: Instant,
    rows: Rows<Entry>,
}

impl Watcher {
    /// Prints the entries of one stream.
    async fn stream(&mut self, server: &Server) -> Result<Ended, CliError> {
        let broken = |status: &Status| Ok(Ended::Broken(CallError::of(status)));
        let silent = || Status::unavailable("no message for 15 seconds");
        let account_id = self.account_id.clone();
        let request = WatchEntriesRequest { account_id, after_sequence: self.sequence };
        let mut accounts = server.accounts();
        let opened = timeout(SILENCE_MAX, accounts.watch_entries(request)).await;
        let mut stream = match opened.unwrap_or_else(|_| Err(silent())) {
            Ok(response) => response.into_inner(),
            Err(status) => return broken(&status),
        };
        while self.rows.wanted() > 0 {
            let message = timeout(SILENCE_MAX, stream.message()).await;
            match message.unwrap_or_else(|_| Err(silent())) {
                Ok(Some(message)) => {
                    self.last_message = Instant::now();
                    if !message.entries.is_empty() {
                        self.rows.print(&message.entries)?;
                        self.sequence = message.sequence;
                    }
                }
                Ok(None) => return broken(&Status::unavailable("the stream has ended")),
                Err(status) => return broken(&status),
            }
        }
        Ok(Ended::Complete)
    }
}
