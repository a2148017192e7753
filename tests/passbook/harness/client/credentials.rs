//! Files of tokens and policies, and clients that send a token.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::harness::{Client, Server, TestDatabase};

/// Adds the `authorization` header to each call, if there is one.
#[derive(Clone, Default)]
pub struct Credential(Option<MetadataValue<Ascii>>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The credential for this bearer token.
pub fn bearer(token: &str) -> Credential {
    Credential(Some(format!("Bearer {token}").parse().expect("printable")))
}

/// This value of `authorization`, unchanged, or none.
pub fn authorization(authorization: Option<&str>) -> Credential {
    Credential(authorization.map(|value| value.parse().expect("printable")))
}

/// The tokens and policy files of a server with authentication.
pub struct Callers {
    directory: TempDir,
}

impl Callers {
    /// Identities with their tokens, and the policy.
    pub fn new(tokens: &[(&str, &str)], policy: &str) -> Self {
        let callers = Self { directory: tempfile::tempdir().expect("a directory") };
        callers.set_policy(policy);
        callers
            .set_tokens(&tokens.iter().map(|(name, token)| entry(name, token)).collect::<String>());
        callers
    }

    pub fn set_policy(&self, text: &str) {
        std::fs::write(self.policy_file(), text).expect("the policy is written");
    }

    pub fn set_tokens(&self, text: &str) {
        std::fs::write(self.tokens_file(), text).expect("the tokens are written");
    }

    pub fn policy_file(&self) -> PathBuf {
        self.directory.path().join("policy.toml")
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.directory.path().join("tokens.toml")
    }

    /// The arguments of a server with these files.
    pub fn arguments(&self) -> [String; 4] {
        let path = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
        let (tokens, policy) = (path(self.tokens_file()), path(self.policy_file()));
        ["--tokens-file".to_owned(), tokens, "--policy-file".to_owned(), policy]
    }

    pub async fn serve(&self, database: &TestDatabase, more: &[&str]) -> Server {
        let arguments = self.arguments();
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(more);
        Server::start_with(database, &all).await
    }
}

/// The TOML of one token.
pub fn entry(identity: &str, token: &str) -> String {
    let sha256: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[token]]\nidentity = \"{identity}\"\nsha256 = \"{sha256}\"\n")
}

/// The TOML of one identity.
pub fn identity(name: &str, methods: &[&str], account_prefixes: &[&str]) -> String {
    format!(
        "[[identity]]\nname = {name:?}\nmethods = {methods:?}\n\
         account_prefixes = {account_prefixes:?}\n"
    )
}

/// The TOML of one group.
pub fn group(name: &str, methods: &[&str], account_prefixes: &[&str]) -> String {
    identity(name, methods, account_prefixes).replace("[[identity]]", "[[group]]")
}

impl Server {
    /// A client with this bearer token.
    pub fn client_of(&self, token: &str) -> Client {
        Client::over(self.channel(), bearer(token))
    }
}
