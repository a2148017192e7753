//! The settings of TLS, authentication and authorization.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{auth::CredentialFiles, config::values::parse_switch};

/// TLS, authentication and authorization.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub struct SecurityConfig {
    /// Serve on an address that other machines can reach, even without TLS or authentication.
    #[arg(long, env = "PASSBOOK_INSECURE", value_parser = parse_switch)]
    pub insecure: bool,

    /// The certificate of the server and the chain to its root, in PEM. The server reads the file
    /// again when it changes.
    #[arg(long, env = "PASSBOOK_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,

    /// The private key of the server's certificate, in PEM. The server reads the file again when it
    /// changes.
    #[arg(long, env = "PASSBOOK_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Mutual TLS: the authorities that issue the certificates of callers, in PEM. The identity of a
    /// caller is the SPIFFE ID of its certificate, or its DNS name. If tokens_file is set,
    /// too, a caller needs a certificate or a token. The server reads the file again when it
    /// changes.
    #[arg(long, env = "PASSBOOK_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,

    /// The hashes of bearer tokens and their identities. `passbook token create` creates an entry.
    /// The server reads the file again when it changes.
    #[arg(long, env = "PASSBOOK_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// The policy: the calls that each identity may make. Calls that are not in it are denied. The
    /// server reads the file again when it changes.
    #[arg(long, env = "PASSBOOK_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    /// Serve even if requests of this ledger are recorded under a name that no caller has now, because
    /// authentication was switched on or off. A repeat of such a request, as after a timeout, is
    /// applied a second time. `recorded_as` in the policy is the safe way: it lets one identity
    /// continue under that name.
    #[arg(long, env = "PASSBOOK_CALLERS_CHANGED")]
    pub callers_changed: bool,

    /// Who may read the contract by gRPC reflection, as grpcurl does. On a server without
    /// authentication, `authenticated` means `public`.
    #[arg(
        long,
        env = "PASSBOOK_REFLECTION",
        value_enum,
        default_value_t = Access::Authenticated,
        value_name = "WHO"
    )]
    pub reflection: Access,

    /// Who may call the health service grpc.health.v1. Orchestrators have no tokens.
    #[arg(
        long,
        env = "PASSBOOK_HEALTH",
        value_enum,
        default_value_t = Access::Public,
        value_name = "WHO"
    )]
    pub health: Access,
}

/// The callers that may use reflection or health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Access {
    /// Every caller.
    Public,
    /// Callers with a valid credential.
    Authenticated,
    /// No caller: the service is not served.
    Off,
}

/// The files of a server with TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain of the server, in PEM, its own certificate first.
    pub certificate: PathBuf,
    /// The private key of that certificate, in PEM.
    pub key: PathBuf,
    /// The authorities of callers' certificates, in PEM; None without mutual TLS.
    pub client_ca: Option<PathBuf>,
    /// Whether the handshake fails without a certificate of the caller. True if callers have no
    /// other credential.
    pub client_certificate_required: bool,
}

impl SecurityConfig {
    /// The files of TLS; None without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca: self.tls_client_ca_file.clone(),
            client_certificate_required: self.tokens_file.is_none(),
        })
    }

    /// The files of policy and tokens; None without authentication.
    #[must_use]
    pub fn credential_files(&self) -> Option<CredentialFiles> {
        let policy = self.policy_file.clone()?;
        Some(CredentialFiles { policy, tokens: self.tokens_file.clone() })
    }

    /// Whether the server authenticates callers.
    #[must_use]
    pub fn is_authenticating(&self) -> bool {
        self.tokens_file.is_some() || self.tls_client_ca_file.is_some()
    }

    pub(super) fn validate(&self, listen: SocketAddr) -> Result<(), String> {
        requires(
            "tls_certificate_file",
            &self.tls_certificate_file,
            "tls_key_file",
            &self.tls_key_file,
        )?;
        requires(
            "tls_key_file",
            &self.tls_key_file,
            "tls_certificate_file",
            &self.tls_certificate_file,
        )?;
        let (ca, certificate) = (&self.tls_client_ca_file, &self.tls_certificate_file);
        requires("tls_client_ca_file", ca, "tls_certificate_file", certificate)?;
        requires("tokens_file", &self.tokens_file, "policy_file", &self.policy_file)?;
        requires("tls_client_ca_file", ca, "policy_file", &self.policy_file)?;
        if self.policy_file.is_some() && !self.is_authenticating() {
            return Err("policy_file is set, but neither tokens_file nor tls_client_ca_file: \
                        no caller could be authenticated"
                .to_owned());
        }
        if self.insecure || listen.ip().is_loopback() {
            return Ok(());
        }
        let missing = match (self.tls().is_some(), self.is_authenticating()) {
            (true, true) => return Ok(()),
            (false, true) => "TLS (tls_certificate_file, tls_key_file)",
            (true, false) => "authentication (policy_file with tokens_file or tls_client_ca_file)",
            (false, false) => {
                "TLS (tls_certificate_file, tls_key_file) and authentication (policy_file with \
                 tokens_file or tls_client_ca_file)"
            }
        };
        Err(format!(
            "listen {listen} can be reached from other machines without {missing}: set up what is \
             missing, or set insecure if something else protects that address"
        ))
    }
}

fn requires(
    key: &str,
    value: &Option<PathBuf>,
    other_key: &str,
    other: &Option<PathBuf>,
) -> Result<(), String> {
    match (value.as_deref().map(Path::display), other) {
        (Some(path), None) => {
            Err(format!("{key} is set ({path}), so {other_key} is required, too"))
        }
        _ => Ok(()),
    }
}
