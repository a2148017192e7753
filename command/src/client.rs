//! The connection of a command to a server.

use std::path::{Path, PathBuf};

use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::CliError;

/// A connection that sends the bearer token with every call.
pub type Connection = InterceptedService<Channel, Authorization>;

/// TLS and credentials of a client. The program adds the prefix of the variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ClientConfig {
    /// The authorities that issue the certificate of an https:// server, in PEM. Default: the
    /// authorities of the system.
    #[arg(long, env, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// The name in the certificate of the server, if it differs from the host of the target.
    #[arg(long, env, value_name = "NAME")]
    tls_server_name: Option<String>,

    /// Mutual TLS: the certificate of the client, in PEM.
    #[arg(long, env, value_name = "FILE", requires = "tls_client_key_file")]
    tls_client_certificate_file: Option<PathBuf>,

    /// The private key of the client's certificate, in PEM.
    #[arg(long, env, value_name = "FILE", requires = "tls_client_certificate_file")]
    tls_client_key_file: Option<PathBuf>,

    /// A file that contains only the bearer token.
    #[arg(long, env, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Adds the bearer token, if the client has one, to each call.
#[derive(Clone)]
pub struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl ClientConfig {
    /// The endpoint of a target: http://HOST:PORT, https://HOST:PORT, or HOST:PORT, which means
    /// http://HOST:PORT.
    ///
    /// # Errors
    /// The target is no address, or a file cannot be read.
    pub fn endpoint(&self, target: &str) -> Result<Endpoint, CliError> {
        let uri = match target.split_once("://") {
            Some(_) => target.to_owned(),
            None => format!("http://{target}"),
        };
        let wrong = |error: tonic::transport::Error| {
            CliError::Usage(format!("--target {target}: {}", reason(&error)))
        };
        let is_encrypted = uri.starts_with("https://");
        let endpoint = Endpoint::from_shared(uri).map_err(wrong)?;
        if !is_encrypted {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.tls_ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        };
        if let Some(name) = &self.tls_server_name {
            tls = tls.domain_name(name);
        }
        let own = (&self.tls_client_certificate_file, &self.tls_client_key_file);
        if let (Some(certificate), Some(key)) = own {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint.tls_config(tls).map_err(wrong)
    }

    /// The bearer token of every call, from the file.
    ///
    /// # Errors
    /// The file cannot be read, or its content is no token.
    pub fn authorization(&self) -> Result<Authorization, CliError> {
        let Some(path) = &self.token_file else { return Ok(Authorization(None)) };
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let mut token: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
            .parse()
            .map_err(|_| CliError::Usage(format!("{}: the content is no token", path.display())))?;
        token.set_sensitive(true);
        Ok(Authorization(Some(token)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", path.display())))
}

/// The text of the innermost error. It has the cause, which the text of tonic's error lacks.
pub fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
