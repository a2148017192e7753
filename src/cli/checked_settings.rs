//! The settings of a server with the content of their files: the beginning of `serve`, and all that
//! `config check` checks.

use std::sync::Arc;

use crate::{
    auth::{Authenticator, CredentialFiles, CredentialTexts, JwtIssuer},
    config::{Access, JwksSource, SecurityConfig, ServeConfig},
    domain::{balancing::ContraAccounts, money::Currencies},
    server::{AdminToken, Jwks, Tls},
};

const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
const REFLECTION_SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Valid settings, and what is in their files. No port and no connection is open yet.
pub struct CheckedSettings {
    pub config: ServeConfig,
    pub currencies: Currencies,
    pub contra_accounts: Option<ContraAccounts>,
    /// The files of tokens and policy.
    pub credentials: Option<(CredentialFiles, CredentialTexts)>,
    pub authenticator: Arc<Authenticator>,
    /// The issuer of JWTs, and where its keys are, which are not loaded yet.
    pub jwt: Option<(Arc<JwtIssuer>, JwksSource)>,
    pub tls: Option<Arc<Tls>>,
    pub admin_token: Option<Arc<AdminToken>>,
}

impl CheckedSettings {
    /// Checks the settings, and reads and checks their files. Returns the first error, in one line.
    pub fn read(config: ServeConfig) -> Result<Self, String> {
        config.validate()?;
        let currencies = config.currencies()?;
        let contra_accounts = config.contra_accounts(&currencies)?;
        let security = &config.security;
        let credentials = read_credentials(security)?;
        let jwt = match security.jwt() {
            None => None,
            Some((settings, source)) => {
                Jwks::check(&source)?;
                Some((Arc::new(JwtIssuer::new(settings)), source))
            }
        };
        let issuer = jwt.as_ref().map(|(issuer, _)| issuer.clone());
        let authenticator = authenticator(security, credentials.as_ref(), issuer, &currencies)?;
        let tls = security.tls().map(Tls::load).transpose()?.map(Arc::new);
        let admin_token = config.telemetry.admin_token_file.clone().map(AdminToken::load);
        let admin_token = admin_token.transpose()?.map(Arc::new);
        Ok(Self {
            config,
            currencies,
            contra_accounts,
            credentials,
            authenticator: Arc::new(authenticator),
            jwt,
            tls,
            admin_token,
        })
    }
}

/// Reads the files of tokens and policy, if they are set.
pub fn read_credentials(
    config: &SecurityConfig,
) -> Result<Option<(CredentialFiles, CredentialTexts)>, String> {
    let Some(files) = config.credential_files() else { return Ok(None) };
    let texts = files.read()?;
    Ok(Some((files, texts)))
}

/// The authenticator of callers, with the credentials of the files that are set.
fn authenticator(
    config: &SecurityConfig,
    credentials: Option<&(CredentialFiles, CredentialTexts)>,
    issuer: Option<Arc<JwtIssuer>>,
    currencies: &Currencies,
) -> Result<Authenticator, String> {
    let credentials = credentials.map(|(files, texts)| files.parse(texts, currencies));
    let mut public = Vec::new();
    if config.health == Access::Public {
        public.push(HEALTH_SERVICE);
    }
    if config.reflection == Access::Public {
        public.extend(REFLECTION_SERVICES);
    }
    Ok(Authenticator::new(credentials.transpose()?, issuer, public))
}
