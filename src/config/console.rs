//! The settings of the console.

use std::net::SocketAddr;

use clap::Args;

use crate::config::{security::SecurityConfig, values::parse_address};

/// The console.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Console")]
pub struct ConsoleSettings {
    /// The address of the console, web pages that show accounts, transactions and requests. It has TLS
    /// if the gRPC server has, and people sign in with a token of tokens_file or a JWT. Default: no
    /// console.
    #[arg(long, env, value_name = "ADDRESS", value_parser = parse_address)]
    pub console_listen: Option<SocketAddr>,
}

impl ConsoleSettings {
    pub(super) fn validate(&self, security: &SecurityConfig) -> Result<(), String> {
        let Some(listen) = self.console_listen else { return Ok(()) };
        if security.is_authenticating()
            && security.tokens_file.is_none()
            && security.jwt_issuer.is_none()
        {
            return Err(format!(
                "console_listen is set ({listen}), so tokens_file or jwt_issuer is required, too: \
                 nobody signs in to the console with a certificate"
            ));
        }
        security.validate_exposure("console_listen", listen)
    }
}
