//! `passbook healthcheck`.

use std::time::Duration;

use clap::Args;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::cli::Failed;

#[derive(Args)]
pub struct Healthcheck {
    /// The server to ask.
    #[arg(
        long,
        env = "PASSBOOK_TARGET",
        default_value = "http://127.0.0.1:50051",
        value_name = "ADDRESS"
    )]
    target: String,

    /// How long it may take to answer.
    #[arg(
        long,
        env = "PASSBOOK_TIMEOUT",
        default_value = "2s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
}

impl Healthcheck {
    pub async fn run(self) -> Result<(), Failed> {
        let uri = match self.target.split_once("://") {
            Some(_) => self.target.clone(),
            None => format!("http://{}", self.target),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Failed::Usage(format!("--target {}: {error}", self.target)))?
            .connect_timeout(self.timeout)
            .timeout(self.timeout);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Failed::Run(format!("{} cannot be reached: {error}", self.target)))?;
        let request = HealthCheckRequest { service: String::new() };
        let response = HealthClient::new(channel)
            .check(request)
            .await
            .map_err(|status| Failed::Run(format!("{}: {}", self.target, status.message())))?;
        match response.into_inner().status() {
            ServingStatus::Serving => {
                println!("serving");
                Ok(())
            }
            status => Err(Failed::Run(format!("{}: {}", self.target, status.as_str_name()))),
        }
    }
}
