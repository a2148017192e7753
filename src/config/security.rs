//! Who may call, and how that is made sure of.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{auth::CredentialFiles, config::values::parse_switch};

/// Who may call, and how that is made sure of.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub struct SecurityConfig {
    /// Serve on an address that is not a loopback one although callers are not authenticated or
    /// the connections not encrypted.
    #[arg(long, env = "PASSBOOK_INSECURE", value_parser = parse_switch)]
    pub insecure: bool,

    /// The server's certificate and what leads to its root, in PEM. Read again when it changes.
    #[arg(long, env = "PASSBOOK_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,

    /// The certificate's private key, in PEM. Read again when it changes.
    #[arg(long, env = "PASSBOOK_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Mutual TLS: the authorities that callers' certificates must come from, in PEM. The
    /// identity of a caller is its certificate's SPIFFE URI, or its first DNS name. With
    /// tokens_file as well, a caller has either a certificate or a token. Read again when it
    /// changes.
    #[arg(long, env = "PASSBOOK_TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,

    /// The hashes of bearer tokens, and whose they are: `passbook token create` makes one. Read
    /// again when it changes.
    #[arg(long, env = "PASSBOOK_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// What each identity may do; what is not in it is denied. Read again when it changes.
    #[arg(long, env = "PASSBOOK_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    /// Serve although requests of this ledger were recorded under a name that no caller has any more:
    /// authentication was switched on or off. A request that was made so and is sent again, as
    /// callers do after a timeout, is made twice: `recorded_as` in the policy, which lets one
    /// identity go on under that name, is the way that is safe.
    #[arg(long, env = "PASSBOOK_CALLERS_CHANGED")]
    pub callers_changed: bool,

    /// Who may ask for the contract by gRPC reflection, as grpcurl does. If callers are not
    /// authenticated at all, `authenticated` is `public`.
    #[arg(
        long,
        env = "PASSBOOK_REFLECTION",
        value_enum,
        default_value_t = Access::Authenticated,
        value_name = "WHO"
    )]
    pub reflection: Access,

    /// Who may ask grpc.health.v1 whether the server serves. Orchestrators have no tokens.
    #[arg(
        long,
        env = "PASSBOOK_HEALTH",
        value_enum,
        default_value_t = Access::Public,
        value_name = "WHO"
    )]
    pub health: Access,
}

/// Who may use a service about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Access {
    /// Everyone.
    Public,
    /// Whoever has a valid credential.
    Authenticated,
    /// Nobody.
    Off,
}

/// The files of a server that speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificates, its own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// What callers' certificates are verified against.
    pub client_ca: Option<PathBuf>,
    /// Whether a caller without a certificate is turned away in the handshake: there is nothing
    /// else that it could show.
    pub client_certificate_required: bool,
}

impl SecurityConfig {
    /// The files for TLS; None if it is not spoken.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca: self.tls_client_ca_file.clone(),
            client_certificate_required: self.tokens_file.is_none(),
        })
    }

    /// The files of tokens and of the policy; None if callers are not authenticated.
    #[must_use]
    pub fn credential_files(&self) -> Option<CredentialFiles> {
        let policy = self.policy_file.clone()?;
        Some(CredentialFiles { policy, tokens: self.tokens_file.clone() })
    }

    /// Whether callers are asked who they are.
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
            return Err("policy_file is given, but neither tokens_file nor tls_client_ca_file: \
                        nobody could show who they are"
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
            "listen {listen} can be reached from other machines, but there is no {missing}: set \
             it up, or say insecure if something else protects that address"
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
            Err(format!("{key} is given ({path}), so {other_key} is needed, too"))
        }
        _ => Ok(()),
    }
}
