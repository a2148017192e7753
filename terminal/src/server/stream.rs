//! Streams that have no end: one that breaks is opened again, behind its last message.

use std::time::Duration;

use passbook_command::{CliError, output};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status, Streaming};

use crate::server::{CallError, CallKind, Server, backoff};

/// How long a stream may be silent: three heartbeats of the server.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a broken watch looks for its server before it gives up.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// What a command watches, over all of its streams.
pub trait Watch {
    type Message;

    /// Opens a stream behind the last message.
    fn open(
        &self,
        server: &Server,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Message>>, Status>>;

    /// Prints a message. Returns whether it is the last one that is wanted.
    fn print(&mut self, message: Self::Message) -> Result<bool, CliError>;

    /// What the next stream begins after, for people.
    fn position(&self) -> String;
}

impl Server {
    /// Prints messages until the last one that is wanted.
    pub async fn watch(&self, mut watch: impl Watch) -> Result<(), CliError> {
        self.require_connection(CallKind::Read)?;
        let mut last_message = Instant::now();
        let mut attempt = 0;
        loop {
            let before = last_message;
            let Some(status) = self.print_stream(&mut watch, &mut last_message).await? else {
                return Ok(());
            };
            let error = CallError::of(&status);
            if error.is_final() || last_message.elapsed() > OUTAGE_MAX {
                return Err(self.fail(CallKind::Read, &error));
            }
            attempt = if last_message > before { 1 } else { attempt + 1 };
            if attempt == 1 {
                let (position, why) = (watch.position(), output::printable(error.message()));
                output::error_line(format_args!("watching again after {position}: {why}"));
            }
            sleep(backoff(attempt) + error.retry_delay()).await;
        }
    }

    /// Prints the messages of one stream. Returns its error, or None after the last message that is
    /// wanted.
    async fn print_stream(
        &self,
        watch: &mut impl Watch,
        last_message: &mut Instant,
    ) -> Result<Option<Status>, CliError> {
        let silent = || Status::unavailable("no message for 15 seconds");
        let opened = timeout(SILENCE_MAX, watch.open(self)).await;
        let mut stream = match opened.unwrap_or_else(|_| Err(silent())) {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        loop {
            let message = timeout(SILENCE_MAX, stream.message()).await;
            match message.unwrap_or_else(|_| Err(silent())) {
                Ok(Some(message)) => {
                    *last_message = Instant::now();
                    if watch.print(message)? {
                        return Ok(None);
                    }
                }
                Ok(None) => return Ok(Some(Status::unavailable("the stream has ended"))),
                Err(status) => return Ok(Some(status)),
            }
        }
    }
}
