//! `passbook watch`: prints the entries of an account as they are written.

use clap::Args;
use passbook_command::{
    CliError,
    proto::{Entry, GetAccountRequest, WatchEntriesRequest, WatchEntriesResponse},
};
use tonic::{Response, Status, Streaming};

use crate::{
    output::{ListArguments, Rows},
    server::{self, CallKind, Server},
};

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
        server.watch(Entries { account_id: self.account_id, sequence, rows }).await
    }
}

async fn latest_sequence(server: &Server, account_id: &str) -> Result<i64, CliError> {
    let request = GetAccountRequest { account_id: account_id.to_owned() };
    let send = async |request| server.accounts().get_account(request).await;
    let response = server.call(CallKind::Read, request, send).await?;
    Ok(response.account.unwrap_or_default().sequence)
}

/// The entries of one account.
struct Entries {
    account_id: String,
    /// The sequence of the last entry that was printed.
    sequence: i64,
    rows: Rows<Entry>,
}

impl server::Watch for Entries {
    type Message = WatchEntriesResponse;

    async fn open(&self, server: &Server) -> Result<Response<Streaming<Self::Message>>, Status> {
        let account_id = self.account_id.clone();
        let request = WatchEntriesRequest { account_id, after_sequence: self.sequence };
        server.accounts().watch_entries(request).await
    }

    fn print(&mut self, message: WatchEntriesResponse) -> Result<bool, CliError> {
        if !message.entries.is_empty() {
            self.rows.print(&message.entries)?;
            self.sequence = message.sequence;
        }
        Ok(self.rows.wanted() == 0)
    }

    fn position(&self) -> String {
        format!("sequence {}", self.sequence)
    }
}
