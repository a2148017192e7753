//! The connection of a command to a server.

use std::{
    error::Error,
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

use crate::CliError;

/// A connection that sends the bearer token with every call.
pub type Connection = InterceptedService<Channel, Authorization>;

/// TLS and credentials of a client. The program adds the prefix of the variables.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Connection")]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The authorities that issue the certificate of an https:// server, in PEM. Default: the
    /// authorities of the system.
    #[arg(long, env, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ca_file: Option<PathBuf>,

    /// The name in the certificate of the server, if it differs from the host of the target.
    #[arg(long, env, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,

    /// Mutual TLS: the certificate of the client, in PEM.
    #[arg(long, env, value_name = "FILE", requires = "tls_client_key_file")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_client_certificate_file: Option<PathBuf>,

    /// The private key of the client's certificate, in PEM.
    #[arg(long, env, value_name = "FILE", requires = "tls_client_certificate_file")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_client_key_file: Option<PathBuf>,

    /// A file that contains only the bearer token.
    #[arg(long, env, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// These settings, and where one is not set, that of `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            tls_ca_file: self.tls_ca_file.or(others.tls_ca_file),
            tls_server_name: self.tls_server_name.or(others.tls_server_name),
            tls_client_certificate_file: self
                .tls_client_certificate_file
                .or(others.tls_client_certificate_file),
            tls_client_key_file: self.tls_client_key_file.or(others.tls_client_key_file),
            token_file: self.token_file.or(others.token_file),
        }
    }

    /// These settings with absolute paths, so that they are the same in every folder.
    ///
    /// # Errors
    /// A path is empty, or the current folder is not known.
    pub fn with_absolute_paths(self) -> std::io::Result<Self> {
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        Ok(Self {
            tls_ca_file: absolute(self.tls_ca_file)?,
            tls_server_name: self.tls_server_name,
            tls_client_certificate_file: absolute(self.tls_client_certificate_file)?,
            tls_client_key_file: absolute(self.tls_client_key_file)?,
            token_file: absolute(self.token_file)?,
        })
    }

    /// The file with the bearer token.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// The endpoint of a target: http://HOST:PORT, https://HOST:PORT, or HOST:PORT, which means
    /// http://HOST:PORT.
    ///
    /// # Errors
    /// The target is no address, has a setting of TLS but not https, or a file cannot be read.
    pub fn endpoint(&self, target: &str) -> Result<Endpoint, CliError> {
        let wrong = |reason: &str| CliError::Usage(format!("--target {target}: {reason}"));
        let (scheme, uri) = address(target).map_err(wrong)?;
        let wrong = |error: tonic::transport::Error| wrong(&reason(&error));
        let endpoint = Endpoint::from_shared(uri).map_err(wrong)?;
        if scheme == Scheme::Http {
            // A token must not go over the wire as it is because of a letter in the target.
            let missing = if self.has_tls() {
                "there are settings of TLS (tls_...), which need https://"
            } else if self.token_file.is_some() && !is_of_this_machine(endpoint.uri()) {
                "a token needs TLS (https://): anyone on the way could read it"
            } else {
                return Ok(endpoint);
            };
            return Err(CliError::Usage(format!("--target {target}: {missing}")));
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

    fn has_tls(&self) -> bool {
        let files =
            [&self.tls_ca_file, &self.tls_client_certificate_file, &self.tls_client_key_file];
        self.tls_server_name.is_some() || files.iter().any(|file| file.is_some())
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// The scheme and the URI of a target, or what is wrong with it.
fn address(target: &str) -> Result<(Scheme, String), &'static str> {
    let (scheme, address) = target.split_once("://").unwrap_or(("http", target));
    let scheme = match &*scheme.to_ascii_lowercase() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err("the scheme must be http or https"),
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    if address.contains(['/', '?', '#', '@']) {
        return Err("it must be http://HOST:PORT, https://HOST:PORT or HOST:PORT");
    }
    let name = if scheme == Scheme::Https { "https" } else { "http" };
    let text = format!("{name}://{address}");
    let uri: Option<Uri> = text.parse().ok();
    let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let uri = uri.ok_or("it has no valid host and port")?;
    if uri.port_u16().is_none() {
        return Err("it has no port, or none up to 65535");
    }
    Ok((scheme, text))
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", path.display())))
}

/// What to do if only one side speaks TLS, and what is in the text of such an error.
const ONE_SIDE_SPEAKS_TLS: [(&str, &[&str]); 2] = [
    (
        "if the server speaks TLS, begin its address with https://",
        &["frame with invalid size", "connection closed", "broken pipe", "reset by peer"],
    ),
    ("if the server does not speak TLS, begin its address with http://", &["InvalidContentType"]),
];

/// The text of the innermost error. It has the cause, which the text of tonic's error lacks.
pub fn reason(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let is_said = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    match ONE_SIDE_SPEAKS_TLS.iter().find(|(_, parts)| is_said(parts)) {
        Some((advice, _)) => format!("{text} ({advice})"),
        None => text,
    }
}

/// The text of the error of a call: that of its cause, if tonic made the error.
pub fn text_of_status(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), reason)
}

/// Whether what goes there stays on this machine.
fn is_of_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_of_a_server() {
        for (target, uri) in [
            ("127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("http://[::1]:1/", "http://[::1]:1"),
            ("HTTPS://localhost:65535", "https://localhost:65535"),
        ] {
            let scheme = if uri.starts_with("https") { Scheme::Https } else { Scheme::Http };
            assert_eq!(address(target), Ok((scheme, uri.to_owned())), "{target}");
        }
        for target in [
            "htps://localhost:1",
            "grpcs://localhost:1",
            "://localhost:1",
            "localhost",
            "https://localhost",
            "localhost:65536",
            "localhost:",
            "http://localhost:1/path",
            "http://a@localhost:1",
            "http://:1",
            "",
        ] {
            assert!(address(target).is_err(), "{target}");
        }
    }

    #[test]
    fn settings_of_tls_need_https() {
        let config = ClientConfig { tls_server_name: Some("a".to_owned()), ..Default::default() };
        assert!(matches!(config.endpoint("localhost:1"), Err(CliError::Usage(_))));
        assert!(ClientConfig::default().endpoint("localhost:1").is_ok());
    }

    #[test]
    fn a_token_without_tls_stays_on_this_machine() {
        let config = ClientConfig { token_file: Some("token".into()), ..Default::default() };
        for target in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "LocalHost:1"] {
            assert!(config.endpoint(target).is_ok(), "{target}");
            assert!(ClientConfig::default().endpoint(target).is_ok(), "{target}");
        }
        for target in ["192.0.2.1:1", "http://127.0.0.1.example.com:1", "[2001:db8::1]:1"] {
            assert!(matches!(config.endpoint(target), Err(CliError::Usage(_))), "{target}");
            assert!(ClientConfig::default().endpoint(target).is_ok(), "{target}");
        }
        assert!(config.endpoint("https://192.0.2.1:1").is_ok());
    }
}
