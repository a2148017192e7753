//! Which server a command calls, and the connection to it.

use std::time::Duration;

use clap::Args;
use passbook_command::{
    CliError,
    client::{ClientConfig, reason},
    parse_duration,
};
use tonic::service::interceptor::InterceptedService;

use crate::{
    contexts::ContextFile,
    output::Format,
    server::{CallError, Server},
};

/// The server that `passbook serve` is without any settings.
pub const TARGET_DEFAULT: &str = "http://127.0.0.1:50051";

/// Which server a command calls, and how.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArguments {
    /// The server: http://HOST:PORT, https://HOST:PORT, or HOST:PORT. Default: that of the context,
    /// or http://127.0.0.1:50051.
    #[arg(long, env, value_name = "ADDRESS")]
    target: Option<String>,

    /// The context, whose settings are the defaults of these flags. Default: the one that `passbook
    /// context use` chose.
    #[arg(long, env, value_name = "NAME")]
    context: Option<String>,

    #[command(flatten)]
    contexts: ContextFile,

    /// The time of a call with all its repeats. `watch` and `events` have none.
    #[arg(long, env, default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    client: ClientConfig,
}

impl Server {
    /// Connects to the server that the arguments or their context name. If that fails, the first call
    /// reports it: then it is known what the call was.
    pub async fn connect(arguments: ConnectionArguments, format: Format) -> Result<Self, CliError> {
        let ConnectionArguments { target, context, contexts, timeout, client } = arguments;
        // With a target of its own, a command needs the context only if it names one.
        let context = match (&target, &context) {
            (Some(_), None) => None,
            _ => contexts.select(context.as_deref())?,
        };
        let (context_target, context_client) = context.map(|it| (it.target, it.client)).unzip();
        let client = client.or(context_client.unwrap_or_default());
        let target = target.or(context_target).unwrap_or_else(|| TARGET_DEFAULT.to_owned());
        let authorization = client.authorization()?;
        let endpoint = client.endpoint(&target)?.connect_timeout(timeout);
        let (channel, unreachable) = match endpoint.connect().await {
            Ok(channel) => (channel, None),
            Err(error) => {
                let error = CallError::unreachable(&target, &reason(&error));
                (endpoint.connect_lazy(), Some(error))
            }
        };
        let connection = InterceptedService::new(channel, authorization);
        Ok(Self { connection, unreachable, timeout, format })
    }
}
