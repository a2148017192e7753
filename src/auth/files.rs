//! Reads the files of tokens (TOML) and of the policy.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;

use crate::{
    auth::{
        credentials::Credentials,
        policy::Policy,
        policy_file,
        tokens::{Token, Tokens},
    },
    domain::{
        hex::from_hex,
        ids::{Identity, IdentityKind},
        money::Currencies,
    },
    regular_file, toml_text,
};

/// The most tokens. Each call compares its token with all of them.
const TOKENS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    identity: String,
    sha256: String,
    /// A time, or `never`: an entry that is cut off must not be valid without a time limit.
    expire_time: toml::Value,
}

/// The paths of both files.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// The policy.
    pub policy: PathBuf,
    /// The tokens. None: callers are known by their certificates only.
    pub tokens: Option<PathBuf>,
}

/// The content of both files.
#[derive(PartialEq, Eq)]
pub struct CredentialTexts {
    policy: String,
    tokens: Option<String>,
}

impl CredentialFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// A file cannot be read. One line, with the name of the file.
    pub fn read(&self) -> Result<CredentialTexts, String> {
        let read = |path: &PathBuf| {
            regular_file::read_text(path)
                .map_err(|error| format!("{}: cannot be read: {error}", path.display()))
        };
        let policy = read(&self.policy)?;
        Ok(CredentialTexts { policy, tokens: self.tokens.as_ref().map(read).transpose()? })
    }

    /// Each file with its text.
    pub fn with_texts<'a>(
        &'a self,
        texts: &'a CredentialTexts,
    ) -> impl Iterator<Item = (&'a Path, &'a str)> {
        let tokens = self.tokens.as_deref().zip(texts.tokens.as_deref());
        [(self.policy.as_path(), texts.policy.as_str())].into_iter().chain(tokens)
    }

    /// Parses the texts of both files.
    ///
    /// # Errors
    /// A file is not valid, or they do not fit together. One line, with the name of the file.
    pub fn parse(
        &self,
        texts: &CredentialTexts,
        currencies: &Currencies,
    ) -> Result<Credentials, String> {
        let policy = in_file(&self.policy, policy_file::parse(&texts.policy, currencies))?;
        let tokens = match (&self.tokens, &texts.tokens) {
            (Some(path), Some(text)) => in_file(path, tokens(text, &policy))?,
            _ => Tokens::default(),
        };
        Ok(Credentials { tokens, policy })
    }
}

fn in_file<T>(path: &Path, parsed: Result<T, String>) -> Result<T, String> {
    parsed.map_err(|error| format!("{}: {error}", path.display()))
}

fn tokens(text: &str, policy: &Policy) -> Result<Tokens, String> {
    let file: TokensFile = toml_text::parse(text)?;
    if file.token.len() > TOKENS_MAX {
        return Err(format!("has {} tokens; at most {TOKENS_MAX} are allowed", file.token.len()));
    }
    if file.token.is_empty() {
        return Err("has no token".to_owned());
    }
    let mut tokens = Tokens::default();
    let mut hashes = BTreeSet::new();
    for (index, entry) in file.token.into_iter().enumerate() {
        let in_entry = |error: String| format!("token {}: {error}", index + 1);
        let token = token(entry).map_err(in_entry)?;
        if !policy.identities.contains_key(&token.identity) {
            return Err(in_entry(format!("identity {:?} is not in the policy", token.identity)));
        }
        if !hashes.insert(token.sha256) {
            return Err(in_entry("an earlier token has the same sha256".to_owned()));
        }
        tokens.0.push(token);
    }
    Ok(tokens)
}

fn token(entry: TokenEntry) -> Result<Token, String> {
    let sha256: [u8; 32] = from_hex(&entry.sha256)
        .and_then(|it| it.try_into().ok())
        .ok_or("sha256 must be 64 hexadecimal digits; `passbook token create` prints them")?;
    let expire_time: Option<SystemTime> = match &entry.expire_time {
        toml::Value::String(text) if text == "never" => None,
        other => Some(humantime::parse_rfc3339(&other.to_string()).map_err(|_| {
            "expire_time must be a time in UTC, like 2027-01-01T00:00:00Z, or \"never\"".to_owned()
        })?),
    };
    let identity = Identity::new(IdentityKind::Token, &entry.identity)?;
    Ok(Token { identity, sha256, expire_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_file_of_tokens_name_the_problem() {
        let hash = "ab".repeat(32);
        let entry = |rest: &str| format!("[[token]]\nidentity = \"a\"\n{rest}\n");
        let whole = format!("sha256 = \"{hash}\"\nexpire_time = 2027-01-01T00:00:00Z");
        let known = "[[identity]]\nname = \"a\"\nknown_by = \"token\"\nmethods = []\n[end]\n";
        let known = policy_file::parse(known, &Currencies::new(&[]).unwrap()).unwrap();
        assert_eq!(tokens(&entry(&whole), &known).unwrap().0[0].sha256, [0xab; 32]);
        let never = entry(&whole.replace("2027-01-01T00:00:00Z", "\"never\""));
        assert_eq!(tokens(&never, &known).unwrap().0[0].expire_time, None);
        let cases = [
            (entry(""), "missing field `sha256`"),
            (
                entry(&whole.replace(&hash, "secret")),
                "token 1: sha256 must be 64 hexadecimal digits",
            ),
            (entry(&whole.replace("T00:00:00Z", "")), "must be a time in UTC"),
            (entry(&whole.replace("2027-01-01T00:00:00Z", "\"2027\"")), "must be a time in UTC"),
            (entry(&format!("sha256 = \"{hash}\"")), "missing field `expire_time`"),
            (entry(&whole).repeat(2), "token 2: an earlier token has the same sha256"),
            (entry(&whole).replace("\"a\"", "\"jwt:a\""), "cannot be \"jwt:a\""),
            (entry(&whole).replace("\"a\"", "\"b\""), "identity \"b\" is not in the policy"),
            (String::new(), "has no token"),
        ];
        for (text, expected) in cases {
            let error = tokens(&text, &known).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
            assert!(!error.contains("secret\""), "{error}");
        }
    }
}
