//! `passbook healthcheck`: asks a server for its health.

use std::time::Duration;

use clap::Args;
use passbook_command::{
    CliError,
    client::{ClientConfig, reason, text_of_status},
    output, parse_duration,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[derive(Args)]
pub struct Healthcheck {
    /// The server whose health is checked: http://HOST:PORT, https://HOST:PORT, or HOST:PORT.
    #[arg(long, env, default_value = "http://127.0.0.1:50051", value_name = "ADDRESS")]
    target: String,

    /// The timeout of the connection, and of the health check on it.
    #[arg(long, env, default_value = "2s")]
    #[arg(value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    client: ClientConfig,
}

impl Healthcheck {
    pub async fn run(self) -> Result<(), CliError> {
        let endpoint = self.client.endpoint(&self.target)?;
        let endpoint = endpoint.connect_timeout(self.timeout).timeout(self.timeout);
        let channel = endpoint.connect().await.map_err(|error| {
            CliError::Run(format!("{} cannot be reached: {}", self.target, reason(&error)))
        })?;
        let request = HealthCheckRequest { service: String::new() };
        let response = HealthClient::with_interceptor(channel, self.client.authorization()?)
            .check(request)
            .await
            .map_err(|status| {
                CliError::Run(format!("{}: {}", self.target, text_of_status(&status)))
            })?;
        match response.into_inner().status() {
            ServingStatus::Serving => output::line("serving"),
            status => Err(CliError::Run(format!("{}: {}", self.target, status.as_str_name()))),
        }
    }
}
