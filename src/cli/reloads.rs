//! The files that a server reads again when they change, and what follows from a change.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::{Authenticator, CredentialFiles, CredentialTexts},
    budget::Connections,
    domain::money::Currencies,
    server::{
        AdminToken, Jwks, Tls,
        file_watch::{self, ReadFailure},
    },
};

/// How long after an identity is removed its connections are closed. Until then its calls get their
/// responses, and its streams their error.
const REMOVED_CONNECTIONS_GRACE: Duration = Duration::from_secs(5);

/// What is read again besides tokens and policy.
pub struct ReloadedFiles {
    pub tls: Option<Arc<Tls>>,
    pub admin_token: Option<Arc<AdminToken>>,
    pub jwks: Option<Jwks>,
}

impl ReloadedFiles {
    /// All files in force, as the audit log names them, with these of tokens and policy.
    pub fn sources(&self, credentials: &[Source]) -> Vec<Source> {
        let of_tls = self.tls.iter().flat_map(|tls| tls.sources());
        let of_admin_token = self.admin_token.iter().map(|token| token.source());
        let keys = self.jwks.iter().map(Jwks::in_force);
        of_tls.chain(of_admin_token).chain(credentials.iter().cloned()).chain(keys).collect()
    }

    /// Starts to read them again after each change, for as long as the server runs.
    pub fn reload_on_change(self, connections: &Arc<Connections>, audit: Option<&Arc<AuditLog>>) {
        if let Some(tls) = self.tls {
            let (connections, audit) = (connections.clone(), audit.cloned());
            tokio::spawn(async move { tls.reload_on_change(connections, audit).await });
        }
        if let Some(token) = self.admin_token {
            let audit = audit.cloned();
            tokio::spawn(async move { token.reload_on_change(audit).await });
        }
        if let Some(jwks) = self.jwks {
            tokio::spawn(jwks.reload_on_change(audit.cloned()));
        }
    }
}

/// The files of tokens and policy as the audit log names them, with their texts if they could be read.
pub fn sources_of_credentials(
    files: &CredentialFiles,
    texts: Result<&CredentialTexts, &ReadFailure>,
) -> Vec<Source> {
    match texts {
        Ok(texts) => {
            let read = files.with_texts(texts);
            read.map(|(file, text)| Source::new(file, text.as_bytes())).collect()
        }
        Err(failure) => {
            let files = [&files.policy].into_iter().chain(&files.tokens);
            files.map(|file| failure.source(file)).collect()
        }
    }
}

/// Reads the files of tokens and policy again after each change, for as long as the server runs. If
/// a file is invalid, or the policy would record an identity's requests under another name, the last
/// valid content of both stays in force.
pub async fn reload_credentials(
    files: CredentialFiles,
    in_force: CredentialTexts,
    currencies: Arc<Currencies>,
    authenticator: Arc<Authenticator>,
    connections: Arc<Connections>,
    mut reloads: Reloads,
) {
    let reload = |texts: Result<&CredentialTexts, &ReadFailure>| {
        let read = sources_of_credentials(&files, texts);
        let texts = texts.map_err(ToString::to_string);
        let parsed = texts.and_then(|texts| {
            let credentials = files.parse(texts, &currencies)?;
            let kept = authenticator.check_names_kept(&credentials);
            kept.map_err(|error| format!("{}: {error}", files.policy.display()))?;
            Ok(credentials)
        });
        reloads.record(read, &parsed);
        let removed = authenticator.replace(parsed?);
        if !removed.is_empty() {
            let connections = connections.clone();
            tokio::spawn(async move {
                sleep(REMOVED_CONNECTIONS_GRACE).await;
                connections.close_those_of(|identity| removed.contains(identity));
            });
        }
        Ok(())
    };
    let read_files = files.clone();
    let read = move || read_files.read();
    file_watch::reload_on_change("tokens and policy", in_force, read, reload).await;
}
