//! Files of tokens and policies, and clients that send a token.

use std::{fmt::Debug, path::PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::harness::{
    Client, Server, TestDatabase,
    console::{CONSOLE, Console},
};

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

    pub fn set_policy(&self, entries: &str) {
        std::fs::write(self.policy_file(), whole_policy(entries)).expect("the policy is written");
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

    pub async fn serve_with_console(
        &self,
        database: &TestDatabase,
        more: &[&str],
    ) -> (Server, Console) {
        let server = self.serve(database, &[&CONSOLE, more].concat()).await;
        let console = server.console();
        (server, console)
    }
}

/// The text of a policy with these entries.
pub fn whole_policy(entries: &str) -> String {
    format!("{entries}\n[end]\n")
}

/// The TOML of one token that does not expire.
pub fn entry(identity: &str, token: &str) -> String {
    entry_until(identity, token, "\"never\"")
}

/// The TOML of one token that expires at this time.
pub fn entry_until(identity: &str, token: &str, expire_time: &str) -> String {
    let sha256: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[[token]]\nidentity = \"{identity}\"\nsha256 = \"{sha256}\"\nexpire_time = {expire_time}\n"
    )
}

/// The TOML of one identity of a token, with all rights on the accounts with these prefixes.
pub fn identity(name: &str, methods: &[&str], account_prefixes: &[&str]) -> String {
    identity_known_by("token", name, methods, account_prefixes)
}

/// The same of an identity that the server knows in this way.
pub fn identity_known_by(
    known_by: &str,
    name: &str,
    methods: &[&str],
    account_prefixes: &[&str],
) -> String {
    let accounts: Vec<_> = account_prefixes.iter().map(|prefix| format!("{prefix}*")).collect();
    let rights = ["read", "credit", "debit", "manage", "overdraft", "force"];
    let rule = match accounts.is_empty() {
        true => String::new(),
        false => allow(&accounts, &rights, "\"unlimited\""),
    };
    format!("[[identity]]\nname = {name:?}\nknown_by = {known_by:?}\nmethods = {methods:?}\n{rule}")
}

/// The TOML of one identity of a token that may call all methods, with these rules.
pub fn identity_with(name: &str, rules: &[String]) -> String {
    identity(name, &["*"], &[]) + &rules.concat()
}

/// The TOML of a rule that allows rights up to `amount_max`, which is TOML, too, or empty.
pub fn allow(accounts: &[impl Debug], rights: &[&str], amount_max: &str) -> String {
    let amount_max = match amount_max {
        "" => String::new(),
        amount_max => format!("amount_max = {amount_max}\n"),
    };
    format!("[[identity.rule]]\naccounts = {accounts:?}\nallow = {rights:?}\n{amount_max}")
}

/// The TOML of a rule that denies rights.
pub fn deny(accounts: &[&str], rights: &[&str]) -> String {
    format!("[[identity.rule]]\naccounts = {accounts:?}\ndeny = {rights:?}\n")
}

/// The TOML of one group, with these rules.
pub fn group(name: &str, methods: &[&str], rules: &[String]) -> String {
    let identity = identity(name, methods, &[]) + &rules.concat();
    identity.replace("known_by = \"token\"\n", "").replace("[[identity", "[[group")
}

impl Server {
    /// A client with this bearer token.
    pub fn client_of(&self, token: &str) -> Client {
        Client::over(self.channel(), bearer(token))
    }
}
