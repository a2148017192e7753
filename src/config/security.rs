//! The settings of TLS, authentication and authorization.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

use crate::{
    auth::{CredentialFiles, JwtSettings},
    config::values::{Discreet, JwksSource, parse_jwks, parse_switch},
};

/// The claim with the identity, by default.
const IDENTITY_CLAIM: &str = "sub";

/// TLS, authentication and authorization.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub struct SecurityConfig {
    /// Serve on addresses that other machines can reach, even without TLS or authentication. For the
    /// admin port and the console, too.
    #[arg(long, env, value_parser = parse_switch)]
    pub insecure: bool,

    /// The certificate of the server and the chain to its root, in PEM. The server reads the file
    /// again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub tls_certificate_file: Option<PathBuf>,

    /// The private key of the server's certificate, in PEM. The server reads the file again when it
    /// changes.
    #[arg(long, env, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Mutual TLS: the authorities that issue the certificates of callers, in PEM. The identity of a
    /// caller is the SPIFFE ID of its certificate, or its DNS name. If tokens_file or jwt_issuer is
    /// set, too, a caller needs a certificate or a token. The server reads the file again when it
    /// changes.
    #[arg(long, env, value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,

    /// The hashes of bearer tokens and their identities. `passbook token create` creates an entry.
    /// The server reads the file again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// The policy: the calls that each identity may make. Calls that are not in it are denied. The
    /// server reads the file again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    /// The issuer whose JSON Web Tokens (JWT, as of OpenID Connect) callers may send as bearer
    /// tokens: the text of the claim `iss`. Also required: jwt_audience, jwt_jwks and policy_file.
    #[arg(
        long,
        env,
        value_parser = NonEmptyStringValueParser::new(),
        value_name = "TEXT"
    )]
    pub jwt_issuer: Option<String>,

    /// The audience that a JWT must be for: the text of the claim `aud`, or one of its texts.
    #[arg(
        long,
        env,
        value_parser = NonEmptyStringValueParser::new(),
        value_name = "TEXT"
    )]
    pub jwt_audience: Option<String>,

    /// The public keys of the issuer of JWTs, a JSON Web Key Set, for RS256, ES256 and EdDSA. The
    /// server reads a file again when it changes, and an https URL every 5 minutes and when a token
    /// names an unknown key.
    #[arg(long, env, hide_env_values = true, value_name = "FILE|URL")]
    #[arg(value_parser = Discreet(parse_jwks))]
    pub jwt_jwks: Option<JwksSource>,

    /// The claim of a JWT with the caller's identity, the `name` of an identity with
    /// `known_by = "jwt"` in the policy.
    #[arg(
        long,
        env,
        default_value = IDENTITY_CLAIM,
        value_parser = NonEmptyStringValueParser::new(),
        value_name = "CLAIM"
    )]
    pub jwt_identity_claim: String,

    /// The claim of a JWT with the groups of the caller, a text or a list of texts. An identity
    /// without an entry in the policy may do what the entries of its groups allow.
    #[arg(
        long,
        env,
        value_parser = NonEmptyStringValueParser::new(),
        value_name = "CLAIM"
    )]
    pub jwt_groups_claim: Option<String>,

    /// Serve even if the ledger has requests of identities that no caller has now, as after
    /// authentication was switched on or off. If a caller repeats such a request, as after a
    /// timeout, it is applied a second time. `recorded_as` in the policy is safer: with it, an
    /// identity continues the requests of another one.
    #[arg(long, env, value_parser = parse_switch)]
    pub callers_changed: bool,

    /// Who may read the contract by gRPC reflection, as grpcurl does. On a server without
    /// authentication, `authenticated` means `public`.
    #[arg(long, env, value_enum, default_value_t = Access::Authenticated, value_name = "WHO")]
    pub reflection: Access,

    /// Who may call the health service grpc.health.v1. Orchestrators have no tokens.
    #[arg(long, env, value_enum, default_value_t = Access::Public, value_name = "WHO")]
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
            client_certificate_required: self.tokens_file.is_none() && self.jwt_issuer.is_none(),
        })
    }

    /// The files of policy and tokens; None without authentication.
    #[must_use]
    pub fn credential_files(&self) -> Option<CredentialFiles> {
        let policy = self.policy_file.clone()?;
        Some(CredentialFiles { policy, tokens: self.tokens_file.clone() })
    }

    /// What JWTs must say, and where their keys are; None if callers send no JWTs.
    #[must_use]
    pub fn jwt(&self) -> Option<(JwtSettings, JwksSource)> {
        let settings = JwtSettings {
            issuer: self.jwt_issuer.clone()?,
            audience: self.jwt_audience.clone()?,
            identity_claim: self.jwt_identity_claim.clone(),
            groups_claim: self.jwt_groups_claim.clone(),
        };
        Some((settings, self.jwt_jwks.clone()?))
    }

    /// The file with the key set, if it is one.
    #[must_use]
    pub fn jwks_file(&self) -> Option<&Path> {
        match self.jwt_jwks.as_ref()? {
            JwksSource::File(path) => Some(path),
            JwksSource::Url(_) => None,
        }
    }

    /// Whether the server authenticates callers.
    #[must_use]
    pub fn is_authenticating(&self) -> bool {
        self.tokens_file.is_some() || self.tls_client_ca_file.is_some() || self.jwt_issuer.is_some()
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let certificate = ("tls_certificate_file", path(&self.tls_certificate_file));
        let key = ("tls_key_file", path(&self.tls_key_file));
        let client_ca = ("tls_client_ca_file", path(&self.tls_client_ca_file));
        let tokens = ("tokens_file", path(&self.tokens_file));
        let policy = ("policy_file", path(&self.policy_file));
        let issuer = ("jwt_issuer", self.jwt_issuer.clone());
        let audience = ("jwt_audience", self.jwt_audience.clone());
        let jwks = ("jwt_jwks", self.jwt_jwks.as_ref().map(ToString::to_string));
        let groups_claim = ("jwt_groups_claim", self.jwt_groups_claim.clone());
        let identity_claim = Some(&self.jwt_identity_claim).filter(|it| *it != IDENTITY_CLAIM);
        let identity_claim = ("jwt_identity_claim", identity_claim.cloned());
        for (setting, required) in [
            (&certificate, &key),
            (&key, &certificate),
            (&client_ca, &certificate),
            (&tokens, &policy),
            (&client_ca, &policy),
            (&issuer, &audience),
            (&issuer, &jwks),
            (&issuer, &policy),
            (&audience, &issuer),
            (&jwks, &issuer),
            (&identity_claim, &issuer),
            (&groups_claim, &issuer),
        ] {
            if let ((name, Some(value)), (required_name, None)) = (setting, required) {
                return Err(format!(
                    "{name} is set ({value}), so {required_name} is required, too"
                ));
            }
        }
        if self.policy_file.is_some() && !self.is_authenticating() {
            return Err("policy_file is set, but neither tokens_file nor tls_client_ca_file nor \
                        jwt_issuer is: the server could authenticate no caller"
                .to_owned());
        }
        Ok(())
    }

    /// Checks that other machines reach this address only with TLS and authentication.
    pub(super) fn validate_exposure(&self, name: &str, listen: SocketAddr) -> Result<(), String> {
        if self.insecure || listen.ip().is_loopback() {
            return Ok(());
        }
        let missing = match (self.tls().is_some(), self.is_authenticating()) {
            (true, true) => return Ok(()),
            (false, true) => "TLS (tls_certificate_file, tls_key_file)",
            (true, false) => {
                "authentication (policy_file with tokens_file, tls_client_ca_file or jwt_issuer)"
            }
            (false, false) => {
                "TLS (tls_certificate_file, tls_key_file) and authentication (policy_file with \
                 tokens_file, tls_client_ca_file or jwt_issuer)"
            }
        };
        Err(format!(
            "{name} {listen} can be reached by other machines, but the server lacks {missing}: set \
             these settings, or set insecure if something else protects this address"
        ))
    }
}
