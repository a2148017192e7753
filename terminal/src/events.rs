//! `passbook events`: prints everything that happens in the ledger.

use std::{fs, io, path::PathBuf};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use passbook_command::{
    CliError, output,
    proto::{
        Event, EventKind, WatchEventsRequest, WatchEventsResponse, watch_events_request::Start,
    },
};
use tonic::{Response, Status, Streaming};

use crate::{
    file,
    output::Rows,
    server::{self, Server},
};

/// Prints everything that happens in the ledger, in order: transactions, and changes of holds and of
/// accounts. It begins with the first event, and ends when it has printed all that had happened when
/// the command began. A few newer events may come at the end.
#[derive(Args)]
pub struct Events {
    /// Go on until ctrl-c. A broken connection is opened again.
    #[arg(long)]
    follow: bool,

    /// Begin after the event with this token, which WatchEvents has sent.
    #[arg(long, value_name = "TOKEN", conflicts_with = "state")]
    after_token: Option<String>,

    /// Begin where the last run with this file ended, or else with the first event. The file is
    /// replaced after each part of the output: a run that is killed can repeat events, and leaves
    /// none out. Its folder must exist.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Only events with an account whose id begins with this. Can be repeated.
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,

    /// Only events of this kind. Can be repeated.
    #[arg(long = "kind", value_name = "KIND", value_parser = kind_parser())]
    kinds: Vec<EventKind>,
}

fn kind_parser() -> impl TypedValueParser<Value = EventKind> {
    PossibleValuesParser::new([
        "transaction",
        "hold_placed",
        "hold_updated",
        "hold_captured",
        "hold_released",
        "hold_expired",
        "account_opened",
        "account_updated",
        "account_frozen",
        "account_unfrozen",
        "account_closed",
    ])
    .map(|name| {
        let name = format!("EVENT_KIND_{}", name.to_uppercase());
        EventKind::from_str_name(&name).unwrap_or_default()
    })
}

impl Events {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let state = self.state.map(StateFile);
        let token = match &state {
            Some(state) => state.read()?,
            None => self.after_token,
        };
        let filter = WatchEventsRequest {
            account_id_prefixes: self.prefixes,
            kinds: self.kinds.into_iter().map(Into::into).collect(),
            ..WatchEventsRequest::default()
        };
        let rows = Rows::all(server.format());
        server.watch(Feed { filter, token, state, follow: self.follow, rows }).await
    }
}

/// The file with the token behind the last event that was printed.
struct StateFile(PathBuf);

impl StateFile {
    /// None: there is no file yet.
    ///
    /// # Errors
    /// There is no folder for it either, or it cannot be read. Nothing is printed yet.
    fn read(&self) -> Result<Option<String>, CliError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::check_folder(&self.0).map(|()| None)
            }
            Err(error) => {
                Err(CliError::Usage(format!("{}: cannot be read: {error}", self.0.display())))
            }
        }
    }

    fn write(&self, token: &str) -> Result<(), CliError> {
        file::replace(&self.0, &format!("{token}\n"))
    }
}

/// The events of the ledger.
struct Feed {
    filter: WatchEventsRequest,
    /// Of the last message. None: the feed begins with the first event.
    token: Option<String>,
    state: Option<StateFile>,
    /// Whether new events are wanted, too.
    follow: bool,
    rows: Rows<Event>,
}

impl server::Watch for Feed {
    type Message = WatchEventsResponse;

    async fn open(&self, server: &Server) -> Result<Response<Streaming<Self::Message>>, Status> {
        let token = self.token.clone();
        let start = token.map_or(Start::FromBeginning(()), Start::AfterToken);
        let request = WatchEventsRequest { start: Some(start), ..self.filter.clone() };
        server.accounts().watch_events(request).await
    }

    fn print(&mut self, message: WatchEventsResponse) -> Result<bool, CliError> {
        if !message.events.is_empty() {
            self.rows.print(&message.events)?;
        }
        let is_last = message.caught_up && !self.follow;
        if self.token.as_ref() != Some(&message.token) {
            if let Some(state) = &self.state {
                // After a crash of the machine, the file must not be ahead of the output.
                output::sync()?;
                state.write(&message.token)?;
            }
            self.token = Some(message.token);
        }
        Ok(is_last)
    }

    fn position(&self) -> String {
        self.token.as_ref().map_or_else(|| "nothing".to_owned(), |token| format!("token {token}"))
    }
}
