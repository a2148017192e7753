//! `passbook request`: asks what became of a request, or makes sure that it is never applied.

use clap::{Args, Subcommand};
use passbook_command::{
    CliError,
    proto::{FenceRequestRequest, GetRequestOutcomeRequest, GetRequestOutcomeResponse},
};

use crate::{
    OnServer,
    server::{CallKind, Server},
    view::outcome_text,
};

#[derive(Subcommand)]
pub enum RequestCommand {
    /// Print what became of a request of this caller, without applying it.
    Outcome(OnServer<Outcome>),
    /// Make sure that a request without a result is never applied, and print what became of it.
    Fence(OnServer<Fence>),
}

impl RequestCommand {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Outcome(command) => command.run(Outcome::run).await,
            Self::Fence(command) => command.run(Fence::run).await,
        }
    }
}

#[derive(Args)]
pub struct Outcome {
    /// The id of the request.
    request_id: String,
}

impl Outcome {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = GetRequestOutcomeRequest { request_id: self.request_id };
        let send = async |request| server.accounts().get_request_outcome(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        server.format().print(&response, || outcome_text(&response))
    }
}

#[derive(Args)]
pub struct Fence {
    /// The id of the request.
    request_id: String,
}

impl Fence {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = FenceRequestRequest { request_id: self.request_id.clone() };
        let send = async |request| server.accounts().fence_request(request).await;
        let response = server.call(CallKind::Change(&self.request_id), request, send).await?;
        server.format().print(&response, || {
            // The two messages have the same fields.
            let response = response.clone();
            outcome_text(&GetRequestOutcomeResponse {
                outcome: response.outcome,
                transaction: response.transaction,
                hold: response.hold,
                error: response.error,
                fenced: response.fenced,
            })
        })
    }
}
