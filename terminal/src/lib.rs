//! The commands for people, such as `passbook deposit`: clients of a server, no part of it.
//!
//! * [`Command`]: all commands. There is a file for each noun of the contract.
//! * `arguments`: what several commands take, such as amounts and labels.
//! * `change`: how a change is sent and printed.
//! * `contexts`: servers by name.
//! * `file`: files that are replaced at once.
//! * `server`: the connection, calls with their repeats, streams, and their errors.
//! * `view`: messages of the contract as people read them.
//! * `output`: tables, JSON and CSV.

mod account;
mod arguments;
mod change;
mod context;
mod contexts;
mod events;
mod file;
mod hold;
mod output;
mod posting;
mod request;
mod server;
mod statement;
mod stats;
mod transaction;
mod view;
mod watch;

use clap::{Args, Subcommand};
use passbook_command::CliError;

use crate::{
    output::OutputArguments,
    server::{ConnectionArguments, Server},
};

/// A command that calls a server.
#[derive(Subcommand)]
pub enum Command {
    /// Open, read and change accounts.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Add money to an account. The other side is outside the ledger, or the contra account of the
    /// currency.
    Deposit(OnServer<posting::OneAccount>),
    /// Take money out of an account. The other side is outside the ledger, or the contra account of the
    /// currency.
    Withdraw(OnServer<posting::Withdraw>),
    /// Move money between two accounts: both change or neither does.
    Transfer(OnServer<posting::Transfer>),
    /// Post up to 100 legs on any accounts: all are applied or none is.
    Post(OnServer<posting::Post>),
    /// Place, change, capture, release and read holds.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Print the entries of an account, oldest first, with the balance after each.
    Statement(OnServer<statement::Statement>),
    /// Read and reverse transactions.
    #[command(subcommand)]
    Transaction(transaction::TransactionCommand),
    /// Ask what became of a request, or make sure that it is never applied.
    #[command(subcommand)]
    Request(request::RequestCommand),
    /// Print the entries of an account as they are written, until ctrl-c.
    Watch(OnServer<watch::Watch>),
    /// Print everything that happens in the ledger.
    Events(OnServer<events::Events>),
    /// Print what makes a server fast or slow.
    #[command(subcommand)]
    Stats(stats::StatsCommand),
    /// Name servers, and choose the one that commands call.
    #[command(subcommand)]
    Context(context::ContextCommand),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The server cannot be reached, or it did not do what was asked.
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Account(command) => command.run().await,
            Self::Deposit(command) => command.run(posting::OneAccount::deposit).await,
            Self::Withdraw(command) => command.run(posting::Withdraw::run).await,
            Self::Transfer(command) => command.run(posting::Transfer::run).await,
            Self::Post(command) => command.run(posting::Post::run).await,
            Self::Hold(command) => command.run().await,
            Self::Statement(command) => command.run(statement::Statement::run).await,
            Self::Transaction(command) => command.run().await,
            Self::Request(command) => command.run().await,
            Self::Watch(command) => command.run(watch::Watch::run).await,
            Self::Events(command) => command.run(events::Events::run).await,
            Self::Stats(command) => command.run().await,
            Self::Context(command) => command.run(),
        }
    }
}

/// The arguments of a call, with those of every call.
#[derive(Args)]
pub struct OnServer<A: Args> {
    #[command(flatten)]
    call: A,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    connection: ConnectionArguments,
}

impl<A: Args> OnServer<A> {
    async fn run(
        self,
        call: impl AsyncFnOnce(A, &Server) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let server = Server::connect(self.connection, self.output.format()).await?;
        call(self.call, &server).await
    }
}
