//! How commands that are clients reach a server.

use std::path::{Path, PathBuf};

use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::CliError;

/// A connection on which every call shows the token.
pub type Connection = InterceptedService<Channel, Authorization>;

/// How to reach a server that speaks TLS or asks who calls.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ClientConfig {
    /// The authorities that the certificate of an https:// server must come from, in PEM. Default:
    /// the system's.
    #[arg(long, env = "PASSBOOK_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// The name in that certificate, where it is not the target's.
    #[arg(long, env = "PASSBOOK_TLS_SERVER_NAME", value_name = "NAME")]
    tls_server_name: Option<String>,

    /// For mutual TLS: the client's certificate, in PEM.
    #[arg(
        long,
        env = "PASSBOOK_TLS_CLIENT_CERTIFICATE_FILE",
        value_name = "FILE",
        requires = "tls_client_key_file"
    )]
    tls_client_certificate_file: Option<PathBuf>,

    /// The key of the client's certificate, in PEM.
    #[arg(
        long,
        env = "PASSBOOK_TLS_CLIENT_KEY_FILE",
        value_name = "FILE",
        requires = "tls_client_certificate_file"
    )]
    tls_client_key_file: Option<PathBuf>,

    /// A file with a bearer token, and nothing else.
    #[arg(long, env = "PASSBOOK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Puts the token, if there is one, into each request.
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
    /// How to connect to this target: http://HOST:PORT, https://HOST:PORT, or HOST:PORT, which is
    /// the first.
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

    /// What every call is to show.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn authorization(&self) -> Result<Authorization, CliError> {
        let Some(path) = &self.token_file else { return Ok(Authorization(None)) };
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let mut token: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
            .parse()
            .map_err(|_| CliError::Usage(format!("{}: is not a token", path.display())))?;
        token.set_sensitive(true);
        Ok(Authorization(Some(token)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", path.display())))
}

/// The innermost error, which says what happened; tonic's own says only that something did.
pub fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
