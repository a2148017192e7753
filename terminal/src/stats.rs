//! `passbook stats`: prints what makes a server fast or slow.

use clap::{Args, Subcommand};
use passbook_command::{
    CliError,
    proto::{GetWritePathStatsRequest, ListContendedAccountsRequest},
};

use crate::{
    OnServer,
    output::Rows,
    server::{CallKind, Server},
    view::distributions,
};

#[derive(Subcommand)]
pub enum StatsCommand {
    /// Print the sizes of batches and the times of their steps, since the server started.
    WritePath(OnServer<WritePath>),
    /// Print the accounts for which requests wait, those with the most waits first.
    ContendedAccounts(OnServer<ContendedAccounts>),
}

impl StatsCommand {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::WritePath(command) => command.run(WritePath::run).await,
            Self::ContendedAccounts(command) => command.run(ContendedAccounts::run).await,
        }
    }
}

#[derive(Args)]
pub struct WritePath {}

impl WritePath {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = GetWritePathStatsRequest {};
        let send = async |request| server.admin().get_write_path_stats(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        server.format().print(&response, || distributions(&response))
    }
}

#[derive(Args)]
pub struct ContendedAccounts {
    /// Print at most this many accounts, up to 500.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: i32,
}

impl ContendedAccounts {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = ListContendedAccountsRequest { page_size: self.limit };
        let send = async |request| server.admin().list_contended_accounts(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        Rows::all(server.format()).print(&response.accounts)
    }
}
