//! Copies all events of a ledger into a file of JSON Lines, each exactly once.
//!
//! ```text
//! cargo run --release --example copy_events -- events.jsonl \
//!     --target http://127.0.0.1:50051 --target http://127.0.0.1:50052
//! ```
//!
//! A line has the events of one message and the token behind them, so one write stores both. When the
//! program starts, it cuts off a line that was not written to its end, and resumes after the token of
//! the line before. So the file has each event once, whenever the program, its machine or a server is
//! killed. Another system can be fed in the same way if it stores the token in the transaction that
//! stores the events.

mod copy;
mod json;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use passbook::proto::{
    WatchEventsRequest, account_service_client::AccountServiceClient, watch_events_request::Start,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::copy::Copy;

/// The pause before the next server is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// A server sends a heartbeat every 5 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Copies all events of a ledger into a file of JSON Lines.
#[derive(Parser)]
struct Arguments {
    /// The file. Continued if it exists.
    file: PathBuf,
    /// A server. Can be repeated for several servers over one database.
    #[arg(long = "target", value_name = "URL", default_value = "http://127.0.0.1:50051")]
    targets: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut copy = Copy::open(&arguments.file)?;
    for target in arguments.targets.iter().cycle() {
        match watch(target, &mut copy).await? {
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => return Ok(ExitCode::FAILURE),
            // Another server may answer, or this one a little later.
            _ => sleep(RETRY_INTERVAL).await,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies events until the stream ends, and returns the code of its error.
async fn watch(target: &str, copy: &mut Copy) -> anyhow::Result<Code> {
    let ended = |status: Status| {
        eprintln!("{target}: {}", status.message());
        Ok(status.code())
    };
    let Ok(mut client) = AccountServiceClient::connect(target.to_owned()).await else {
        eprintln!("{target}: no connection");
        return Ok(Code::Unavailable);
    };
    let start = match copy.token() {
        Some(token) => Start::AfterToken(token.to_owned()),
        None => Start::FromBeginning(()),
    };
    let request = WatchEventsRequest { start: Some(start), ..WatchEventsRequest::default() };
    let mut messages = match client.watch_events(request).await {
        Ok(messages) => messages.into_inner(),
        Err(status) => return ended(status),
    };
    loop {
        // A machine that is gone says nothing.
        let Ok(message) = timeout(SILENCE_MAX, messages.message()).await else {
            eprintln!("{target}: silent");
            return Ok(Code::Unavailable);
        };
        match message {
            Ok(Some(message)) if message.events.is_empty() => {}
            Ok(Some(message)) => copy.append(message)?,
            Ok(None) => return Ok(Code::Unavailable),
            Err(status) => return ended(status),
        }
    }
}
